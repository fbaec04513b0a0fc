package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// repo adds a repository of one large file and a small one.
func (r *room) repo(name string, seed uint64, size int64) pieces.Commit {
	return r.hub.AddRepo(hubtest.RepoSpec{ID: name, Files: []hubtest.File{
		{Path: "model.safetensors", Content: hubtest.Generated(seed, size)}, {Path: "config.json", Content: hubtest.Bytes([]byte(name))},
	}})
}

// forgetReads makes everything in the cache look unread: the real clock stamps
// files, and the bubble's is a quarter of a century behind.
func (u *unit) forgetReads() {
	long := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	u.room.must(filepath.WalkDir(filepath.Join(u.node.Dir, "hub"), func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.Type()&fs.ModeSymlink != 0:
			return err
		case e.IsDir():
			return os.Chtimes(path, long, long)
		}
		return os.Chtimes(path, long, time.Time{}) // the other time is in the proof
	}))
}

func (u *unit) has(ref string) bool {
	s, err := u.cache.Snapshot(u.room.ref(ref))
	return err == nil && s.Complete
}

func (u *unit) prune(t *testing.T, req agent.PruneRequest) agent.Pruned {
	t.Helper()
	u.forgetReads()
	out, err := u.Prune(t.Context(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// verdicts puts a prune into words.
func verdicts(p agent.Pruned) (out []string) {
	for _, v := range p.Verdicts {
		word := string(v.Stays)
		if v.Gone {
			word = "gone"
		}
		out = append(out, v.Repo+" "+word)
	}
	return out
}

// fetchHourly brings repositories to units, an hour apart.
func (r *room) fetchHourly(names []string, units ...*unit) {
	for _, name := range names {
		for _, u := range units {
			r.must(errorOf(u.fetch(name, nil)))
		}
		time.Sleep(time.Hour)
	}
}

// What goes is the least lately used first, as far as it takes; what must stay says
// why; a dry run says the same and removes nothing.
func TestPrune(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		names := []string{"org/a", "org/b", "org/c", "org/pinned", "org/only", "org/d"}
		for i, name := range names {
			r.repo(name, uint64(i+1), 1<<20)
		}
		u, other := r.units[0], r.units[1]
		r.fetchHourly(names, u)
		for _, name := range names {
			if name != "org/only" {
				r.must(errorOf(other.fetch(name, nil)))
			}
		}
		r.must(errorOf(u.Seed(t.Context(), agent.SeedRequest{Ref: r.ref("me/own"), Dir: writeDir(t, map[string]string{"x": "y"})})))
		time.Sleep(time.Second)
		r.must(errorOf(u.PinHere(r.ref("org/pinned"), agent.ByCommand)))
		r.must(errorOf(u.fetch("org/a", nil))) // used again
		time.Sleep(time.Minute)

		zero, some := int64(0), int64(4<<20)
		want := []string{"org/b gone", "org/c gone", "org/pinned pinned", "org/only last_copy", "org/d gone", "me/own kept", "org/a recent"}
		dry := u.prune(t, agent.PruneRequest{Target: &zero, DryRun: true})
		if got := verdicts(dry); !slices.Equal(got, want) || dry.Freed < 3<<20 {
			t.Errorf("dry run: %v, %d freed; want %v", got, dry.Freed, want)
		}
		for _, name := range names {
			if !u.has(name) {
				t.Errorf("a dry run removed %s", name)
			}
		}
		part := u.prune(t, agent.PruneRequest{Target: &some})
		want = []string{"org/b gone", "org/c gone", "org/pinned pinned", "org/only unneeded", "org/d unneeded", "me/own kept", "org/a recent"}
		if got := verdicts(part); !slices.Equal(got, want) || part.Freed < 2<<20 || part.Freed > 3<<20 {
			t.Errorf("down to 4 MiB of %d: %v, %d freed; want %v", part.Used, got, part.Freed, want)
		}
		if u.has("org/b") || u.has("org/c") || !u.has("org/d") {
			t.Error("the verdicts are not what was done")
		}
		forced := u.prune(t, agent.PruneRequest{Target: &zero, Force: true})
		want = []string{"org/pinned pinned", "org/only gone", "org/d gone", "me/own kept", "org/a gone"}
		if got := verdicts(forced); !slices.Equal(got, want) {
			t.Errorf("forced: %v, want %v", got, want)
		}
		// What went comes back from the other member, not from the Hub.
		before := r.hub.Stats().BodyBytes
		r.must(errorOf(u.fetch("org/b", nil)))
		if came := r.hub.Stats().BodyBytes - before; came != 0 {
			t.Errorf("%d bytes of the Hub for what a member holds", came)
		}
	})
}

// All members evict the same snapshot in the same instant.
//
// Some copy stays, whatever the timing; and when they try again, all but one go.
func TestPruneAtOnceKeepsACopy(t *testing.T) {
	for members := 2; members <= 4; members++ {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			inRoom(t, members, func(t *testing.T, r *room) {
				r.repo("org/m", 1, 1<<20)
				zero := int64(0)
				var left int
				rounds := 5
				if testing.Short() {
					rounds = 2
				}
				for round := range rounds {
					r.fetchHourly([]string{"org/m"}, r.units...)
					for _, u := range r.units {
						u.forgetReads()
					}
					var all sync.WaitGroup
					for i, u := range r.units {
						all.Go(func() {
							time.Sleep(time.Duration(i*round) * 100 * time.Microsecond) // in step, and not quite
							if _, err := u.Prune(t.Context(), agent.PruneRequest{Target: &zero}, nil); err != nil {
								t.Error(err)
							}
						})
					}
					all.Wait()
					left = 0
					for _, u := range r.units {
						if u.has("org/m") {
							left++
						}
					}
					if left == 0 {
						t.Fatalf("round %d: no copy is left", round)
					}
				}
				for range 5 {
					for _, u := range r.units {
						u.prune(t, agent.PruneRequest{Target: &zero})
					}
				}
				left = 0
				for _, u := range r.units {
					if u.has("org/m") {
						left++
					}
				}
				if left != 1 {
					t.Errorf("%d copies are left", left)
				}
			})
		})
	}
}

