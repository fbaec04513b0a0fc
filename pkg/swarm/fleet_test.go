package swarm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/internal/cluster"
	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// memStore keeps pieces in memory: the least that a Store must do.
type memStore struct {
	mu       sync.Mutex
	held     map[pieces.Blob]map[int]pieces.Verified
	complete map[pieces.Blob]bool
	served   atomic.Int64
	flip     bool                                    // serve every piece with one bit wrong
	twist    func(pieces.Statement) pieces.Statement // what is said instead of a statement
}

func newMemStore() *memStore {
	return &memStore{held: map[pieces.Blob]map[int]pieces.Verified{}, complete: map[pieces.Blob]bool{},
		twist: func(st pieces.Statement) pieces.Statement { return st }}
}

func (m *memStore) Held(b pieces.Blob) *pieces.Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := pieces.NewSet(b.Pieces())
	for i := range m.held[b] {
		set.Add(i)
	}
	return set
}

func (m *memStore) Statements(b pieces.Blob) []pieces.Statement {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []pieces.Statement
	for _, i := range slices.Sorted(maps.Keys(m.held[b])) {
		out = append(out, m.twist(m.held[b][i].Statement()))
	}
	return out
}

func (m *memStore) OpenPiece(b pieces.Blob, i int) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.held[b][i]
	if !ok {
		return nil, errors.New("not held")
	}
	data := v.Bytes()
	m.served.Add(int64(len(data)))
	if m.flip {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memStore) Put(_ context.Context, v pieces.Verified) error {
	own, err := pieces.Verify(v.Statement(), bytes.Clone(v.Bytes()))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[v.Blob()] == nil {
		m.held[v.Blob()] = map[int]pieces.Verified{}
	}
	m.held[v.Blob()][v.Index()] = own
	return nil
}

func (m *memStore) Complete(_ context.Context, b pieces.Blob) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := b.NewHash()
	for i := range b.Pieces() {
		h.Write(m.held[b][i].Bytes())
	}
	if err := b.Check(h); err != nil {
		return err
	}
	m.complete[b] = true
	return nil
}

func (m *memStore) Forget(b pieces.Blob, drop func(pieces.Statement) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, v := range m.held[b] {
		if drop(v.Statement()) {
			delete(m.held[b], i)
		}
	}
	return nil
}

func (m *memStore) whole(blobs []pieces.Blob) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(blobs, func(b pieces.Blob) bool { return !m.complete[b] })
}

// model is what a fleet fetches: blobs with content, and a Hub that sends it at
// a rate shared by all and counts what it sent.
type model struct {
	blobs   []pieces.Blob
	content map[pieces.Blob][]byte
	size    int64

	mu    sync.Mutex
	next  time.Time // when the shared link is free again
	rate  int64     // bytes a second
	sent  atomic.Int64
	calls atomic.Int64
	work  []*fetching // of extents, in the order in which they began; guarded by mu

	behind  func(e pieces.Extent) []pieces.Span // what upstream says; nil says nothing
	started func(h *hubFor, e pieces.Extent)    // told of each extent that is begun; may be nil
}

// fetching is one member's work on an extent.
type fetching struct {
	who   *hubFor
	key   [32]byte
	began time.Time
	over  bool
}

func (m *model) begin(h *hubFor, e pieces.Extent) (end func()) {
	if m.started != nil {
		m.started(h, e)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &fetching{who: h, key: e.Key(), began: time.Now()}
	m.work = append(m.work, f)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		f.over = true
	}
}

func newModel(rate int64, sizes ...int) *model {
	m := &model{content: map[pieces.Blob][]byte{}, rate: rate}
	r := rand.NewChaCha8([32]byte{7})
	for _, size := range sizes {
		data := make([]byte, size)
		r.Read(data)
		b := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(data)), Size: int64(size)}
		m.blobs, m.content[b], m.size = append(m.blobs, b), data, m.size+int64(size)
	}
	return m
}

func (m *model) copies() float64 { return float64(m.sent.Load()) / float64(m.size) }

