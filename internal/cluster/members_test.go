package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/pkg/swarm"
)

// fleet is the members of a cluster at work.
type fleet struct {
	*Cluster
	members []*swarm.Members
	heard   []atomic.Int32
	stop    []context.CancelFunc
	wg      sync.WaitGroup
}

func startFleet(t *testing.T, n int, o Options, tweak func(i int, o *swarm.MemberOptions)) *fleet {
	f := &fleet{Cluster: New(t, n, o), members: make([]*swarm.Members, n), heard: make([]atomic.Int32, n), stop: make([]context.CancelFunc, n)}
	for i := range f.Nodes {
		f.start(i, tweak)
	}
	t.Cleanup(f.end)
	return f
}

func (f *fleet) start(i int, tweak func(i int, o *swarm.MemberOptions)) {
	f.t.Helper()
	o := f.Nodes[i].MemberOptions(f.Nodes[0].GossipAddr(), f.Nodes[1%len(f.Nodes)].GossipAddr())
	o.OnMessage = func([]byte) { f.heard[i].Add(1) }
	if tweak != nil {
		tweak(i, &o)
	}
	m, err := swarm.NewMembers(o)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.members[i], f.stop[i] = m, cancel
	f.wg.Go(func() {
		if err := m.Run(ctx); err != nil {
			f.t.Errorf("run %d: %v", i, err)
		}
	})
}

func (f *fleet) end() {
	for _, stop := range f.stop {
		stop()
	}
	f.wg.Wait()
	for _, n := range f.Nodes {
		n.Host.Close()
	}
	time.Sleep(time.Minute) // memberlist's and libp2p's timers drain
}

// wait lets virtual time pass until ok, at most for limit.
func wait(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	start := time.Now()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
	}
	t.Logf("%s after %v", what, time.Since(start))
}

func (f *fleet) settled() bool {
	for _, m := range f.members {
		select {
		case <-m.Settled():
		default:
			return false
		}
	}
	return true
}

func (f *fleet) all(n int) func() bool {
	return func() bool {
		for _, m := range f.members {
			if len(m.List()) != n-1 {
				return false
			}
		}
		return true
	}
}

func TestMembersOfSixteen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 16
		f := startFleet(t, n, Options{Key: swarm.NewKey()}, nil)
		wait(t, "settled", 5*time.Second, f.settled)
		if !f.all(n)() {
			t.Error("settled before all saw all")
		}

		if err := f.members[3].Broadcast([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		wait(t, "broadcast heard by all", 2*time.Second, func() bool {
			for i := range f.heard {
				if i != 3 && f.heard[i].Load() == 0 {
					return false
				}
			}
			return true
		})
		time.Sleep(10 * time.Second)
		for i := range f.heard {
			if want := int32(1); i != 3 && f.heard[i].Load() != want {
				t.Errorf("member %d heard the broadcast %d times", i, f.heard[i].Load())
			}
		}

		f.Isolate(f.Nodes[7])
		wait(t, "silent member dropped", 20*time.Second, func() bool {
			for i, m := range f.members {
				if i != 7 && len(m.List()) != n-2 {
					return false
				}
			}
			return true
		})
		time.Sleep(2 * time.Minute) // longer than memberlist gossips to the dead
		f.Reconnect(f.Nodes[7])
		wait(t, "partition healed", 40*time.Second, f.all(n))

		f.stop[9]()
		wait(t, "leaving member dropped", 3*time.Second, func() bool { return len(f.members[2].List()) == n-2 })
	})
}

func TestMemberEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[peer.ID][]string{}
		f := startFleet(t, 3, Options{Key: swarm.NewKey()}, func(i int, o *swarm.MemberOptions) {
			if i != 0 {
				return
			}
			note := func(p peer.ID, what string) {
				mu.Lock()
				defer mu.Unlock()
				seen[p] = append(seen[p], what)
			}
			o.OnUp = func(f swarm.Facts) { note(f.Peer, fmt.Sprintf("up %d", f.Free)) }
			o.OnDown = func(p peer.ID) { note(p, "down") }
		})
		wait(t, "settled", 5*time.Second, f.settled)
		facts := f.members[1].Self()
		facts.Free = 7
		if err := f.members[1].Update(facts); err != nil {
			t.Fatal(err)
		}
		p := f.Nodes[1].Peer
		has := func(want ...string) func() bool {
			return func() bool {
				mu.Lock()
				defer mu.Unlock()
				return fmt.Sprint(seen[p]) == fmt.Sprint(want)
			}
		}
		first := fmt.Sprintf("up %d", int64(1<<40))
		wait(t, "update seen", 3*time.Second, has(first, "up 7"))
		f.stop[1]()
		wait(t, "down seen", 3*time.Second, has(first, "up 7", "down"))
		if f.Nodes[0].Gater.Refused().Count != 0 {
			t.Error("a member was refused")
		}
	})
}

// TestLateSeedIsJoined starts a member whose only seed has no name yet and is
// not up yet.
func TestLateSeedIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		f := &fleet{Cluster: New(t, 2, Options{Key: swarm.NewKey()}), members: make([]*swarm.Members, 2), heard: make([]atomic.Int32, 2), stop: make([]context.CancelFunc, 2)}
		t.Cleanup(f.end)
		seed := f.Nodes[0]
		f.Kill(seed)
		f.start(1, func(_ int, o *swarm.MemberOptions) {
			o.Join, o.JoinTimeout = []string{"seed.test:7946"}, 5*time.Second
			o.Resolve = func(context.Context, string) ([]netip.Addr, error) {
				if !up.Load() {
					return nil, errors.New("no such host")
				}
				return []netip.Addr{seed.IP, f.Nodes[1].IP}, nil
			}
		})
		start := time.Now()
		<-f.members[1].Settled()
		if took := time.Since(start); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("gave up after %v", took)
		}
		if err := f.members[1].JoinError(); err == nil || err.Error() != "join seed.test:7946: look up seed.test: no such host" {
			t.Errorf("join error %v", err)
		}
		time.Sleep(time.Minute)
		if err := f.Start(seed); err != nil {
			t.Fatal(err)
		}
		up.Store(true)
		f.start(0, func(_ int, o *swarm.MemberOptions) { o.Join = nil })
		wait(t, "late seed joined", 35*time.Second, f.all(2))
		if err := f.members[1].JoinError(); err != nil {
			t.Errorf("after joining: %v", err)
		}
	})
}

// TestJoinErrorEnds: who has nobody to join has no fault of it, also when a lost member
// does not answer; who could join nobody has none any more once somebody came.
func TestJoinErrorEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 2, Options{Key: swarm.NewKey()}, func(i int, o *swarm.MemberOptions) {
			o.Join, o.JoinTimeout = [][]string{nil, {"10.0.9.9:7946", "10.0.0.1:7946"}}[i], time.Second
		})
		wait(t, "joined", 5*time.Second, f.all(2))
		f.Kill(f.Nodes[1])
		f.stop[1]()
		f.Nodes[1].Host.Close()
		wait(t, "lost", 30*time.Second, func() bool { return len(f.members[0].Lost()) == 1 })
		time.Sleep(time.Minute) // it is tried again meanwhile
		if err := f.members[0].JoinError(); err != nil {
			t.Errorf("of the first: %v", err)
		}
		if err := f.Start(f.Nodes[1]); err != nil {
			t.Fatal(err)
		}
		f.start(1, func(_ int, o *swarm.MemberOptions) {
			o.Join, o.JoinTimeout = []string{"10.0.9.9:7946"}, time.Second
		})
		<-f.members[1].Settled()
		if err := f.members[1].JoinError(); err == nil && len(f.members[1].List()) == 0 { // the first, which looks for it, may be there already
			t.Error("the second has joined an address that nobody has")
		}
		wait(t, "met", time.Minute, f.all(2))
		wait(t, "no fault any more", time.Minute, func() bool { return f.members[1].JoinError() == nil })
	})
}