// A member that can't see the others keeps its copy.
func TestPruneCutOff(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		r.repo("org/m", 1, 1<<20)
		r.fetchHourly([]string{"org/m"}, r.units...)
		r.Isolate(r.units[0].node)
		zero := int64(0)
		for range 3 {
			if got := verdicts(r.units[0].prune(t, agent.PruneRequest{Target: &zero})); !slices.Equal(got, []string{"org/m last_copy"}) {
				t.Errorf("%v", got)
			}
			time.Sleep(time.Minute)
		}
		r.Reconnect(r.units[0].node)
	})
}

// Of a snapshot that is here in part, a member that has these files is enough.
func TestPruneParts(t *testing.T) {
	inRoom(t, 3, func(t *testing.T, r *room) {
		r.repo("org/m", 1, 1<<20)
		part := func(u *unit, pattern string) {
			r.must(errorOf(u.fetch("org/m", func(q *agent.Request) { q.Include = []string{pattern} })))
		}
		part(r.units[0], "*.safetensors")
		part(r.units[1], "*.json")
		time.Sleep(time.Hour)
		zero := int64(0)
		if got := verdicts(r.units[0].prune(t, agent.PruneRequest{Target: &zero})); !slices.Equal(got, []string{"org/m last_copy"}) {
			t.Errorf("nobody else has the file: %v", got)
		}
		part(r.units[2], "*.safetensors")
		if got := verdicts(r.units[0].prune(t, agent.PruneRequest{Target: &zero})); !slices.Equal(got, []string{"org/m gone"}) {
			t.Errorf("another has it: %v", got)
		}
	})
}

