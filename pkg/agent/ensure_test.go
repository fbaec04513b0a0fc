package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// All nodes cold at once cost one copy, one resolve and one listing, and every
// byte is accounted for.
func TestEnsureOneCopy(t *testing.T) {
	inRoom(t, 4, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		outline := r.hub.Outline("org/m", commit)
		results := make([]agent.Result, len(r.units))
		var wg sync.WaitGroup
		for i, u := range r.units {
			wg.Go(func() {
				var err error
				if results[i], err = u.fetch("org/m", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		var upstream int64
		for _, res := range results {
			checkSnapshot(t, res.Path, outline)
			if res.Commit != string(commit) || res.Files != 5 || res.Total != modelSize {
				t.Errorf("result %+v", res)
			}
			if got := res.Upstream + res.FromPeers() + res.Here; got != modelSize {
				t.Errorf("sources add up to %d of %d: %+v", got, modelSize, res)
			}
			upstream += res.Upstream
		}
		if upstream != modelSize {
			t.Errorf("agents counted %d bytes from upstream, want %d", upstream, modelSize)
		}
		checkCounters(t, r, commit)
		stats := r.hub.Stats()
		if stats.BodyBytes != modelSize || stats.Calls[hubtest.Info] != 1 || stats.Calls[hubtest.Tree] != 1 {
			t.Errorf("the Hub sent %d bytes of %d, calls %v", stats.BodyBytes, modelSize, stats.Calls)
		}
	})
}

// checkCounters wants the agents' counters to say what the Hub sent: one copy.
func checkCounters(t *testing.T, r *room, commit pieces.Commit) {
	t.Helper()
	var upstream, ofSnapshot int64
	for _, u := range r.units {
		c := u.Counters()
		upstream += c.Upstream
		if len(c.Snapshots) != 1 || c.Ended[""] != 1 {
			t.Fatalf("counters %+v", c)
		}
		s := c.Snapshots[0]
		ofSnapshot += s.Upstream
		if s.Repo != "org/m" || s.Commit != string(commit) || s.Bytes != modelSize || s.Here != modelSize || !s.Ready {
			t.Errorf("counted %+v", s)
		}
	}
	if upstream != modelSize || ofSnapshot != modelSize {
		t.Errorf("counters of %d bytes from upstream, %d for the snapshot, want %d", upstream, ofSnapshot, modelSize)
	}
}

// Jobs of one snapshot share its count of bytes from upstream: none counts twice,
// and a later job that moves nothing does not forget it.
func TestCountersOfOverlappingJobs(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		u := r.units[0]
		var wg sync.WaitGroup
		for _, include := range [][]string{nil, {"*.safetensors"}} {
			wg.Go(func() {
				if _, err := u.fetch("org/m", func(r *agent.Request) { r.Include = include }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := u.fetch("org/m", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := u.fetch("org/none", nil); err == nil {
			t.Fatal("org/none is there")
		}
		c := u.Counters()
		if c.Ended[""] != 3 || c.Ended[agent.NotFound] != 1 || c.Upstream != modelSize {
			t.Errorf("counters %+v", c)
		}
		if len(c.Snapshots) != 1 || c.Snapshots[0].Upstream != modelSize || c.Snapshots[0].Bytes != modelSize {
			t.Errorf("snapshots %+v", c.Snapshots)
		}
	})
}

// A repeated fetch moves no byte, and one of a commit asks nobody at all.
func TestEnsureAgain(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		first, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		r.hub.ResetStats()
		again, err := r.units[0].fetch("org/m@"+string(commit), nil)
		r.must(err)
		if again.Path != first.Path || again.Here != modelSize || again.Upstream != 0 {
			t.Errorf("again %+v, first %+v", again, first)
		}
		if s := r.hub.Stats(); len(s.Calls) != 0 {
			t.Errorf("calls %v", s.Calls)
		}
	})
}

func TestEnsurePatterns(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		u := r.units[0]
		res, err := u.fetch("org/m", func(q *agent.Request) { q.Include, q.Exclude = []string{"*.json"}, []string{"nested/"} })
		r.must(err)
		if res.Files != 1 || res.Total != 7 {
			t.Errorf("result %+v", res)
		}
		s, files, err := u.Show(r.ref("org/m"))
		r.must(err)
		if s.Complete || s.Files != 1 || s.Listed != 5 || s.Commit != string(commit) {
			t.Errorf("snapshot %+v", s)
		}
		for _, f := range files {
			if f.Here != (f.Path == "config.json") {
				t.Errorf("file %+v", f)
			}
		}
		_, err = u.fetch("org/m", func(q *agent.Request) { q.Include = []string{"*.gguf"} })
		if e := agentError(err); e.Kind != agent.Usage || !strings.Contains(err.Error(), `no file matches: 5 files, include "*.gguf"`) {
			t.Errorf("nothing matched: %v", err)
		}
	})
}

func agentError(err error) *agent.Error {
	if e, ok := errors.AsType[*agent.Error](err); ok {
		return e
	}
	return &agent.Error{Kind: classify(err)}
}

// L09: many callers of one ref.
//
// Sixteen share one job and one copy. Fifteen leave, the first among them; the last
// one still gets its snapshot.
func TestL09CallersShareAJob(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model-1.safetensors", Rate: 1 << 20})
		u := r.units[0]
		leaving, leave := context.WithCancelCause(t.Context())
		const callers = 16
		var wg sync.WaitGroup
		call := func(ctx context.Context, want error) {
			wg.Go(func() {
				if _, err := u.Ensure(ctx, agent.Request{Ref: r.ref("org/m"), Tied: true}); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
			time.Sleep(10 * time.Millisecond)
		}
		for range callers - 1 {
			call(leaving, errGone)
		}
		call(t.Context(), nil)
		time.Sleep(2 * time.Second)
		if jobs := u.Jobs(); len(jobs) != 1 || jobs[0].Callers != callers {
			t.Errorf("jobs %+v", jobs)
		}
		leave(errGone)
		wg.Wait()
		if jobs := u.Jobs(); len(jobs) != 1 || jobs[0].Status != agent.Done {
			t.Errorf("jobs %+v", jobs)
		}
		for range callers { // now that it is here: all succeed, nothing moves
			call(t.Context(), nil)
		}
		wg.Wait()
		if got := r.hub.Copies(); got != 1 {
			t.Errorf("%v copies", got)
		}
	})
}

// Callers of one ref share a job; one that leaves does not end it.
func TestEnsureShared(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model-1.safetensors", Rate: 1 << 20})
		u := r.units[0]
		leaver, leave := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := u.Ensure(leaver, agent.Request{Ref: r.ref("org/m")}); !errors.Is(err, errGone) {
				t.Errorf("leaver got %v", err)
			}
		})
		wg.Go(func() {
			if _, err := u.fetch("org/m@main", func(q *agent.Request) { q.Tied = true }); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(2 * time.Second)
		jobs := u.Jobs()
		if len(jobs) != 1 || jobs[0].Callers != 2 || jobs[0].Status != agent.Fetching {
			t.Errorf("jobs %+v", jobs)
		}
		leave(errGone)
		wg.Wait()
		jobs = u.Jobs()
		if len(jobs) != 1 || jobs[0].Status != agent.Done || jobs[0].Completed != modelSize {
			t.Errorf("jobs %+v", jobs)
		}
		if got := r.hub.Copies(); got != 1 {
			t.Errorf("%v copies", got)
		}
	})
}

