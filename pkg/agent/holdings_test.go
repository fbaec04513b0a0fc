package agent_test

import (
	"strings"
	"testing"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

// What a node holds is told while it comes, when it is there, when the job is
// forgotten, and no more once it is removed.
func TestHoldings(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		u := r.units[0]
		partly := 0
		res, err := u.fetch("org/m", func(q *agent.Request) {
			q.Watch = func(v agent.Job) {
				h := holding(t, u, "org/m@main")
				levels, count := u.Levels(r.ref("org/m").Repo, commit, 6)
				if h.State == agent.Fetching && strings.Contains(levels, "0") {
					partly++
				}
				if h.Completed > h.Total || len(levels) > 6 || count > 0 && len(levels) != min(6, count) {
					t.Errorf("%+v, %s of %d pieces", h, levels, count)
				}
			}
		})
		r.must(err)
		want := agent.Holding{Repo: "org/m", Commit: string(commit), Ref: "org/m@main", State: agent.Done, Total: modelSize, Completed: modelSize, Upstream: modelSize, Cost: modelSize}
		if got := holding(t, u, "org/m@main"); got != want || partly == 0 {
			t.Errorf("fetched %+v, want %+v; seen under way %d times", got, want, partly)
		}
		if levels, count := u.Levels(r.ref("org/m").Repo, commit, 240); count == 0 || levels != strings.Repeat("9", count) {
			t.Errorf("%d pieces, levels %s", count, levels)
		}
		if levels, count := u.Levels(r.ref("org/m").Repo, pieces.Commit(strings.Repeat("0", 40)), 6); levels != "" || count != 0 {
			t.Errorf("an unknown commit: %s of %d", levels, count)
		}

		again := r.restart(0, nil)
		want = agent.Holding{Repo: "org/m", Commit: string(commit), Ref: "org/m@main", State: agent.Ready, Total: modelSize, Completed: modelSize, Here: modelSize}
		if got := holding(t, again, "org/m@main"); got != want {
			t.Errorf("after a restart %+v, want %+v", got, want)
		}
		_, err = again.fetch("org/nothing", nil)
		if got := holding(t, again, "org/nothing@main"); err == nil || got.State != agent.Failed || got.Reason != err.Error() || got.Commit != "" {
			t.Errorf("failed %+v", got)
		}
		if _, err := again.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref(res.Ref)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := holding(t, again, "org/m@main"); got != (agent.Holding{}) {
			t.Errorf("removed, and still %+v", got)
		}
	})
}

// holding returns the one with the ref, or nothing.
func holding(t *testing.T, u *unit, ref string) agent.Holding {
	t.Helper()
	all, err := u.Holdings()
	if err != nil {
		t.Error(err)
	}
	for _, h := range all {
		if h.Ref == ref {
			return h
		}
	}
	return agent.Holding{}
}