// Who works with a snapshot keeps it: a client of the gateway that reads, a member
// that takes pieces, a process that has a file open, a job.
func TestPruneInUse(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		r.repo("org/m", 1, 9<<20)
		r.fetchHourly([]string{"org/m"}, r.units...)
		u, zero := r.units[0], int64(0)
		check := func(what, want string) {
			t.Helper()
			time.Sleep(time.Hour)
			for _, dry := range []bool{true, false} {
				for _, force := range []bool{true, false} {
					out := u.prune(t, agent.PruneRequest{Target: &zero, DryRun: dry, Force: force})
					if len(out.Verdicts) != 1 || out.Verdicts[0].Stays != agent.StaysInUse || !strings.Contains(out.Verdicts[0].Detail, want) {
						t.Errorf("%s: %+v", what, out.Verdicts)
					}
				}
			}
			if _, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: rm: %v", what, err)
			}
		}
		v := u.view("org/m")
		f, _ := v.File("model.safetensors")
		c := u.Read(v, f, "")
		check("a client of the gateway", "a client of the gateway reads it")
		c.Close()

		piece, err := u.cache.OpenPiece(f.Blob, 1)
		r.must(err)
		check("a piece is being sent", "model.safetensors is open")
		piece.Close()

		s, err := u.cache.Snapshot(r.ref("org/m"))
		r.must(err)
		held, err := os.Open(filepath.Join(s.Path, "config.json"))
		r.must(err)
		check("a process", "config.json is open")
		if out, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), DryRun: true}); err != nil || out.InUse == "" || out.LastCopy {
			t.Errorf("dry run of rm: %+v, %v", out, err)
		}
		r.must(errorOf(u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), Force: true})))
		held.Close()

		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Path: "model.safetensors"})
		r.repo("org/new", 2, 9<<20)
		go u.fetch("org/new", nil)
		time.Sleep(3 * time.Second)
		if _, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/new")}); err == nil {
			t.Error("removed under a job")
		}
	})
}

// blind is a cache that can't tell who uses what.
type blind struct{ agent.Cache }

func (blind) InUse(pieces.Repo, pieces.Commit) (string, error) { return "", syscall.EIO }

// Where that can't be found out, nothing goes, and why is told.
func TestPruneBlind(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.repo("org/m", 1, 1000)
		r.must(errorOf(r.units[0].fetch("org/m", nil)))
		u, zero := r.restart(0, func(o *agent.Options) { o.Cache = blind{o.Cache} }), int64(0)
		for _, dry := range []bool{true, false} {
			out := u.prune(t, agent.PruneRequest{Target: &zero, Force: true, DryRun: dry})
			if len(out.Verdicts) != 1 || out.Verdicts[0].Stays != agent.StaysFailed || !strings.Contains(out.Verdicts[0].Detail, syscall.EIO.Error()) {
				t.Errorf("dry %v: %+v", dry, out.Verdicts)
			}
		}
		if _, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")}); !errors.Is(err, syscall.EIO) || strings.Contains(err.Error(), "in use") {
			t.Errorf("rm: %v", err)
		}
	})
}

// A pinned snapshot is removed by force alone.
func TestRemovePinned(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.repo("org/m", 1, 1000)
		r.must(errorOf(r.units[0].fetch("org/m", nil)))
		r.must(errorOf(r.units[0].PinHere(r.ref("org/m"), agent.ByCommand)))
		for _, dry := range []bool{true, false} {
			out, err := r.units[0].Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), DryRun: dry})
			if dry && (err != nil || len(out.PinnedBy) != 1 || !out.LastCopy) || !dry && (err == nil || !strings.Contains(err.Error(), "pinned by command")) {
				t.Errorf("dry %v: %+v, %v", dry, out, err)
			}
		}
		r.must(errorOf(r.units[0].Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m"), Force: true})))
	})
}