var errGone = errors.New("gone")

// A daemon's job outlives its last caller; a tied one ends with it, and what it
// had is used by the next.
func TestEnsureTied(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model-1.safetensors", Rate: 1 << 19})
		u := r.units[0]
		for _, tied := range []bool{false, true} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 6*time.Second, errGone)
			defer cancel()
			if _, err := u.Ensure(ctx, agent.Request{Ref: r.ref("org/m"), Tied: tied}); !errors.Is(err, errGone) {
				t.Fatalf("tied %v: %v", tied, err)
			}
			running := !u.Jobs()[0].Ended()
			if running == tied {
				t.Errorf("tied %v: running %v after the last caller left", tied, running)
			}
			if !tied {
				continue
			}
			if v := u.Jobs()[0]; v.Status != agent.Failed || v.Kind != agent.Left || !strings.Contains(v.Reason, "no caller waits") {
				t.Errorf("job %+v", v)
			}
		}
		r.hub.Heal()
		res, err := u.fetch("org/m", nil)
		r.must(err)
		if res.Here == 0 || res.Here+res.Upstream != modelSize {
			t.Errorf("result %+v", res)
		}
	})
}

// slowToEnd is a swarm in which a transfer that was ended takes its time to return.
type slowToEnd struct{ agent.Swarm }