// link waits for the shared link to carry n bytes.
func (m *model) link(ctx context.Context, n int64) error {
	m.mu.Lock()
	now := time.Now()
	if m.next.Before(now) {
		m.next = now
	}
	m.next = m.next.Add(time.Duration(float64(n) / float64(m.rate) * float64(time.Second)))
	wait := time.NewTimer(m.next.Sub(now))
	m.mu.Unlock()
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hubFor is one member's way to the Hub.
type hubFor struct {
	*model
	signer pieces.Signer
	cutOff atomic.Bool // this member's way is silent
	lies   atomic.Bool // it cuts wrong bytes and signs them
	got    atomic.Int64
}

func (h *hubFor) Behind(e pieces.Extent) []pieces.Span {
	if h.behind == nil {
		return nil
	}
	return h.behind(e)
}

func (h *hubFor) Fetch(ctx context.Context, e pieces.Extent, need func(pieces.Blob, int) bool,
	put func(context.Context, pieces.Verified) error, progress func(int64)) error {
	defer h.begin(h, e)()
	for _, s := range e.Spans {
		for i := s.First; i < s.First+s.Count; i++ {
			if need(s.Blob, i) {
				if err := h.piece(ctx, s.Blob, i, put, progress); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *hubFor) piece(ctx context.Context, b pieces.Blob, i int, put func(context.Context, pieces.Verified) error, progress func(int64)) error {
	off, n := b.Piece(i)
	for at := int64(0); at < n; at += 256 << 10 {
		step := min(256<<10, n-at)
		if err := h.link(ctx, step); err != nil {
			return err
		}
		if h.cutOff.Load() {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		h.sent.Add(step)
		h.got.Add(step)
		progress(step)
	}
	data := h.content[b][off : off+n]
	if h.lies.Load() {
		data = bytes.Clone(data)
		data[0] ^= 1
	}
	c := pieces.NewCutter(h.signer, b, i, 1, nil)
	if i > 0 && i < b.Pieces()-1 {
		sum := sha256.New()
		sum.Write(h.content[b][:off])
		border, _ := pieces.BorderAt(sum, off)
		c.From(border)
	}
	v, err := c.Next(bytes.NewReader(data))
	if err != nil {
		return err
	}
	return put(ctx, v)
}

// member is one node of a fleet with all its parts.
type member struct {
	*cluster.Node
	node    *swarm.Node
	members *swarm.Members
	store   *memStore
	hub     *hubFor
	local   *files // nil: none
	stop    context.CancelFunc
	done    chan error    // what Fetch returned
	idle    time.Duration // longest without a byte, once done
	peers   int64         // bytes from other members, once done
	t       *testing.T
}

type fleet struct {
	*cluster.Cluster
	t       *testing.T
	model   *model
	members []*member
	wg      sync.WaitGroup
	tweak   func(*swarm.Config)
	facts   func(*member, *swarm.Facts)
}

func newFleet(t *testing.T, m *model, n int, o cluster.Options, tweak func(*swarm.Config)) *fleet {
	f := &fleet{Cluster: cluster.New(t, n, o), t: t, model: m, tweak: tweak}
	for _, node := range f.Nodes {
		f.start(node)
	}
	t.Cleanup(f.end)
	return f
}

func (f *fleet) start(parts *cluster.Node) *member {
	f.t.Helper()
	signer := pieces.NewSigner(parts.Identity)
	m := &member{Node: parts, store: newMemStore(), hub: &hubFor{model: f.model, signer: signer}, done: make(chan error, 1), t: f.t}
	f.members = append(f.members, m)
	f.run(m)
	return m
}

// run starts the member's node and membership on its parts.
func (f *fleet) run(m *member) {
	ctx, cancel := context.WithCancel(context.Background())
	m.stop = cancel
	o := m.MemberOptions(f.Nodes[0].GossipAddr(), f.Nodes[min(1, len(f.Nodes)-1)].GossipAddr())
	o.OnUp = func(facts swarm.Facts) { m.node.MemberUp(facts) }
	o.OnDown = func(p peer.ID) { m.node.MemberDown(p) }
	o.OnMessage = func(b []byte) { m.node.Message(b) }
	if f.facts != nil {
		f.facts(m, &o.Facts)
	}
	members, err := swarm.NewMembers(o)
	if err != nil {
		f.t.Fatal(err)
	}
	m.members = members
	c := swarm.Config{Host: m.Host, Members: members, Store: m.store, Signer: m.hub.signer, Name: m.Name, Upstream: true, Logger: f.log(m)}
	if f.tweak != nil {
		f.tweak(&c)
	}
	if m.node, err = swarm.New(c); err != nil {
		f.t.Fatal(err)
	}
	f.wg.Go(func() { members.Run(ctx) })
	f.wg.Go(func() {
		if err := m.node.Run(ctx); err != nil {
			f.t.Errorf("%s: %v", m.Name, err)
		}
	})
}

func (f *fleet) log(m *member) *slog.Logger {
	level := slog.LevelWarn
	if os.Getenv("SWARM_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(f.t.Output(), &slog.HandlerOptions{Level: level})).With("node", m.Name)
}

func (f *fleet) end() {
	for _, m := range f.members {
		m.stop()
	}
	f.wg.Wait()
	for _, n := range f.Nodes {
		f.Kill(n) // closing live connections waits under a lock, which stops virtual time
	}
	for _, n := range f.Nodes {
		n.Host.Close()
	}
	time.Sleep(time.Minute) // memberlist's and libp2p's timers drain
}

// fetch has the member fetch the model once the swarm has settled.
func (f *fleet) fetch(m *member) {
	f.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		m.done <- m.fetch(ctx, f.model)
	})
}

func (m *member) fetch(ctx context.Context, mod *model) error {
	if err := m.node.Settled(ctx); err != nil {
		return err
	}
	_, err := m.node.Record(ctx, "resolve/acme/model@main", 30*time.Second, func(context.Context) ([]byte, error) {
		mod.calls.Add(1)
		time.Sleep(50 * time.Millisecond)
		return []byte("commit"), nil
	})
	if err != nil {
		return err
	}
	return m.node.Fetch(ctx, m.job(mod), func(p swarm.Progress) {
		m.idle, m.peers = max(m.idle, p.Idle), 0
		for _, n := range p.Peers {
			m.peers += n
		}
		if p.Idle > 100*time.Second && p.Idle < 101*time.Second {
			m.t.Logf("%s: %+v\n%s", m.Name, p, m.node.Dump(ctx))
		}
	})
}

func (m *member) job(mod *model) swarm.Job {
	j := swarm.Job{Name: "acme/model@commit", Blobs: mod.blobs, Extents: pieces.Extents(mod.blobs, 8<<20), Upstream: m.hub}
	if m.local != nil {
		j.Local = m.local
	}
	return j
}

// finish waits for the members and reports who failed or holds less than all.
func (f *fleet) finish(members ...*member) time.Duration {
	f.t.Helper()
	start := time.Now()
	for _, m := range members {
		if err := <-m.done; err != nil {
			f.t.Errorf("%s: %v", m.Name, err)
		} else if !m.store.whole(f.model.blobs) {
			f.t.Errorf("%s: fetched without completing", m.Name)
		}
	}
	return time.Since(start)
}

// until lets virtual time pass until ok.
func (f *fleet) until(what string, ok func() bool) {
	f.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 5*time.Minute {
			f.t.Fatalf("not within 5 minutes: %s", what)
		}
	}
}

func (f *fleet) atMost(copies float64) {
	f.t.Helper()
	f.t.Logf("copies %.3f, resolve calls %d", f.model.copies(), f.model.calls.Load())
	if f.model.copies() > copies {
		f.t.Errorf("the Hub sent %.3f copies, want at most %.2f", f.model.copies(), copies)
	}
}

// busiest returns the member that got most from the Hub.
func (f *fleet) busiest() *member {
	return slices.MaxFunc(f.members, func(a, b *member) int { return int(a.hub.got.Load() - b.hub.got.Load()) })
}

func (f *fleet) except(gone ...*member) []*member {
	return slices.DeleteFunc(slices.Clone(f.members), func(m *member) bool { return slices.Contains(gone, m) })
}

var sizes = []int{24 << 20, 17<<20 + 5, 9 << 20, 700, 1, 80_000, 3 << 20}

func TestSixteenMembersCostTheHubOneCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, sizes...), 16, cluster.Options{Key: swarm.NewKey(), Up: 100 << 20, Down: 100 << 20}, nil)
		for _, m := range f.members {
			f.fetch(m)
		}
		took := f.finish(f.members...)
		floor := time.Duration(float64(f.model.size) / float64(f.model.rate) * float64(time.Second))
		t.Logf("last after %v, floor %v", took, floor)
		f.atMost(1.00)
		if f.model.calls.Load() != 1 {
			t.Errorf("%d resolve calls", f.model.calls.Load())
		}
		f.checkCounters()
		f.checkReleased()
		var worst int64
		for _, m := range f.members {
			worst = max(worst, m.store.served.Load())
		}
		t.Logf("worst sender %.2f copies", float64(worst)/float64(f.model.size))
	})
}