// A job that would not fit evicts what may go, and nothing when that is not enough:
// then it says what is needed, what is left and what stays.
func TestJobMakesRoom(t *testing.T) {
	evicting := func(o *agent.Options) { o.Eviction = agent.Eviction{High: 95, Low: 80} }
	inRoomWith(t, 2, furniture{retries: -1, quota: 10 << 20}, func(t *testing.T, r *room) {
		for i, name := range []string{"org/a", "org/b", "org/c", "org/huge"} {
			r.repo(name, uint64(i+1), 4<<20)
		}
		r.repo("org/huge", 9, 8<<20)
		u := r.restart(0, evicting)
		r.fetchHourly([]string{"org/a", "org/b"}, u, r.units[1])
		u.forgetReads()
		r.must(errorOf(r.units[1].Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/b")}))) // u's is the last
		r.must(errorOf(u.fetch("org/c", nil)))
		if u.has("org/a") || !u.has("org/b") || !u.has("org/c") {
			t.Error("the oldest with another copy should have gone")
		}
		u.forgetReads()
		time.Sleep(time.Hour)
		_, err := u.fetch("org/huge", nil)
		e := agentError(err)
		full, ok := errors.AsType[*cachefs.NoSpaceError](err)
		if e.Kind != agent.NoSpace || !ok || full.Quota != 10<<20 || !strings.Contains(e.Message, "last copy") || e.Hint == "" {
			t.Errorf("a job that can't fit: %v", err)
		}
		if !u.has("org/b") || !u.has("org/c") {
			t.Error("evicted in vain")
		}
		// Without a mark the agent removes nothing.
		_, err = r.units[1].fetch("org/huge", nil)
		if e := agentError(err); e.Kind != agent.NoSpace || !r.units[1].has("org/a") {
			t.Errorf("without marks: %v", err)
		}
	})
}

// A new revision fits where the old one was, and keeps what they share.
func TestJobEvictsItsOldRevision(t *testing.T) {
	inRoomWith(t, 2, furniture{retries: -1, quota: 10 << 20}, func(t *testing.T, r *room) {
		files := func(second uint64) []hubtest.File {
			return []hubtest.File{{Path: "same", Content: hubtest.Generated(1, 4<<20)}, {Path: "moves", Content: hubtest.Generated(second, 4<<20)}}
		}
		old := r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: files(2)})
		u := r.restart(0, func(o *agent.Options) { o.Eviction = agent.Eviction{High: 95, Low: 80} })
		r.fetchHourly([]string{"org/m"}, u, r.units[1])
		u.forgetReads()
		now := r.hub.Push("org/m", "main", files(3))
		before := r.hub.Stats().BodyBytes
		res, err := u.fetch("org/m", nil)
		r.must(err)
		checkSnapshot(t, res.Path, r.hub.Outline("org/m", now))
		if came := r.hub.Stats().BodyBytes - before; came > 4<<20 {
			t.Errorf("%d bytes came: the shared file was fetched again", came)
		}
		if _, err := u.cache.Snapshot(r.ref("org/m@" + string(old))); !errors.Is(err, cachefs.ErrNotCached) {
			t.Errorf("the old revision is here: %v", err)
		}
	})
}