func (s slowToEnd) Fetch(ctx context.Context, t agent.Transfer, report func(agent.Progress)) error {
	err := s.Swarm.Fetch(ctx, t, report)
	if err != nil {
		time.Sleep(2 * time.Second)
	}
	return err
}

// Who comes while a job ends that nobody wanted any more has one of its own: a model
// that is desired in another way, say, whose first fetch ends as the second begins.
func TestEnsureAfterTied(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model-1.safetensors", Rate: 1 << 20})
		u := r.restart(0, func(o *agent.Options) { o.Swarm = slowToEnd{o.Swarm} })
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := u.Ensure(ctx, agent.Request{Ref: r.ref("org/m"), Tied: true}); !errors.Is(err, errGone) {
				t.Errorf("got %v", err)
			}
		})
		time.Sleep(5 * time.Second)
		cancel(errGone)
		time.Sleep(time.Second)
		if jobs := u.Jobs(); len(jobs) != 1 || jobs[0].Ended() {
			t.Fatalf("jobs %+v", jobs)
		}
		left, leave := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errGone)
		defer leave()
		if _, err := u.Ensure(left, agent.Request{Ref: r.ref("org/m")}); !errors.Is(err, errGone) {
			t.Errorf("who can't wait got %v", err)
		}
		if _, err := u.fetch("org/m", nil); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// What a watcher sees: every state in order, sums that only grow, a reason to wait.
func TestEnsureProgress(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, At: 5 << 20, Nth: 1})
		var states []agent.State
		var last agent.Job
		var longest time.Duration
		seen, idle := time.Now(), 0.0
		_, err := r.units[0].fetch("org/m", func(q *agent.Request) {
			q.Watch = func(v agent.Job) {
				longest, seen = max(longest, time.Since(seen)), time.Now()
				if len(states) == 0 || states[len(states)-1] != v.Status {
					states = append(states, v.Status)
				}
				if v.Completed < last.Completed || v.Total < last.Total {
					t.Errorf("went backwards: %+v then %+v", last, v)
				}
				idle, last = max(idle, v.Idle), v
			}
		})
		r.must(err)
		order := []agent.State{agent.Resolving, agent.Listing, agent.Checking, agent.Adopting, agent.Fetching, agent.Committing, agent.Done}
		if !isSubsequence(states, order) || !slices.Contains(states, agent.Fetching) || last.Status != agent.Done {
			t.Errorf("states %q", states)
		}
		if longest > time.Second {
			t.Errorf("silent for %v", longest)
		}
		if idle < 5 || idle > 20 {
			t.Errorf("longest idle %v s, want the stall to show", idle)
		}
	})
}

func isSubsequence(part, whole []agent.State) bool {
	for _, s := range whole {
		if len(part) > 0 && part[0] == s {
			part = part[1:]
		}
	}
	return len(part) == 0
}

