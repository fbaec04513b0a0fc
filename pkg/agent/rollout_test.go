package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pagent/internal/desired"
	"p2pagent/internal/rollout"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// rollOut has the unit ask all members with the label, within limit of virtual time.
func (u *unit) rollOut(limit time.Duration, ref string, wait bool, watch func(rollout.Table)) (rollout.Table, error) {
	ctx, cancel := context.WithTimeoutCause(u.room.t.Context(), limit, errGone)
	defer cancel()
	if watch == nil {
		watch = func(rollout.Table) {}
	}
	return rollout.Run(ctx, rollout.Options{
		Swarm: u.fleet, Selector: rollout.Selector{"pool": "a"}, Wait: wait,
		Lasting: func(kind string) bool { return kind == string(agent.NoSpace) },
		Order: func(ctx context.Context) (rollout.Order, string, error) {
			commit, notice, err := u.Resolve(ctx, u.room.ref(ref))
			return rollout.Order{Ref: u.room.ref(ref), Commit: commit}, notice, err
		},
	}, watch)
}

// states writes a table in a line.
func states(t rollout.Table) string {
	var out []string
	for _, r := range t.Nodes {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Node, r.State, r.Kind)))
	}
	return strings.Join(out, ", ")
}

// pools gives all but the last of five members one label, and the third no room.
var pools = furniture{
	retries: -1,
	facts:   func(i int, f *swarm.Facts) { f.Labels = map[string]string{"pool": "aaaab"[i : i+1]} },
	cache: func(i int, o *cachefs.Options) {
		if i == 2 {
			o.Quota = 1 << 20
		}
	},
}

// F02: of the members that a rollout means one has no room, and one is away.
//
// The two others hold it, pinned, for one copy and one question to the Hub. The full one says
// so at once and is not waited for. The one that is away is waited for a minute; it is asked when it
// comes back, and gets it from the others. A member without the label is left alone.
func TestF02OneIsFullOneIsAway(t *testing.T) {
	inRoomWith(t, 5, pools, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		lost := r.units[3]
		lost.end()
		r.Kill(lost.node)
		r.until("the member is lost", func() bool {
			return slices.ContainsFunc(r.units[0].fleet.Nodes(), func(n rollout.Node) bool { return n.Lost })
		})

		began := time.Now()
		got, err := r.units[0].rollOut(10*time.Minute, "org/m", true, nil)
		r.must(err)
		if s := states(got); s != "n00 here, n01 here, n02 failed no_space, n03 missing" || got.Told != 3 || got.Here != 2 || got.Failed != 2 {
			t.Errorf("%s: %+v", s, got)
		}
		if d := time.Since(began); d < time.Minute || d > 2*time.Minute {
			t.Errorf("the missing one was waited for %v", d)
		}
		var upstream int64
		for _, row := range got.Nodes[:2] {
			upstream += row.Upstream
			if row.Completed != modelSize || row.Here+row.Upstream+row.Peers != modelSize {
				t.Errorf("%+v", row)
			}
		}
		if s := r.hub.Stats(); upstream != modelSize || s.BodyBytes != modelSize || s.Calls[hubtest.Info] != 1 || s.Calls[hubtest.Tree] != 1 {
			t.Errorf("%d bytes upstream, the Hub %+v", upstream, s)
		}
		for i, u := range r.units[:2] {
			x, _, err := u.Show(r.ref("org/m"))
			if err != nil || x.Commit != string(commit) || !x.Complete || !slices.Equal(x.PinnedBy, []agent.Holder{agent.ByRollout}) {
				t.Errorf("unit %d: %+v %v", i, x, err)
			}
		}
		if _, _, err := r.units[4].Show(r.ref("org/m")); err == nil || len(r.units[4].keeper.States()) > 0 {
			t.Errorf("the one without the label has it: %v", err)
		}

		// It comes back while a rollout waits.
		back := time.AfterFunc(20*time.Second, func() {
			r.must(r.Cluster.Start(lost.node))
			r.units[3] = r.start(3, nil)
		})
		defer back.Stop()
		var seen []string
		got, err = r.units[0].rollOut(10*time.Minute, "org/m", true, func(t rollout.Table) { seen = append(seen, states(t)) })
		r.must(err)
		if s := states(got); s != "n00 here, n01 here, n02 failed no_space, n03 here" {
			t.Error(s)
		}
		if !strings.HasSuffix(seen[1], "n03 missing") {
			t.Errorf("seen: %q", seen[1])
		}
		if s := r.hub.Stats(); s.BodyBytes != modelSize {
			t.Errorf("the Hub sent %d bytes", s.BodyBytes)
		}
	})
}

