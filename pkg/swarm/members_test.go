package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"
)

// freePort finds a port that is free for TCP and UDP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		if tryListen(addr) == nil {
			return int(netip.MustParseAddrPort(addr).Port())
		}
	}
	t.Fatal("no free port")
	return 0
}

func testOptions(t *testing.T, seed byte, key Key, join ...string) MemberOptions {
	return MemberOptions{
		Key: key, Bind: "127.0.0.1", Port: freePort(t), Join: join,
		Facts:  Facts{Peer: testPeer(t, seed), Name: fmt.Sprintf("n%d", seed), Addrs: []string{fmt.Sprintf("127.0.0.1:%d", 4000+int(seed))}},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func (o MemberOptions) gossipAddr() string { return fmt.Sprintf("127.0.0.1:%d", o.Port) }

// runMembers runs a member until the test ends or stop is called.
func runMembers(t *testing.T, o MemberOptions) (m *Members, stop func()) {
	t.Helper()
	m, err := NewMembers(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(stop)
	return m, stop
}

// eventually waits for a condition of running members; the bound is only there
// to end a test that has failed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(60 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

func settle(t *testing.T, ms ...*Members) {
	t.Helper()
	for _, m := range ms {
		select {
		case <-m.Settled():
		case <-time.After(60 * time.Second):
			t.Fatal("does not settle")
		}
	}
}

func TestMembersOverRealSockets(t *testing.T) {
	key := NewKey()
	oa := testOptions(t, 1, key)
	ups := make(chan Facts, 8)
	downs := make(chan peer.ID, 8)
	oa.OnUp, oa.OnDown = func(f Facts) { ups <- f }, func(p peer.ID) { downs <- p }
	a, _ := runMembers(t, oa)
	settle(t, a)
	if err := a.JoinError(); err != nil {
		t.Errorf("nobody to join: %v", err)
	}

	heard := make(chan []byte, 8)
	ob := testOptions(t, 2, key, "seed.test:"+strings.TrimPrefix(oa.gossipAddr(), "127.0.0.1:"))
	ob.Gater = NewGater(key)
	ob.OnMessage = func(b []byte) { heard <- b }
	ob.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "seed.test" {
			return nil, errors.New("asked for " + host)
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	b, stop := runMembers(t, ob)
	settle(t, b)
	if got := b.List(); len(got) != 1 || got[0].Peer != oa.Facts.Peer || got[0].Name != "n1" || !key.CheckProof(got[0].Peer, got[0].Proof) {
		t.Errorf("b sees %+v", got)
	}
	if !ob.Gater.InterceptPeerDial(oa.Facts.Peer) {
		t.Error("a proven member is not admitted")
	}
	if f := <-ups; f.Peer != ob.Facts.Peer || f.Version != ProtocolVersion {
		t.Errorf("up %+v", f)
	}
	if err := a.Broadcast([]byte("news")); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; string(got) != "news" {
		t.Errorf("heard %q", got)
	}
	if err := a.Broadcast(make([]byte, maxBroadcast+1)); !errors.Is(err, errTooLong) {
		t.Errorf("long broadcast: %v", err)
	}
	if err := a.Broadcast(nil); err == nil {
		t.Error("empty broadcast")
	}
	stop()
	if p := <-downs; p != ob.Facts.Peer {
		t.Errorf("down %s", p)
	}
}

func TestGossipPortInUse(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		o := testOptions(t, 1, NewKey())
		var taken interface{ Close() error }
		var err error
		if network == "tcp" {
			taken, err = net.Listen("tcp", o.gossipAddr())
		} else {
			taken, err = net.ListenPacket("udp", o.gossipAddr())
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := NewMembers(o)
		if err != nil {
			t.Fatal(err)
		}
		err = m.Run(t.Context())
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), o.gossipAddr()) || !strings.Contains(err.Error(), "choose another") {
			t.Errorf("%s taken: %v", network, err)
		}
		taken.Close()
	}
	o := testOptions(t, 1, NewKey())
	o.Bind = "localhost"
	if m, err := NewMembers(o); err == nil {
		if err := m.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "want an IP address") {
			t.Errorf("bind to a name: %v", err)
		}
	}
}

func TestJoinNowhereSettlesWithAnError(t *testing.T) {
	o := testOptions(t, 1, NewKey())
	o.Join = []string{o.gossipAddr(), fmt.Sprintf("127.0.0.1:%d", freePort(t)), "nowhere.test:7946"}
	o.Resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") }
	o.JoinTimeout = time.Nanosecond
	m, _ := runMembers(t, o)
	eventually(t, "join error", func() bool {
		err := m.JoinError()
		return err != nil && strings.Contains(err.Error(), "refused") && strings.Contains(err.Error(), "no such host")
	})
	settle(t, m)
	if err := m.JoinError(); strings.Contains(err.Error(), o.gossipAddr()) {
		t.Errorf("tried its own address: %v", err)
	}
}

func TestBadMemberOptions(t *testing.T) {
	for name, spoil := range map[string]func(*MemberOptions){
		"no peer":     func(o *MemberOptions) { o.Facts.Peer = "" },
		"join name":   func(o *MemberOptions) { o.Join = []string{"host"} },
		"join port":   func(o *MemberOptions) { o.Join = []string{"host:http"} },
		"join empty":  func(o *MemberOptions) { o.Join = []string{""} },
		"labels":      func(o *MemberOptions) { o.Facts.Labels = manyLabels(17) },
		"long labels": func(o *MemberOptions) { o.Facts.Labels = longLabels() },
	} {
		o := testOptions(t, 1, NewKey())
		spoil(&o)
		if _, err := NewMembers(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	m, err := NewMembers(testOptions(t, 1, NewKey()))
	if err != nil {
		t.Fatal(err)
	}
	f := m.Self()
	f.Labels = longLabels()
	if err := m.Update(f); !errors.Is(err, ErrFactsTooLong) || len(m.Self().Labels) != 0 {
		t.Errorf("update: %v, %+v", err, m.Self())
	}
}

func longLabels() map[string]string {
	out := manyLabels(12)
	for k := range out {
		out[k] = strings.Repeat("x", 50)
	}
	return out
}

// TestForgedFactsAreRefused lets somebody who holds the gossip key announce
// members without proof, of other versions, or that are nonsense.
func TestForgedFactsAreRefused(t *testing.T) {
	key := NewKey()
	o := testOptions(t, 1, key)
	o.OnUp = func(f Facts) { t.Errorf("up: %+v", f) }
	o.Gater = NewGater(key)
	m, _ := runMembers(t, o)
	settle(t, m)
	good := testFacts(t)
	other := testPeer(t, 9)
	old, err := (Facts{Version: 7}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ name, meta, reason string }{
		{other.String(), string(stolen), "no proof"},
		{testPeer(t, 10).String(), string(old), "version 7"},
		{testPeer(t, 11).String(), "nonsense", "decode facts"},
		{testPeer(t, 12).String(), "", "decode facts"},
		{"n00", string(stolen), "not a peer id"},
	} {
		forge(t, key, byte(i), c.name, []byte(c.meta), o.gossipAddr())
		eventually(t, c.reason, func() bool {
			return slices.ContainsFunc(m.Refused(), func(r Refusal) bool { return strings.Contains(r.Reason, c.reason) && r.Addr != "" })
		})
	}
	if got := m.List(); len(got) != 0 {
		t.Errorf("members %+v", got)
	}
	if o.Gater.InterceptPeerDial(other) {
		t.Error("admitted without a proof")
	}
}

// forge joins with memberlist alone, under any name and facts.
func forge(t *testing.T, key Key, seed byte, name string, meta []byte, join string) {
	t.Helper()
	m, err := NewMembers(testOptions(t, 100+seed, key))
	if err != nil {
		t.Fatal(err)
	}
	m.name, m.meta = name, meta
	c := m.config(nil)
	c.BindAddr, c.AdvertiseAddr = "127.0.0.1", "127.0.0.1"
	c.Delegate, c.Events, c.Alive, c.Conflict = onlyMeta{&delegate{m}}, nil, nil, nil
	list, err := memberlist.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	defer list.Shutdown()
	if _, err := list.Join([]string{join}); err != nil {
		t.Fatal(err)
	}
}

type onlyMeta struct{ memberlist.Delegate }

func TestStrangerIsNoticed(t *testing.T) {
	var log bytes.Buffer
	o := testOptions(t, 1, NewKey())
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	m, stop := runMembers(t, o)
	settle(t, m)
	for i, k := range []Key{NewKey(), {}} {
		s := testOptions(t, byte(2+i), k, o.gossipAddr())
		s.JoinTimeout = time.Nanosecond
		sm, sstop := runMembers(t, s)
		eventually(t, "error of the stranger", func() bool { return errors.Is(sm.JoinError(), ErrOtherKey) })
		sstop()
	}
	eventually(t, "noticed", func() bool { return len(m.Refused()) == 1 && m.Refused()[0].Count >= 2 })
	if r := m.Refused()[0]; r.Addr != "127.0.0.1" || r.Reason != "swarm key differs" {
		t.Errorf("%+v", r)
	}
	stop()
	if n := strings.Count(log.String(), "member refused"); n != 1 || strings.Contains(log.String(), "line=") {
		t.Errorf("logged:\n%s", &log)
	}
}

func TestCopiedIdentityIsNoticed(t *testing.T) {
	key := NewKey()
	oa := testOptions(t, 1, key)
	a, _ := runMembers(t, oa)
	ob := testOptions(t, 2, key, oa.gossipAddr())
	b, _ := runMembers(t, ob)
	settle(t, a, b)
	oc := testOptions(t, 2, key, oa.gossipAddr())
	oc.JoinTimeout = time.Nanosecond
	c, _ := runMembers(t, oc)
	eventually(t, "conflict", func() bool {
		return slices.ContainsFunc(a.Refused(), func(r Refusal) bool {
			return r.Peer == oc.Facts.Peer && r.Addr == oc.gossipAddr() && strings.Contains(r.Reason, ob.gossipAddr())
		})
	})
	settle(t, c)
}

func TestRefusalsAreBounded(t *testing.T) {
	m, err := NewMembers(testOptions(t, 1, Key{}))
	if err != nil {
		t.Fatal(err)
	}
	m.log = slog.New(slog.DiscardHandler)
	for i := range maxRefusals + 9 {
		m.refuse(Refusal{Addr: fmt.Sprint(i), Reason: "test"})
	}
	if n := len(m.Refused()); n != maxRefusals {
		t.Errorf("%d refusals", n)
	}
}

func TestSeenMessagesAreBounded(t *testing.T) {
	g := newGossip(func() int { return 1 })
	for i := range maxSeen + 100 {
		g.receive(fmt.Append(nil, i))
	}
	if n, q := len(g.seen.has), g.queue.NumQueued(); n != maxSeen || q > maxQueued || len(g.inbox) != cap(g.inbox) {
		t.Errorf("%d seen, %d queued", n, q)
	}
	if g.seen.add(fmt.Append(nil, maxSeen+99)) {
		t.Error("the last message is new again")
	}
	if !g.seen.add(fmt.Append(nil, 0)) {
		t.Error("the first message is still known")
	}
}

func TestEventsKeepTheLastPerMember(t *testing.T) {
	q := newEvents()
	for i := range 3 {
		q.push(event{facts: Facts{Peer: "a", Free: int64(i)}, up: i != 1})
		q.push(event{facts: Facts{Peer: "b"}, up: i == 0})
	}
	var got []string
	for e, ok := q.next(); ok; e, ok = q.next() {
		got = append(got, fmt.Sprintf("%s %d %t", string(e.facts.Peer), e.facts.Free, e.up))
	}
	if want := []string{"a 2 true", "b 0 false"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
}

func TestClassifyUnknownCause(t *testing.T) {
	err := classify(errors.New("1 error occurred:\n\t* failed to join 10.0.0.1:7946: dial tcp 10.0.0.1:7946: connect: connection refused\n\n"))
	if want := "dial tcp 10.0.0.1:7946: connect: connection refused"; err.Error() != want {
		t.Errorf("%q", err)
	}
}