func TestEnsureRefused(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/gated", Gated: true, Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}})
		for _, c := range []struct {
			ref  string
			kind agent.Kind
		}{
			{"org/nothing", agent.NotFound},
			{"org/m@nothing", agent.NotFound},
			{"org/m@" + strings.Repeat("0", 40), agent.NotFound},
			{"org/gated", agent.Denied},
		} {
			_, err := r.units[0].fetch(c.ref, nil)
			if got := agentError(err).Kind; err == nil || got != c.kind {
				t.Errorf("%s: %s, want %s: %v", c.ref, got, c.kind, err)
			}
			v := r.units[0].Jobs()[0]
			if v.Status != agent.Failed || v.Kind != c.kind || v.Reason != err.Error() {
				t.Errorf("%s: job %+v", c.ref, v)
			}
		}
	})
}

// A folder that one node seeds is there for all, by name and by commit, though
// the Hub has never heard of it; names and relays survive restarts.
func TestSeedDir(t *testing.T) {
	inRoom(t, 3, func(t *testing.T, r *room) {
		dir := writeDir(t, map[string]string{"config.json": `{"x":2}`, "sub/weights.bin": strings.Repeat("weights ", 700_000)})
		res, err := r.units[0].Seed(t.Context(), agent.SeedRequest{Ref: r.ref("me/own"), Dir: dir})
		r.must(err)
		got, err := r.units[1].fetch("me/own", nil)
		r.must(err)
		if got.Commit != res.Commit || got.Upstream != 0 || got.FromPeers() != res.Total || !strings.Contains(got.Notice, "seeded") {
			t.Errorf("seeded %+v, fetched %+v", res, got)
		}
		s, _, err := r.units[1].Show(r.ref("me/own"))
		if err != nil || !s.Seeded || s.Kept || !s.Complete {
			t.Errorf("snapshot %+v, %v", s, err)
		}

		r.restart(0, nil)
		if s, _, err := r.units[0].Show(r.ref("me/own")); err != nil || !s.Kept || !s.Seeded {
			t.Errorf("after a restart %+v, %v", s, err)
		}

		// The seeder goes; a node that merely fetched has it all, by commit and by name.
		r.units[0].end()
		r.units[0].stop = func() {}
		r.Kill(r.Nodes[0])
		time.Sleep(time.Minute)
		got, err = r.units[2].fetch("me/own@"+res.Commit, nil)
		r.must(err)
		if got.FromPeers() != res.Total {
			t.Errorf("by commit %+v", got)
		}
		got, err = r.restart(2, nil).fetch("me/own", nil)
		r.must(err)
		if got.Commit != res.Commit || !strings.Contains(got.Notice, "last saw") {
			t.Errorf("by name %+v", got)
		}
		r.units = r.units[1:]
	})
}

// While the cache hashes what it found, a watcher hears how far it is.
func TestNoteHash(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		u := r.units[0]
		u.NoteHash("w.bin", 1, 2)
		var waiting []string
		_, err := u.Seed(t.Context(), agent.SeedRequest{Ref: r.ref("me/own"), Dir: writeDir(t, map[string]string{"a": "b"}),
			Watch: func(v agent.Job) { waiting = append(waiting, v.Waiting) }})
		r.must(err)
		if len(waiting) == 0 || waiting[0] != "w.bin on the disk to be hashed, 50 %" {
			t.Errorf("heard %q", waiting)
		}
		u.NoteWait("the Hub's rate limit (api)", time.Now().Add(time.Minute))
		if st := u.Status(); !strings.HasPrefix(st.Waiting, "the Hub's rate limit (api) until ") {
			t.Errorf("status %+v", st)
		}
		time.Sleep(2 * time.Minute)
		if st := u.Status(); st.Waiting != "" {
			t.Errorf("status after the wait %+v", st)
		}
	})
}

func TestSeedAgain(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		for _, content := range []string{"one", "two"} {
			res, err := r.units[0].Seed(t.Context(), agent.SeedRequest{Ref: r.ref("me/own"), Dir: writeDir(t, map[string]string{"a": content})})
			r.must(err)
			time.Sleep(time.Minute) // longer than a name may be old
			got, err := r.units[1].fetch("me/own", nil)
			r.must(err)
			if got.Commit != res.Commit {
				t.Errorf("%s: got commit %s, want %s", content, got.Commit, res.Commit)
			}
		}
	})
}

