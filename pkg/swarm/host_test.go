package swarm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

const testProtocol = "/test/1"

func testHost(t *testing.T, seed byte, o HostOptions) *Host {
	t.Helper()
	o.Identity = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func infoOf(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

// echo answers one message and tells how many bytes came.
func echo(h host.Host) <-chan int {
	got := make(chan int, 16)
	h.SetStreamHandler(testProtocol, func(s network.Stream) {
		b, _ := io.ReadAll(s)
		s.Write(b)
		s.Close()
		got <- len(b)
	})
	return got
}

func exchange(ctx context.Context, h host.Host, to peer.ID, msg string) (string, error) {
	s, err := h.NewStream(ctx, to, testProtocol)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if d, ok := ctx.Deadline(); ok {
		s.SetDeadline(d)
	}
	if _, err := io.WriteString(s, msg); err != nil {
		return "", err
	}
	s.CloseWrite()
	b, err := io.ReadAll(s)
	return string(b), err
}

func TestHostsTalkOverTLS(t *testing.T) {
	a := testHost(t, 1, HostOptions{})
	b := testHost(t, 2, HostOptions{Software: "p2pagent/test", Advertise: []string{"192.0.2.7:4001"}})
	echo(b)
	ctx := testContext(t)
	f := Facts{Peer: b.ID(), Name: "b"}
	for _, l := range b.Network().ListenAddresses() {
		ap, err := l.ValueForProtocol(6)
		if err != nil {
			t.Fatal(err)
		}
		f.Addrs = append(f.Addrs, "127.0.0.1:"+ap)
	}
	if err := Connect(ctx, a, f); err != nil {
		t.Fatal(err)
	}
	if err := Connect(ctx, a, f); err != nil {
		t.Errorf("second connect: %v", err)
	}
	if got, err := exchange(ctx, a, b.ID(), "hello"); got != "hello" || err != nil {
		t.Errorf("echo %q, %v", got, err)
	}
	c := a.Network().ConnsToPeer(b.ID())
	if len(c) != 1 || c[0].ConnState().Security != libp2ptls.ID || c[0].ConnState().StreamMultiplexer != "/yamux/1.0.0" || !c[0].ConnState().UsedEarlyMuxerNegotiation {
		t.Errorf("connection: %+v", c)
	}
	if got := b.Addrs(); len(got) != 1 || got[0].String() != "/ip4/192.0.2.7/tcp/4001" {
		t.Errorf("advertises %v", got)
	}
	for _, p := range b.Mux().Protocols() {
		if strings.Contains(string(p), "ping") || strings.Contains(string(p), "relay") || strings.Contains(string(p), "autonat") {
			t.Errorf("serves %s", p)
		}
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	_, err = NewHost(HostOptions{Identity: key, Listen: l.Addr().String()})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("error %v", err)
	}
	taken := testHost(t, 1, HostOptions{})
	if _, err = NewHost(HostOptions{Identity: key, Listen: taken.Addrs()[0].String()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("two hosts on one port: %v", err)
	}
	for _, bad := range []string{"", "4001", "host:4001", "/ip4/127.0.0.1", "/nonsense", "198.51.100.1:4001"} {
		if h, err := NewHost(HostOptions{Identity: key, Listen: bad}); err == nil {
			h.Close()
			t.Errorf("listens on %q", bad)
		}
	}
}

func TestClosedSwarmRefusesOtherKey(t *testing.T) {
	ours, theirs := NewKey(), NewKey()
	g := NewGater(ours)
	g.patience = 50 * time.Millisecond
	a := testHost(t, 1, HostOptions{Gater: g})
	got := echo(a)
	ctx := testContext(t)

	stranger := testHost(t, 2, HostOptions{Gater: admitting(theirs, a.ID())})
	if err := refusedBy(ctx, stranger, a); err == nil {
		t.Fatal("a stranger was served")
	}
	if r := g.Refused(); r.Count != 1 || r.Last != stranger.ID() || r.Addr == "" || !strings.Contains(r.Reason, "proof") {
		t.Errorf("refused %+v", r)
	}
	if err := a.Connect(ctx, infoOf(stranger)); err == nil || len(a.Network().Conns()) != 0 {
		t.Errorf("we dial a stranger: %v", err)
	}
	if r := g.Refused(); r.Count != 1 {
		t.Errorf("our own dial counts as refused: %+v", r)
	}

	member := testHost(t, 3, HostOptions{Gater: admitting(ours, a.ID())})
	g.Admit(member.ID())
	if err := member.Connect(ctx, infoOf(a)); err != nil {
		t.Fatal(err)
	}
	if s, err := exchange(ctx, member, a.ID(), "hi"); s != "hi" || err != nil {
		t.Errorf("member: %q, %v", s, err)
	}
	if n := <-got; n != 2 || len(got) != 0 {
		t.Errorf("%d bytes, %d more streams", n, len(got))
	}
}

// refusedBy tries to get something out of h.
func refusedBy(ctx context.Context, stranger, h host.Host) error {
	if err := stranger.Connect(ctx, infoOf(h)); err != nil {
		return err
	}
	_, err := exchange(network.WithNoDial(ctx, "once"), stranger, h.ID(), "give")
	return err
}

func admitting(k Key, peers ...peer.ID) *Gater {
	g := NewGater(k)
	for _, p := range peers {
		g.Admit(p)
	}
	return g
}

func TestGaterWaitsForGossip(t *testing.T) {
	k := NewKey()
	g := NewGater(k)
	g.patience = time.Minute
	a := testHost(t, 1, HostOptions{Gater: g})
	echo(a)
	b := testHost(t, 2, HostOptions{Gater: admitting(k, a.ID())})
	ctx := testContext(t)
	done := make(chan error, 1)
	go func() { done <- refusedBy(ctx, b, a) }()
	for waiting := 0; waiting == 0; { // until the handshake is through
		g.mu.Lock()
		waiting = g.waiting
		g.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("nobody waits")
		}
	}
	g.Admit(testPeer(t, 9)) // somebody else
	g.Admit(b.ID())
	if err := <-done; err != nil {
		t.Errorf("a member that gossip admitted a moment later: %v", err)
	}
	if g.Refused().Count != 0 {
		t.Errorf("refused %+v", g.Refused())
	}
}

func TestBannedIsRefused(t *testing.T) {
	k := NewKey()
	for name, key := range map[string]Key{"closed": k, "open": {}} {
		t.Run(name, func(t *testing.T) {
			g := NewGater(key)
			a := testHost(t, 1, HostOptions{Gater: g})
			echo(a)
			b := testHost(t, 2, HostOptions{Gater: admitting(key, a.ID())})
			g.Admit(b.ID())
			g.Ban(b.ID(), time.Now().Add(time.Hour))
			ctx := testContext(t)
			if err := refusedBy(ctx, b, a); err == nil {
				t.Fatal("served a banned peer")
			}
			if r := g.Refused(); r.Count != 1 || r.Last != b.ID() || r.Reason != "banned" {
				t.Errorf("refused %+v", r)
			}
			if len(g.Banned()) != 1 {
				t.Errorf("bans %v", g.Banned())
			}
			if err := a.Connect(ctx, infoOf(b)); err == nil {
				t.Error("we dial a banned peer")
			}
			g.Ban(b.ID(), time.Time{})
			f := Facts{Peer: a.ID(), Addrs: []string{strings.Replace(strings.TrimPrefix(a.Addrs()[0].String(), "/ip4/"), "/tcp/", ":", 1)}}
			if err := Connect(ctx, b, f); err != nil {
				t.Errorf("after the ban: %v", err)
			}
			if len(g.Banned()) != 0 {
				t.Errorf("bans %v", g.Banned())
			}
		})
	}
}

func TestGaterIsBounded(t *testing.T) {
	g := NewGater(NewKey())
	for i := range gaterAdmitted + 10 {
		g.Admit(peer.ID([]byte{byte(i), byte(i >> 8), byte(i >> 16)}))
	}
	if n := len(g.admitted); n != gaterAdmitted {
		t.Errorf("%d admitted", n)
	}
	until := time.Now().Add(time.Hour)
	for i := range gaterBans + 10 {
		g.Ban(peer.ID([]byte{byte(i), byte(i >> 8), byte(i >> 16)}), until.Add(time.Duration(i)))
	}
	if n := len(g.banned); n != gaterBans {
		t.Errorf("%d bans", n)
	}
	if _, ok := g.banned[peer.ID([]byte{0, 0, 0})]; ok {
		t.Error("kept the ban that ends first")
	}
	g.patience = time.Hour
	g.waiting = gaterWaiting
	if err := g.await("one more"); err != errNotAdmitted {
		t.Errorf("%v", err)
	}
}

func TestStrangersDontKeepMembersOut(t *testing.T) {
	k := NewKey()
	g := NewGater(k)
	g.patience = time.Hour
	a := testHost(t, 1, HostOptions{Gater: g})
	echo(a)
	addr := strings.Replace(strings.TrimPrefix(a.Addrs()[0].String(), "/ip4/"), "/tcp/", ":", 1)
	for range strangers + 20 { // they connect and say nothing
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	b := testHost(t, 2, HostOptions{Gater: admitting(k, a.ID())})
	f := Facts{Peer: b.ID(), Addrs: []string{"127.0.0.1:9"}}
	g.Admit(b.ID(), f.ips()...)
	if err := refusedBy(testContext(t), b, a); err != nil {
		t.Errorf("member kept out: %v", err)
	}
	g.Revoke(b.ID())
	if al := g.allow; al.Allowed(a.Addrs()[0]) {
		t.Error("still on the allow list")
	}
}