// TestMemberComesBack kills a member without a word; it comes back at once under
// its address, and then from another machine with its identity.
func TestMemberComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFleet(t, 5, Options{Key: swarm.NewKey()}, nil)
		wait(t, "settled", 5*time.Second, f.settled)
		labelled := func(v string) func() bool {
			return func() bool {
				for i, m := range f.members {
					ok := i == 4
					for _, o := range m.List() {
						ok = ok || o.Peer == f.Nodes[4].Peer && o.Labels["life"] == v
					}
					if !ok {
						return false
					}
				}
				return true
			}
		}
		for life, move := range []bool{false, true} {
			f.Kill(f.Nodes[4])
			f.stop[4]()
			f.Nodes[4].Host.Close()
			if move {
				f.Nodes[4].IP = netip.MustParseAddr("10.9.9.9")
			}
			if err := f.Start(f.Nodes[4]); err != nil {
				t.Fatal(err)
			}
			f.start(4, func(_ int, o *swarm.MemberOptions) {
				o.Facts.Labels = map[string]string{"life": fmt.Sprint(life)}
			})
			wait(t, fmt.Sprintf("back, moved %t", move), 25*time.Second, labelled(fmt.Sprint(life)))
			wait(t, "settled again", 10*time.Second, f.settled)
			if len(f.members[4].List()) != 4 {
				t.Errorf("it sees %d others", len(f.members[4].List()))
			}
		}
	})
}

func TestOtherSwarmKeyIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := swarm.NewKey(), swarm.NewKey()
		f := startFleet(t, 4, Options{KeyOf: func(i int) swarm.Key {
			return []swarm.Key{ours, ours, theirs, {}}[i]
		}}, func(_ int, o *swarm.MemberOptions) { o.JoinTimeout = 8 * time.Second })
		wait(t, "settled", 12*time.Second, f.settled)
		for i, want := range []int{1, 1, 0, 0} {
			if got := len(f.members[i].List()); got != want {
				t.Errorf("member %d sees %d others, want %d", i, got, want)
			}
		}
		for i, want := range []string{
			2: "swarm key differs", 3: "swarm key differs: it has one, this member is insecure",
		} {
			err := f.members[i].JoinError()
			if i < 2 {
				if err != nil {
					t.Errorf("member %d: %v", i, err)
				}
				continue
			}
			lines := fmt.Sprintf("join %s: %s\njoin %s: %s", f.Nodes[0].GossipAddr(), want, f.Nodes[1].GossipAddr(), want)
			if err == nil || err.Error() != lines {
				t.Errorf("member %d: join error\n%v\nwant\n%s", i, err, lines)
			}
		}
		strangers := map[string]bool{}
		for _, m := range f.members[:2] {
			for _, r := range m.Refused() {
				strangers[r.Addr] = true
			}
		}
		for _, i := range []int{2, 3} {
			if !strangers[f.Nodes[i].IP.String()] {
				t.Errorf("nobody noticed the stranger %s: %v", f.Nodes[i].IP, strangers)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := swarm.Connect(ctx, f.Nodes[0].Host, f.members[1].Self()); err != nil {
			t.Errorf("member to member: %v", err)
		}
		f.Nodes[2].Gater.Admit(f.Nodes[0].Peer) // the stranger believes in us
		swarm.Connect(ctx, f.Nodes[2].Host, f.members[0].Self())
		wait(t, "refused", 5*time.Second, func() bool { return f.Nodes[0].Gater.Refused().Count == 1 })
		if r := f.Nodes[0].Gater.Refused(); r.Last != f.Nodes[2].Peer {
			t.Errorf("refused %+v", r)
		}
	})
}