func TestSeedRefused(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		for _, q := range []agent.SeedRequest{
			{Ref: r.ref("me/own"), Dir: "relative"},
			{Ref: r.ref("me/own@" + strings.Repeat("a", 40)), Dir: t.TempDir()},
		} {
			if _, err := r.units[0].Seed(t.Context(), q); agentError(err).Kind != agent.Usage {
				t.Errorf("%+v: %v", q, err)
			}
		}
		missing := agent.SeedRequest{Ref: r.ref("me/own"), Dir: filepath.Join(t.TempDir(), "none")}
		if _, err := r.units[0].Seed(t.Context(), missing); err == nil || !strings.Contains(err.Error(), missing.Dir) {
			t.Errorf("missing folder: %v", err)
		}
	})
}

// O07: the Hub can't be reached.
//
// The cached ref is taken and the notice says how old it is; without one, another
// member's; without that the failure is stated.
func TestO07HubUnreachable(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		_, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		r.hub.Fail(hubtest.Fault{Do: hubtest.Status, Status: 503})
		time.Sleep(time.Hour)
		r.units[0].setRefAge(3 * time.Hour)

		own, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		if own.Commit != string(commit) || !strings.HasPrefix(own.Notice, "what this cache last saw, 3 h old, because: ") {
			t.Errorf("own ref: %+v", own)
		}
		other, err := r.units[1].fetch("org/m", nil)
		r.must(err)
		if other.Commit != string(commit) || !strings.HasPrefix(other.Notice, "what a member last saw, 3 h old, because: ") || other.FromPeers() != modelSize {
			t.Errorf("a member's ref: %+v", other)
		}
		_, err = r.units[1].fetch("org/other", nil)
		if err == nil || !strings.Contains(err.Error(), "503") {
			t.Errorf("nobody knows: %v", err)
		}
	})
}

// O07: no Hub and no peer.
//
// An agent that never asks the Hub lives off one that does; one that is offline takes
// what its cache has at once, and says how old the ref is.
func TestO07NoHub(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		r.model("org/m")
		u := r.restart(1, func(o *agent.Options) { o.Hub = nil })
		_, err := u.fetch("org/m", nil)
		if agentError(err).Kind != agent.Unreachable {
			t.Errorf("alone: %v", err)
		}
		_, err = r.units[0].fetch("org/m", nil)
		r.must(err)
		res, err := u.fetch("org/m", nil)
		r.must(err)
		if res.Upstream != 0 || res.FromPeers() != modelSize {
			t.Errorf("from a member: %+v", res)
		}

		u.setRefAge(3 * time.Hour)
		u = r.restart(1, func(o *agent.Options) { o.Hub, o.Offline = nil, true })
		r.Isolate(r.Nodes[1])
		before := time.Now()
		res, err = u.fetch("org/m", nil)
		r.must(err)
		if res.Here != modelSize || !strings.HasPrefix(res.Notice, "what this cache last saw, 3 h old, because: ") || time.Since(before) > time.Second {
			t.Errorf("offline: %+v after %v", res, time.Since(before))
		}
		if _, err = u.fetch("org/other", nil); agentError(err).Kind != agent.NotFound || !strings.Contains(err.Error(), "offline") {
			t.Errorf("offline and unknown: %v", err)
		}
	})
}

// setRefAge makes refs/main of org/m so old: files have the real clock's time.
func (u *unit) setRefAge(d time.Duration) {
	at := time.Now().Add(-d)
	u.room.must(os.Chtimes(filepath.Join(u.node.Dir, "hub", "models--org--m", "refs", "main"), at, at))
}

