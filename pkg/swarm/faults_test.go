package swarm_test

import (
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/internal/leaktest"
	"p2pagent/pkg/swarm"
)

// unfinished returns the extents that a member is fetching now.
func (m *model) unfinished(h *hubFor) map[[32]byte]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[[32]byte]bool{}
	for _, f := range m.work {
		if f.who == h && !f.over {
			out[f.key] = true
		}
	}
	return out
}

// takeover returns how long after an instant the last of the extents was begun by
// somebody else.
func (f *fleet) takeover(from *member, extents map[[32]byte]bool, since time.Time) time.Duration {
	f.t.Helper()
	f.model.mu.Lock()
	defer f.model.mu.Unlock()
	if len(extents) == 0 {
		f.t.Error("it was fetching nothing: the test proves nothing")
	}
	var worst time.Duration
	for key := range extents {
		found := false
		for _, w := range f.model.work {
			if w.key == key && w.who != from.hub && !found {
				found = true
				worst = max(worst, w.began.Sub(since))
			}
		}
		if !found {
			f.t.Error("an extent was taken over by nobody")
		}
	}
	return worst
}

// P03: the member that fetches is killed.
//
// Half of the model is sent when the busiest fetcher dies. Its streams break, so
// another takes its extents over at once, within 15 s at most, and the Hub sends no more
// than 1.10 copies in all.
func TestP03TheBusiestFetcherDies(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(10<<20, 64<<20, 32<<20, 5000), 8, cluster.Options{}, nil)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.until("half is sent", func() bool { return f.model.copies() > 0.5 })
		dead := f.busiest()
		lost, died := f.model.unfinished(dead.hub), time.Now()
		f.Kill(dead.Node)
		dead.stop()
		f.finish(f.except(dead)...)
		f.atMost(1.10)
		if took := f.takeover(dead, lost, died); took > 15*time.Second {
			t.Errorf("taken over after %v", took)
		}
	})
}

// P04: the member that fetches stalls, but lives.
//
// Its way to the Hub goes silent, or the whole process is stopped: its connections stay
// open and nothing breaks. What counts is progress, not liveness: within 15 s of the last
// byte others take over, and the Hub sends no more than 1.10 copies.
func TestP04AStalledFetcherIsReplacedByProgress(t *testing.T) {
	leaktest.Check(t)
	for name, stop := range map[string]func(f *fleet, m *member){
		"silent hub": func(_ *fleet, m *member) { m.hub.cutOff.Store(true) },
		"stopped":    func(f *fleet, m *member) { m.hub.cutOff.Store(true); f.Isolate(m.Node) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, newModel(10<<20, 64<<20, 5000), 4, cluster.Options{}, nil)
				for _, m := range f.members {
					f.fetch(m)
				}
				f.until("a third is sent", func() bool { return f.model.copies() > 0.33 })
				stuck := f.busiest()
				lost, since := f.model.unfinished(stuck.hub), time.Now()
				stop(f, stuck)
				took := f.finish(f.except(stuck)...)
				takeover := f.takeover(stuck, lost, since)
				t.Logf("taken over after %v, finished after %v", takeover, took)
				if takeover > 15*time.Second {
					t.Errorf("taken over after %v", takeover)
				}
				f.atMost(1.10)
				f.Reconnect(stuck.Node)
				f.finish(stuck) // and it gets the rest from the others
				f.atMost(1.10)
			})
		})
	}
}

// P05: a peer goes silent in the middle of a piece.
//
// Everything on the link to it vanishes without a reset. Its pieces are asked of
// another member after the piece limit of 10 s at most; nothing waits longer than twice that,
// and the Hub is not asked.
func TestP05ASilentPeerIsLeft(t *testing.T) {
	leaktest.Check(t)
	for name, others := range map[string]int{"another holds all": 2, "nobody else does": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, newModel(50<<20, 48<<20, 5000), others, cluster.Options{Up: 4 << 20, Down: 100 << 20}, nil)
				for _, m := range f.members {
					f.fetch(m)
				}
				f.finish(f.members...)
				f.model.sent.Store(0)
				late := f.start(f.Add())
				f.fetch(late)
				silent := f.members[0]
				f.until("pieces of it are under way", func() bool { return silent.store.served.Load() > 20<<20 })
				f.Cut(silent.Node, late.Node)
				if others == 1 {
					f.until("the silence is noticed", func() bool { return f.model.sent.Load() > 0 })
				}
				took := f.finish(late)
				t.Logf("finished after %v, longest without a byte %v, %d bytes of the Hub", took, late.idle, f.model.sent.Load())
				if late.idle > 20*time.Second {
					t.Errorf("nothing moved for %v", late.idle)
				}
				if others > 1 && f.model.sent.Load() > 0 {
					t.Errorf("the Hub sent %d bytes", f.model.sent.Load())
				}
			})
		})
	}
}

// P06: a stranger asks for a model.
//
// One key makes a swarm, and no list within it says who may have which repository: a
// member may have all that the swarm holds, gated models too. Who has another key gets
// no stream, so neither a piece nor a word of what is held, even when it knows where the
// members are; it has to ask the Hub itself.
func TestP06AStrangerGetsNothing(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := swarm.NewKey(), swarm.NewKey()
		f := newFleet(t, newModel(50<<20, 9<<20, 5000), 3, cluster.Options{KeyOf: func(i int) swarm.Key {
			return []swarm.Key{ours, ours, theirs}[i]
		}}, nil)
		f.fetch(f.members[0])
		f.finish(f.members[0])
		stranger := f.members[2]
		for _, n := range f.Nodes[:2] {
			stranger.Gater.Admit(n.Peer)
			stranger.node.MemberUp(n.MemberOptions().Facts)
		}
		f.model.sent.Store(0)
		f.fetch(stranger)
		f.finish(stranger)
		if f.model.copies() != 1 || stranger.peers != 0 {
			t.Errorf("%.3f copies from the Hub, %d bytes from members", f.model.copies(), stranger.peers)
		}
		f.fetch(f.members[1])
		f.finish(f.members[1])
		if f.model.copies() != 1 || f.members[1].peers != f.model.size {
			t.Errorf("a member got %d bytes from members", f.members[1].peers)
		}
		if f.Nodes[0].Gater.Refused().Last != stranger.Peer {
			t.Errorf("refused %+v, want the stranger", f.Nodes[0].Gater.Refused())
		}
	})
}
