package swarm_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/internal/leaktest"
	"p2pagent/internal/wire"
	"p2pagent/pkg/swarm"
)

var order = wire.Rollout{Ref: "org/name@main", Commit: "0123456789abcdef0123456789abcdef01234567", Every: 1}

// inPair runs test with two members that have found each other; the second takes
// rollouts with take, or not at all.
func inPair(t *testing.T, take func(context.Context, string, wire.Rollout, func(wire.Report) error) error, test func(t *testing.T, a, b *member)) {
	t.Helper()
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(1<<20), 2, cluster.Options{}, func(c *swarm.Config) { c.OnRollout = take })
		time.Sleep(5 * time.Second)
		test(t, f.members[0], f.members[1])
	})
}

func factsOf(m *member) swarm.Facts { return m.MemberOptions().Facts }

func TestRolloutIsReported(t *testing.T) {
	var from string
	var got wire.Rollout
	take := func(_ context.Context, who string, o wire.Rollout, report func(wire.Report) error) error {
		from, got = who, o
		return errors.Join(report(wire.Report{Stage: wire.Fetching, Total: 9}), report(wire.Report{Stage: wire.Here, Total: 9}))
	}
	inPair(t, take, func(t *testing.T, a, b *member) {
		var heard []wire.Stage
		if err := a.node.Rollout(t.Context(), factsOf(b), order, func(r wire.Report) { heard = append(heard, r.Stage) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(heard, []wire.Stage{wire.Fetching, wire.Here}) || from != a.Peer.String() || got.Ref != order.Ref || got.Commit != order.Commit {
			t.Errorf("heard %v, taken %+v from %s", heard, got, from)
		}
	})
}

// A member that says nothing any more is given up; who asks may leave at any time, and
// the other end notices at its next report.
func TestRolloutEnds(t *testing.T) {
	var ended, silent atomic.Bool
	take := func(ctx context.Context, _ string, _ wire.Rollout, report func(wire.Report) error) (err error) {
		for ; err == nil && ctx.Err() == nil; time.Sleep(time.Second) {
			if !silent.Load() {
				err = report(wire.Report{Stage: wire.Waiting})
			}
		}
		ended.Store(true)
		return err
	}
	inPair(t, take, func(t *testing.T, a, b *member) {
		gone := errors.New("gone")
		ctx, leave := context.WithTimeoutCause(t.Context(), 30*time.Second, gone)
		defer leave()
		heard := 0
		err := a.node.Rollout(ctx, factsOf(b), order, func(wire.Report) { heard++ })
		if !errors.Is(err, gone) || heard < 25 {
			t.Errorf("%v after %d reports", err, heard)
		}
		time.Sleep(5 * time.Second)
		if !ended.Load() {
			t.Error("the other end goes on")
		}
		silent.Store(true)
		began := time.Now()
		err = a.node.Rollout(t.Context(), factsOf(b), order, func(wire.Report) {})
		if took := time.Since(began); err == nil || took > 20*time.Second {
			t.Errorf("given up after %v: %v", took, err)
		}
		silent.Store(false)
		time.Sleep(3 * time.Second)
	})
}

// F03: a member refuses a rollout, is too old for one, or is sent one that no frame holds.
//
// Who asks hears which it was; nobody waits for an answer that can't come.
func TestF03RolloutIsRefused(t *testing.T) {
	inPair(t, nil, func(t *testing.T, a, b *member) {
		var got wire.Report
		if err := a.node.Rollout(t.Context(), factsOf(b), order, func(r wire.Report) { got = r }); err != nil || got.Stage != wire.Refused {
			t.Errorf("%+v, %v", got, err)
		}
		b.Host.RemoveStreamHandler(wire.RolloutProtocol) // as an older version
		if err := a.node.Rollout(t.Context(), factsOf(b), order, func(wire.Report) {}); !errors.Is(err, swarm.ErrNoRollouts) {
			t.Errorf("an older version: %v", err)
		}
		long := order
		long.Ref = strings.Repeat("x", wire.MaxRollout+1)
		if err := a.node.Rollout(t.Context(), factsOf(b), long, func(wire.Report) {}); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("too long: %v", err)
		}
	})
}

// F06: garbage comes instead of a rollout.
//
// Whatever it is, and also when nothing comes, the stream ends within ten seconds and nothing comes of it.
func TestF06GarbageIsNoRollout(t *testing.T) {
	taken := 0
	take := func(context.Context, string, wire.Rollout, func(wire.Report) error) error { taken++; return nil }
	ping, err := wire.Append(nil, &wire.Ping{})
	if err != nil {
		t.Fatal(err)
	}
	inPair(t, take, func(t *testing.T, a, b *member) {
		for _, raw := range [][]byte{ping, []byte("GET / HTTP/1.1\r\n\r\n"), {0xff, 0xff, 0xff, 0xff, 0x7f}, nil} {
			s, err := a.Host.NewStream(t.Context(), b.Peer, wire.RolloutProtocol)
			if err != nil {
				t.Fatal(err)
			}
			s.Write(raw)
			s.SetReadDeadline(time.Now().Add(time.Minute))
			began := time.Now()
			if n, err := s.Read(make([]byte, 1)); n > 0 || err == io.EOF && raw != nil || time.Since(began) > 11*time.Second {
				t.Errorf("%q was answered: %v after %v", raw, err, time.Since(began))
			}
			s.Reset()
		}
	})
	if taken > 0 {
		t.Errorf("%d taken", taken)
	}
}

// Lost members are known for an hour, with what they said of themselves.
func TestLostMembers(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(1<<20), 2, cluster.Options{}, nil)
		time.Sleep(5 * time.Second)
		a, b := f.members[0], f.members[1]
		if lost := a.members.Lost(); len(lost) > 0 {
			t.Errorf("lost %v", lost)
		}
		b.stop()
		f.Kill(b.Node)
		time.Sleep(time.Minute)
		if lost := a.members.Lost(); len(lost) != 1 || lost[0].Peer != b.Peer || lost[0].Name != b.Name {
			t.Errorf("lost %+v", lost)
		}
		time.Sleep(time.Hour)
		if lost := a.members.Lost(); len(lost) > 0 {
			t.Errorf("lost %v", lost)
		}
	})
}