// C16: two revisions share blobs.
//
// The branch moves: one fetch later the new commit is here, and of the Hub only the
// small file that differs was asked for.
func TestC16BranchMoves(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		old := r.model("org/m")
		_, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		moved := r.hub.Push("org/m", "main", []hubtest.File{
			{Path: "model-1.safetensors", Content: hubtest.Generated(1, 9<<20)},
			{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":2}`))},
		})
		res, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		if res.Commit != string(old) {
			t.Errorf("within %v the swarm's answer holds, got %s", 30*time.Second, res.Commit)
		}
		time.Sleep(31 * time.Second)
		r.hub.ResetStats()
		res, err = r.units[0].fetch("org/m", nil)
		r.must(err)
		if res.Commit != string(moved) || r.hub.Stats().BodyBytes != 7 || res.Here != 9<<20 {
			t.Errorf("moved: %+v, the Hub sent %d bytes", res, r.hub.Stats().BodyBytes)
		}
	})
}

// The end of Run ends jobs, tells their callers why, and refuses new ones.
func TestRunEnds(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Path: "model-1.safetensors"})
		u := r.units[0]
		got := make(chan error, 1)
		go func() { _, err := u.fetch("org/m", nil); got <- err }()
		time.Sleep(3 * time.Second)
		u.halt()
		synctest.Wait()
		if err := <-got; agentError(err).Kind != agent.NoAgent || !strings.Contains(err.Error(), "stopping") {
			t.Errorf("running: %v", err)
		}
		if _, err := u.fetch("org/m", nil); agentError(err).Kind != agent.NoAgent {
			t.Errorf("new: %v", err)
		}
	})
}

func TestRemove(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		u := r.units[0]
		_, err := u.Seed(t.Context(), agent.SeedRequest{Ref: r.ref("org/m")})
		r.must(err)
		if _, ok := u.Record("seeded/org/m@main"); !ok {
			t.Error("seed REF is not known to others")
		}
		dry, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), DryRun: true})
		if err != nil || !dry.DryRun || dry.Freed < modelSize {
			t.Errorf("dry run %+v, %v", dry, err)
		}
		list, err := u.List()
		if err != nil || len(list) != 1 || !list[0].Kept || list[0].Seeded {
			t.Errorf("list %+v, %v", list, err)
		}
		gone, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")})
		if err != nil || gone.Freed < modelSize {
			t.Errorf("removed %+v, %v", gone, err)
		}
		if list, err := u.List(); err != nil || len(list) != 0 {
			t.Errorf("list %+v, %v", list, err)
		}
		if _, ok := u.Record("seeded/org/m@main"); ok {
			t.Error("a removed name is still told to others")
		}
		if _, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")}); agentError(err).Kind != agent.NotFound {
			t.Errorf("removed twice: %v", err)
		}

		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Path: "model-1.safetensors"})
		go u.fetch("org/m", nil)
		time.Sleep(3 * time.Second)
		if _, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")}); err == nil {
			t.Error("removed under a running job")
		}
	})
}

// Records that members ask each other for.
func TestRecord(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		u := r.units[0]
		_, err := u.fetch("org/m", nil)
		r.must(err)
		raw, ok := u.Record("outline/org/m/" + string(commit))
		if !ok || raw[0] != 'o' {
			t.Fatalf("outline %v %q", ok, raw[:min(len(raw), 20)])
		}
		o, err := pieces.ParseOutline(raw[1:])
		if err != nil || len(o.Files) != 5 || o.Commit != commit {
			t.Errorf("outline %+v, %v", o, err)
		}
		raw, ok = u.Record("cached/org/m@main")
		if !ok || !strings.HasPrefix(string(raw), string(commit)+" ") {
			t.Errorf("cached %v %q", ok, raw)
		}
		for _, key := range []string{"", "outline/", "outline/org/m", "outline/org/m/main", "outline/org/m/" + strings.Repeat("0", 40),
			"seeded/org/m@main", "cached/org/other", "cached/../x", "resolve/org/m@main", "nonsense/x"} {
			if raw, ok := u.Record(key); ok {
				t.Errorf("%q: %q", key, raw)
			}
		}
	})
}