// Above the high mark the agent evicts down to the low one by itself; what the
// operator let go includes last copies of what the Hub has, never of a seeded name.
func TestWatermarks(t *testing.T) {
	inRoomWith(t, 1, furniture{retries: -1, quota: 20 << 20}, func(t *testing.T, r *room) {
		u := r.restart(0, func(o *agent.Options) { o.Eviction = agent.Eviction{High: 80, Low: 50, LastCopies: true} })
		r.must(errorOf(u.Seed(t.Context(), agent.SeedRequest{Ref: r.ref("me/own"), Dir: writeDir(t, map[string]string{"x": strings.Repeat("y", 1<<20)})})))
		var names []string
		for i := range 4 {
			names = append(names, fmt.Sprint("org/m", i))
			r.repo(names[i], uint64(i+1), 4<<20)
			r.must(errorOf(u.fetch(names[i], nil)))
			time.Sleep(time.Second)
		}
		time.Sleep(5 * time.Minute)
		if !u.has("org/m0") {
			t.Error("evicted what was used a moment ago")
		}
		u.forgetReads()
		time.Sleep(20 * time.Minute)
		room, err := u.cache.Room()
		r.must(err)
		if room.Used > 10<<20 || u.has("org/m0") || u.has("org/m1") || !u.has("org/m3") || !u.has("me/own") {
			t.Errorf("%+v: %v %v %v %v, own %v", room, u.has("org/m0"), u.has("org/m1"), u.has("org/m2"), u.has("org/m3"), u.has("me/own"))
		}
		if _, err := os.Stat(filepath.Join(u.node.Dir, "hub", "models--org--m0")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an empty repository is left: %v", err)
		}
	})
}

// stall leaves a part of org/m on the unit, which was written just now by the real
// clock, and long ago by that of the bubble.
func (r *room) stall(u *unit) (age func()) {
	r.repo("org/m", 1, 20<<20)
	r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Path: "model.safetensors", At: 9 << 20})
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	if _, err := u.Ensure(ctx, agent.Request{Ref: r.ref("org/m"), Tied: true}); err == nil {
		r.t.Fatal("it should have stalled")
	}
	if n := len(u.cache.Unfinished()); n != 1 {
		r.t.Fatalf("%d unfinished", n)
	}
	return func() {
		partial := filepath.Join(u.node.Dir, "state", "cache", "partial")
		entries, err := os.ReadDir(partial)
		r.must(err)
		long := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
		for _, e := range entries {
			r.must(os.Chtimes(filepath.Join(partial, e.Name()), long, long))
		}
	}
}

// Pieces that no job is after any more go first, an hour after the last came.
func TestPruneUnfinished(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		u, zero := r.units[0], int64(0)
		age := r.stall(u)
		out := u.prune(t, agent.PruneRequest{Target: &zero})
		if len(out.Verdicts) != 0 || len(u.cache.Unfinished()) != 1 { // written by the real clock: just now
			t.Errorf("dropped at once: %+v", out)
		}
		age()
		out = u.prune(t, agent.PruneRequest{Target: &zero})
		if len(out.Verdicts) != 1 || out.Verdicts[0].Blob == "" || out.Freed < 20<<20 || len(u.cache.Unfinished()) != 0 {
			t.Errorf("%+v, %d unfinished", out, len(u.cache.Unfinished()))
		}
	})
}

// dropping is a cache that takes its time to drop a partial blob.
type dropping struct {
	agent.Cache
	begun chan struct{}
}

func (d dropping) Abandon(b pieces.Blob) error {
	close(d.begun)
	time.Sleep(time.Second)
	return d.Cache.Abandon(b)
}

// A job that comes while the pieces that it would use are dropped waits until they are,
// and fetches all anew.
func TestPruneUnfinishedUnderAJob(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		d, zero := dropping{begun: make(chan struct{})}, int64(0)
		u := r.restart(0, func(o *agent.Options) { d.Cache, o.Cache = o.Cache, &d })
		r.stall(u)()
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model.safetensors", Rate: 1 << 20})
		var wg sync.WaitGroup
		wg.Go(func() {
			<-d.begun
			if res, err := u.fetch("org/m", nil); err != nil || res.Upstream < 20<<20 {
				t.Errorf("%+v, %v", res, err)
			}
		})
		if out := u.prune(t, agent.PruneRequest{Target: &zero}); len(out.Verdicts) != 1 || !out.Verdicts[0].Gone {
			t.Errorf("%+v", out)
		}
		wg.Wait()
	})
}