// F04: who asked for a rollout goes away while nobody has it, a member restarts, the branch moves.
//
// What was told stands: all get the commit of the moment when it was asked for, whatever the branch means
// when they get to it. Asked for again, the branch means the new one on all.
func TestF04WhoAskedGoesAway(t *testing.T) {
	inRoomWith(t, 2, furniture{retries: -1, facts: func(_ int, f *swarm.Facts) { f.Labels = map[string]string{"pool": "a"} }}, func(t *testing.T, r *room) {
		first := r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN})
		got, err := r.units[0].rollOut(10*time.Second, "org/m", true, nil)
		if !errors.Is(err, errGone) || states(got) != "n00 fetching, n01 fetching" {
			t.Fatalf("%s, %v", states(got), err)
		}
		second := r.hub.Push("org/m", "main", []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("new"))}})
		u := r.restart(1, nil)
		r.hub.Heal()
		for i, u := range []*unit{r.units[0], u} {
			r.until(fmt.Sprintf("unit %d has it", i), func() bool { return keeps(u, first) })
		}

		// Asked without waiting, all have taken the new one; then all have it.
		time.Sleep(time.Minute)
		got, err = r.units[1].rollOut(time.Minute, "org/m", false, nil)
		r.must(err)
		if got.Commit != string(second) || got.Told != 2 || got.Failed != 0 {
			t.Errorf("%+v", got)
		}
		for i, u := range r.units {
			r.until(fmt.Sprintf("unit %d has the new one", i), func() bool { return keeps(u, second) })
			if x, _, err := u.Show(r.ref("org/m")); err != nil || x.Commit != string(second) {
				t.Errorf("main means %+v, %v", x, err)
			}
		}

		// Removed on a node, it is not held there any more, and the node says so when asked
		// how far it is. Asked again, it holds it again.
		_, err = r.units[1].Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), Force: true})
		r.must(err)
		r.units[1].keeper.Removed(r.ref("org/m").Repo, second)
		if s := r.units[1].keeper.States(); len(s) > 0 {
			t.Errorf("%+v", s)
		}
		got, err = r.units[0].rollOut(time.Minute, "org/m", true, nil)
		r.must(err)
		if states(got) != "n00 here, n01 here" {
			t.Error(states(got))
		}
	})
}

// F01: a member is lost in the middle of a rollout.
//
// The others get the model whole, its part of it too, and the table says that it is missing. Back with its
// disk within the minute that it is waited for, it goes on by itself from what it had, and the rollout
// ends with all of them.
func TestF01MemberDiesInARollout(t *testing.T) {
	inRoomWith(t, 3, pools, func(t *testing.T, r *room) {
		o := r.large("org/m", 24<<20, 12<<20+7)
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Rate: 512 << 10, Every: 100 * time.Millisecond})
		lost, back := r.units[1], false
		var seen []string
		got, err := r.units[0].rollOut(10*time.Minute, "org/m", true, func(table rollout.Table) {
			seen = append(seen, states(table))
			has := func(row int) int64 { return table.Nodes[row].Completed }
			switch {
			case lost != nil && has(1) > 8<<20:
				r.Isolate(lost.node)
				lost.end()
				r.Kill(lost.node)
				lost.node.Host.Close()
				lost = nil
				r.hub.Heal()
			case lost == nil && !back && has(0) == o.Size():
				back = true
				time.AfterFunc(20*time.Second, func() {
					r.Reconnect(r.Nodes[1])
					r.must(r.Cluster.Start(r.Nodes[1]))
					r.units[1] = r.start(1, nil)
				})
			}
		})
		r.must(err)
		if s := states(got); s != "n00 here, n01 here, n02 failed no_space" || got.Nodes[1].Here < 8<<20 || got.Nodes[1].Upstream != 0 {
			t.Errorf("%s: %+v", s, got.Nodes[1])
		}
		if !slices.Contains(seen, "n00 here, n01 missing, n02 failed no_space") {
			t.Errorf("seen %q", slices.Compact(seen))
		}
		for _, u := range r.units[:2] {
			x, _, err := u.Show(r.ref("org/m"))
			r.must(err)
			checkSnapshot(t, x.Path, o)
		}
	})
}

// keeps tells whether a rollout's model is here at the commit.
func keeps(u *unit, commit pieces.Commit) bool {
	s, ok := u.keeper.State("org/m@main")
	return ok && s.Phase == desired.Here && s.Commit == string(commit)
}