// checkCounters wants what members counted to add up: each piece was cut once in
// the fleet and taken by all others, and what was taken was sent.
func (f *fleet) checkCounters() {
	f.t.Helper()
	var sum swarm.Counters
	for _, m := range f.members {
		s, err := m.node.Status(f.t.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		sum.In, sum.Out = sum.In+s.In, sum.Out+s.Out
		sum.Cut, sum.Taken, sum.Claims, sum.Refused = sum.Cut+s.Cut, sum.Taken+s.Taken, sum.Claims+s.Claims, sum.Refused+s.Refused
	}
	count, others := int64(0), int64(len(f.members)-1)
	for _, b := range f.model.blobs {
		count += int64(b.Pieces())
	}
	if sum.Cut != count || sum.Taken != count*others || sum.Claims == 0 || sum.Refused != 0 {
		f.t.Errorf("counted %+v for %d pieces", sum, count)
	}
	if want := f.model.size * others; sum.In < want || sum.Out < sum.In {
		f.t.Errorf("counted %d bytes in, %d out, want at least %d", sum.In, sum.Out, want)
	}
}

// A wrong --advertise, or a firewall that lets connections out only.
func TestAMemberThatCantBeDialledStillGivesPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, sizes...), 2, cluster.Options{}, nil)
		f.facts = func(m *member, facts *swarm.Facts) { facts.Addrs = []string{"10.0.0.77:1"} }
		hidden := f.start(f.Add())
		f.fetch(hidden)
		f.finish(hidden)
		f.fetch(f.members[0])
		f.finish(f.members[0])
		f.atMost(1.00)
	})
}

func TestALateMemberCostsTheHubNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, sizes...), 3, cluster.Options{}, nil)
		f.fetch(f.members[0])
		f.finish(f.members[0])
		late := f.start(f.Add())
		f.fetch(late)
		f.finish(late)
		f.atMost(1.00)
	})
}

// What a member holds of much takes seconds to say: who asks waits until it is said,
// and does not fetch what the end of the answer would have offered.
func TestALongAnswerIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := make([]int, 3000)
		for i := range many {
			many[i] = 8
		}
		f := newFleet(t, newModel(25<<20, many...), 2, cluster.Options{}, nil)
		f.fetch(f.members[0])
		f.finish(f.members[0])
		late := f.Add()
		f.Net.Shape(late.IP, 0, 100_000) // its answer is 750 KB
		m := f.start(late)
		f.fetch(m)
		f.finish(m)
		f.atMost(1.00)
	})
}

// V06: a member serves every piece with a bit wrong.
//
// Each is refused and asked of another; the member is banned for ten minutes,
// longer each time, and named in the status. All others finish.
func TestV06BadPieces(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, 64<<20, 5000), 5, cluster.Options{}, nil)
		liar := f.members[2]
		liar.store.flip = true
		f.fetch(liar) // alone: whoever comes later has nobody else to ask
		f.finish(liar)
		for _, m := range f.except(liar) {
			f.fetch(m)
		}
		f.finish(f.except(liar)...)
		f.atMost(2.00) // nothing of the liar's copy is of use to the others
		banned := 0
		for _, m := range f.except(liar) {
			s, err := m.node.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if int(s.Counters.Bans) != len(s.Bans) || s.Refused < s.Counters.Bans {
				t.Errorf("%s counted %+v with bans %v", m.Name, s.Counters, s.Bans)
			}
			for _, b := range s.Bans {
				banned++
				if b.Peer != liar.Peer.String() || b.Name != liar.Name {
					t.Errorf("%s banned %s (%s): %s", m.Name, b.Name, b.Peer, b.Reason)
				}
			}
		}
		if banned == 0 {
			t.Error("nobody banned the liar")
		}
	})
}

func TestAnIdleMemberKeepsNoLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, sizes...), 3, cluster.Options{}, nil)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.members...)
		kept := 0
		for _, m := range f.members {
			kept += m.node.IdleLanes()
		}
		time.Sleep(2 * time.Minute)
		for _, m := range f.members {
			if n := m.node.IdleLanes(); n != 0 || kept == 0 {
				t.Errorf("%s keeps %d lanes, all kept %d at the end of the fetch", m.Name, n, kept)
			}
		}
	})
}

// Who relays a piece whose statement contradicts itself is not to blame.
func TestAMakerOfFalseBordersIsBanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, 64<<20, 5000), 3, cluster.Options{}, nil)
		liar, relay, last := f.members[0], f.members[1], f.members[2]
		f.fetch(liar)
		f.finish(liar)
		f.fetch(relay)
		f.finish(relay)
		relay.store.twist = func(st pieces.Statement) pieces.Statement {
			if st.Index != 3 || !st.Bordered() {
				return st
			}
			st.After[0] ^= 1
			return liar.hub.signer.State(st.Blob, st.Index, st.Mark)
		}
		liar.stop() // the relay alone is left to ask
		f.fetch(last)
		f.finish(last)
		s, err := last.node.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Bans) != 1 || s.Bans[0].Peer != liar.Peer.String() || !strings.Contains(s.Bans[0].Reason, "false statement on piece 3") {
			t.Errorf("bans %+v, want the maker", s.Bans)
		}
		f.atMost(1.10) // piece 3 once more
	})
}

// V08: a member signs statements for bytes that are not the file's.
//
// Every piece matches its statement and the whole does not match the Hub's digest:
// nothing is published, its maker is found by fetching again, and the honest
// members finish.
func TestV08FalseStatements(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, 48<<20, 5000), 4, cluster.Options{}, nil)
		liar := f.members[1]
		liar.hub.lies.Store(true)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.except(liar)...)
		if err := <-liar.done; err == nil && !liar.store.whole(f.model.blobs) {
			t.Error("the liar completed what it can't have")
		}
		t.Logf("copies %.2f", f.model.copies())
	})
}

// S23: the last pieces come from a member with a hopelessly slow link.
//
// Once nothing else is left to ask for, they are asked of a second holder as well;
// the first answer wins and the other is cancelled.
func TestS23SlowMember(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, 24<<20, 5000), 3, cluster.Options{Up: 8 << 20}, nil)
		fast, slow, last := f.members[0], f.members[1], f.members[2]
		for _, m := range []*member{fast, slow} {
			f.fetch(m)
			f.finish(m)
		}
		f.fetch(last)
		f.until("the slow member is asked", func() bool { return slow.store.served.Load() > 0 })
		f.Net.Shape(slow.IP, 10<<10, 0) // a piece of 4 MiB takes 400 s from now on
		if took := f.finish(last); took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		f.atMost(1.00)
	})
}

func TestAPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(5<<20, 64<<20), 4, cluster.Options{}, nil)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.until("a quarter is sent", func() bool { return f.model.copies() > 0.25 })
		f.Isolate(f.members[0].Node)
		time.Sleep(5 * time.Second)
		f.Reconnect(f.members[0].Node)
		f.finish(f.members...)
		f.atMost(1.60)
	})
}

func TestMembersBeyondTheNeighboursAreFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(25<<20, 12<<20, 5000), 24, cluster.Options{}, func(c *swarm.Config) { c.Neighbours = 4 })
		f.fetch(f.members[3])
		f.finish(f.members[3])
		f.fetch(f.members[17])
		f.finish(f.members[17])
		f.atMost(1.00)
	})
}

// R01: the Hub asks one member to wait, and not all others are its neighbours.
//
// Neighbours hear of it on their streams and the others by gossip, all within two
// seconds. They wait up to two seconds longer than it was told, each another time.
func TestR01AllMembersHearOfAWait(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		const wait = 5 * time.Second
		var mu sync.Mutex
		heard := map[string]time.Duration{}
		f := newFleet(t, newModel(1, 1), 24, cluster.Options{}, func(c *swarm.Config) {
			c.Neighbours = 4
			name := c.Name
			c.OnHold = func(bucket string, d time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				if heard[name] = d; bucket != "api" || d < wait || d > wait+2*time.Second {
					t.Errorf("%s: %v for %q", name, d, bucket)
				}
			}
		})
		for _, m := range f.members {
			if err := m.node.Settled(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		f.members[5].node.Hold("api", wait)
		time.Sleep(2 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		waits := map[time.Duration]bool{}
		for _, d := range heard {
			waits[d] = true
		}
		if len(heard) != 23 || len(waits) < 10 {
			t.Errorf("%d members heard of %d different waits", len(heard), len(waits))
		}
	})
}

// checkReleased wants nobody to take a claim for standing, when there is nothing more to
// claim: those would count as members that fetch, and be remembered for good.
func (f *fleet) checkReleased() {
	f.t.Helper()
	time.Sleep(2 * time.Second)
	for _, m := range f.members {
		if links, seats := m.node.Claimed(f.t.Context()); links+seats > 0 {
			f.t.Errorf("%s takes %d claims of its neighbours for standing, %d of any member", m.Name, links, seats)
		}
	}
}

func TestARecordIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(1, 1), 8, cluster.Options{}, nil)
		var calls atomic.Int64
		var wg sync.WaitGroup
		large := strings.Repeat("a large outline ", 64<<10)
		for i, m := range f.members {
			wg.Go(func() {
				m.node.Settled(t.Context())
				v, err := m.node.Record(t.Context(), "outline/x", time.Hour, func(context.Context) ([]byte, error) {
					time.Sleep(3 * time.Second)
					return fmt.Appendf(nil, "made by call %d %s", calls.Add(1), large), nil
				})
				if err != nil || string(v) != "made by call 1 "+large {
					t.Errorf("member %d: %.20q, %v", i, v, err)
				}
			})
		}
		wg.Wait()
		f.checkReleased()
		var carried int64
		for _, m := range f.members {
			carried += f.Net.Carried(m.IP)
		}
		if carried > 2*8<<20 {
			t.Errorf("it took %d bytes to tell seven of one MiB", carried)
		}
		nothing := func(context.Context) ([]byte, error) { return nil, nil }
		if v, err := f.members[0].node.Record(t.Context(), "empty", time.Hour, nothing); err != nil || len(v) > 0 {
			t.Errorf("a record of nothing: %q, %v", v, err)
		}
		if _, err := f.members[0].node.Record(t.Context(), "unknown", time.Hour, nil); !errors.Is(err, swarm.ErrNoRecord) {
			t.Errorf("a record that nobody has: %v", err)
		}
	})
}

// Members that ask for one thing in the course of a day, each alone, don't wait for
// those that had it before: who got a record itself is nobody's rival any more.
func TestARecordIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(1, 1), 12, cluster.Options{}, func(c *swarm.Config) { c.Fetchers = 2 })
		time.Sleep(10 * time.Second)
		for _, m := range f.members {
			began := time.Now()
			v, err := m.node.Record(t.Context(), "resolve/x", time.Second, func(context.Context) ([]byte, error) { return []byte(m.Name), nil })
			if took := time.Since(began); err != nil || string(v) != m.Name || took > time.Second {
				t.Errorf("%s: %q, %v after %v", m.Name, v, err, took)
			}
			time.Sleep(time.Minute)
		}
	})
}
