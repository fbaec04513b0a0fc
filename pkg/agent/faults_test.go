package agent_test

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// large adds a repository of two shards.
func (r *room) large(name string, first, second int64) *pieces.Outline {
	commit := r.hub.AddRepo(hubtest.RepoSpec{ID: name, Files: []hubtest.File{
		{Path: "model-1.safetensors", Content: hubtest.Generated(1, first)},
		{Path: "model-2.safetensors", Content: hubtest.Generated(2, second)},
		{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))},
	}})
	return r.hub.Outline(name, commit)
}

// fetchAll has every unit ensure ref; what it returns waits for all.
func (r *room) fetchAll(ref string, check func(agent.Result)) (wait func()) {
	var wg sync.WaitGroup
	for _, u := range r.units {
		wg.Go(func() {
			res, err := u.Ensure(r.t.Context(), agent.Request{Ref: r.ref(ref)})
			if err != nil {
				r.t.Errorf("%s: %v", u.node.Name, err)
				return
			}
			check(res)
		})
	}
	return wg.Wait
}

// heldSomewhere returns the pieces of the outline that at least one unit holds, and
// their bytes.
func (r *room) heldSomewhere(o *pieces.Outline) (map[pieces.Blob]*pieces.Set, int64) {
	out, n := map[pieces.Blob]*pieces.Set{}, int64(0)
	for _, b := range pieces.Blobs(o.Files) {
		out[b] = pieces.NewSet(b.Pieces())
		for _, u := range r.units {
			if held := u.cache.Held(b); held != nil {
				for i := range held.All() {
					out[b].Add(i)
				}
			}
		}
		for i := range out[b].All() {
			_, size := b.Piece(i)
			n += size
		}
	}
	return out, n
}

func (r *room) until(what string, ok func() bool) {
	r.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > 5*time.Minute {
			r.t.Fatalf("not within 5 minutes: %s", what)
		}
	}
}

// P01: the Hub dies once the swarm holds every piece once.
//
// Eight members are still swapping; all of them finish, and every file is right.
func TestP01HubDiesAfterOneCopy(t *testing.T) {
	inRoomWith(t, 8, furniture{retries: -1, cluster: cluster.Options{Up: 10 << 20, Down: 10 << 20}}, func(t *testing.T, r *room) {
		o := r.large("org/m", 24<<20, 12<<20+7)
		var finished sync.WaitGroup
		wait := r.fetchAll("org/m", func(res agent.Result) { checkSnapshot(t, res.Path, o) })
		finished.Go(wait)
		r.until("one copy in the swarm", func() bool { _, n := r.heldSomewhere(o); return n == o.Size() })
		r.way.Break()
		for _, u := range r.units {
			if j := u.Jobs()[0]; j.Ended() || j.Completed == j.Total {
				t.Errorf("%s has all already: the test proves nothing", u.node.Name)
			}
		}
		finished.Wait()
		if got := r.hub.Stats().BodyBytes; got != o.Size() {
			t.Errorf("the Hub sent %d bytes of %d", got, o.Size())
		}
	})
}

// P02: the Hub dies at 60 %.
//
// Every member says which pieces nobody holds, by file and number, and waits. When
// the Hub is back all finish, and no piece that any member held is fetched again.
func TestP02HubDiesAtSixtyPercent(t *testing.T) {
	inRoomWith(t, 4, furniture{retries: -1, cluster: cluster.Options{Up: 50 << 20, Down: 50 << 20}}, func(t *testing.T, r *room) {
		o := r.large("org/m", 56<<20, 36<<20+7)
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Rate: 512 << 10, Every: 100 * time.Millisecond})
		var finished sync.WaitGroup
		wait := r.fetchAll("org/m", func(res agent.Result) { checkSnapshot(t, res.Path, o) })
		finished.Go(wait)
		r.until("60 % in the swarm", func() bool { _, n := r.heldSomewhere(o); return n >= o.Size()*6/10 })
		r.way.Break()
		time.Sleep(30 * time.Second) // what is held is swapped meanwhile
		held, n := r.heldSomewhere(o)
		sent := r.hub.Stats().BodyBytes
		for _, u := range r.units {
			checkGaps(t, u, o, held)
		}
		time.Sleep(2 * time.Minute)
		r.way.Mend()
		finished.Wait()
		final := r.hub.Stats().BodyBytes
		t.Logf("sent %.3f copies when it died, %d bytes of unfinished pieces; in all %.3f", float64(sent)/float64(o.Size()), sent-n, float64(final)/float64(o.Size()))
		if final-o.Size() > sent-n {
			t.Errorf("%d bytes were fetched again, of unfinished pieces only %d", final-o.Size(), sent-n)
		}
	})
}

// checkGaps compares what a job says it misses with what nobody holds.
func checkGaps(t *testing.T, u *unit, o *pieces.Outline, held map[pieces.Blob]*pieces.Set) {
	t.Helper()
	v := u.Jobs()[0]
	got := map[string][]int{}
	for _, g := range v.Gaps {
		for i := g.First; i <= g.Last; i++ {
			got[g.Path] = append(got[g.Path], i)
		}
	}
	want, count := map[string][]int{}, 0
	for _, f := range o.Files {
		for i := range held[f.Blob].Missing() {
			want[f.Path] = append(want[f.Path], i)
			count++
		}
	}
	if !maps.EqualFunc(got, want, slices.Equal) || v.Unheld != count || count == 0 {
		t.Errorf("%s: says %d: %v, want %v", u.node.Name, v.Unheld, got, want)
	}
	if v.Status != agent.Fetching || v.Idle < 5 || v.Waiting == "" {
		t.Errorf("%s: %s, idle %.0f s, waiting for %q", u.node.Name, v.Status, v.Idle, v.Waiting)
	}
}

// P07: two members see different commits of one branch.
//
// The branch moved between them. Content goes by commit and digest, so each gets its
// own files whole, shares what both have, and says which commit it is.
func TestP07TwoCommitsOfOneBranch(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		old := r.hub.Outline("org/m", r.model("org/m"))
		_, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		moved := r.hub.Outline("org/m", r.hub.Push("org/m", "main", []hubtest.File{
			{Path: "model-1.safetensors", Content: hubtest.Generated(1, 9<<20)},
			{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":2}`))},
		}))
		time.Sleep(31 * time.Second) // longer than the swarm's answer holds
		r.hub.ResetStats()
		res, err := r.units[1].fetch("org/m", nil)
		r.must(err)
		if got := r.hub.Stats().BodyBytes; got != 7 || res.FromPeers() != 9<<20 {
			t.Errorf("the Hub sent %d bytes for the new commit, want 7: %+v", got, res)
		}
		for i, o := range []*pieces.Outline{old, moved} {
			s, _, err := r.units[i].Show(r.ref("org/m"))
			r.must(err)
			if s.Commit != string(o.Commit) || !s.Complete {
				t.Errorf("%d: %+v, want %s", i, s, o.Commit)
			}
			checkSnapshot(t, s.Path, o)
			if v := r.units[i].Jobs()[0]; v.Commit != string(o.Commit) {
				t.Errorf("%d: job %+v", i, v)
			}
		}
	})
}

// P08: a member has the blobs in its cache already.
//
// A client left them there last week, with no word of ours. One pass of hashing and
// they are offered: neither that member nor the next one costs the Hub a byte.
func TestP08CachedBlobsAreAdopted(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		o := r.hub.Outline("org/m", commit)
		r.asAClient(o, r.units[1])
		for _, i := range []int{1, 0} {
			res, err := r.units[i].fetch("org/m", nil)
			r.must(err)
			checkSnapshot(t, res.Path, o)
		}
		if got := r.hub.Stats().BodyBytes; got != 0 {
			t.Errorf("the Hub sent %d bytes", got)
		}
	})
}

// P09: a machine is lost in the middle of a fetch, and comes back under another address with an empty disk.
//
// The others finish. It gets everything from them and asks the Hub for no file, whichever of them it is,
// and also when the others have not noticed yet that it was gone.
func TestP09LostMachineComesBackEmpty(t *testing.T) {
	for i, away := range []time.Duration{0, time.Second, time.Minute} {
		inRoom(t, 3, func(t *testing.T, r *room) {
			o := r.large("org/m", 12<<20, 8<<20+7)
			r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Rate: 4 << 20, Every: 100 * time.Millisecond})
			for _, u := range r.units {
				go u.fetch("org/m", nil) // the lost one's fails
			}
			r.until("half of it in the swarm", func() bool { _, n := r.heldSomewhere(o); return n >= o.Size()/2 })
			r.lose(i)
			r.hub.Heal()
			for _, u := range slices.Delete(slices.Clone(r.units), i, i+1) {
				r.until("the others have it", func() bool { s, _, err := u.Show(r.ref("org/m")); return err == nil && s.Complete })
			}
			time.Sleep(away)
			since := time.Now()
			r.Nodes[i].IP = netip.MustParseAddr("10.9.9.9")
			r.must(r.Cluster.Start(r.Nodes[i]))
			r.units[i] = r.start(i, nil)
			res, err := r.units[i].fetch("org/m", nil)
			r.must(err)
			checkSnapshot(t, res.Path, o)
			if res.FromPeers() != o.Size() || res.Upstream != 0 {
				t.Errorf("member %d, away for %v: %+v", i, away, res)
			}
			for _, a := range r.asks("/") {
				if a.at.After(since) && !strings.HasPrefix(a.path, "/api/") {
					t.Errorf("member %d, away for %v: after %v asked for %s", i, away, a.at.Sub(since), a.path)
				}
			}
		})
	}
}

// lose cuts a machine off without a word, ends what runs on it and empties its disk.
func (r *room) lose(i int) {
	u := r.units[i]
	r.Isolate(u.node)
	u.end()
	r.Kill(u.node)
	u.node.Host.Close()
	r.must(errors.Join(os.RemoveAll(filepath.Join(u.node.Dir, "hub")), os.RemoveAll(filepath.Join(u.node.Dir, "state", "cache"))))
}

// asAClient puts a snapshot into a unit's cache as huggingface_hub does.
func (r *room) asAClient(o *pieces.Outline, u *unit) {
	r.t.Helper()
	top := filepath.Join(u.node.Dir, "hub", o.Repo.Folder())
	for _, f := range o.Files {
		blob, link := filepath.Join(top, "blobs", f.Blob.String()), filepath.Join(top, "snapshots", string(o.Commit), f.Path)
		target, err := filepath.Rel(filepath.Dir(link), blob)
		r.must(errors.Join(err, os.MkdirAll(filepath.Dir(blob), 0o755), os.MkdirAll(filepath.Dir(link), 0o755),
			os.WriteFile(blob, r.contentOf(f), 0o644), os.Symlink(target, link)))
	}
	ref := filepath.Join(top, "refs", "main")
	r.must(errors.Join(os.MkdirAll(filepath.Dir(ref), 0o755), os.WriteFile(ref, []byte(o.Commit), 0o644)))
}

// contentOf is what model made a file of.
func (r *room) contentOf(f pieces.File) []byte {
	contents := map[string]hubtest.Content{
		"model-1.safetensors": hubtest.Generated(1, 9<<20), "model-2.safetensors": hubtest.Generated(2, 5<<20+3),
		"config.json": hubtest.Bytes([]byte(`{"a":1}`)), "nested/tokenizer.json": hubtest.Generated(3, 70_000), "empty.txt": hubtest.Bytes(nil),
	}
	out := make([]byte, f.Blob.Size)
	if _, err := contents[f.Path].ReadAt(out, 0); len(out) > 0 {
		r.must(err)
	}
	return out
}

// C15: the cache is pruned while it serves.
//
// `hf cache rm` takes the blobs from under a member that others take pieces from. It
// serves nothing of them any more, nobody gets a wrong byte, the takers get the rest
// from the Hub, and a fetch on the pruned member brings everything back.
func TestC15PrunedWhileServing(t *testing.T) {
	inRoomWith(t, 2, furniture{retries: -1, cluster: cluster.Options{Up: 4 << 20, Down: 100 << 20}}, func(t *testing.T, r *room) {
		o := r.hub.Outline("org/m", r.model("org/m"))
		_, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		r.hub.ResetStats()
		got := make(chan agent.Result, 1)
		go func() {
			res, err := r.units[1].fetch("org/m", nil)
			r.check(err)
			got <- res
		}()
		r.until("the first piece is taken", func() bool {
			jobs := r.units[1].Jobs()
			return len(jobs) > 0 && jobs[0].FromPeers() > 0
		})
		r.must(os.RemoveAll(filepath.Join(r.Nodes[0].Dir, "hub", o.Repo.Folder())))
		res := <-got
		checkSnapshot(t, res.Path, o)
		if res.FromPeers() == 0 || res.Upstream == 0 {
			t.Errorf("not from both: %+v", res)
		}
		for _, b := range pieces.Blobs(o.Files) {
			if r.units[0].cache.Held(b) != nil {
				t.Errorf("%s is still offered", b)
			}
		}
		r.hub.ResetStats()
		back, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		checkSnapshot(t, back.Path, o)
		if r.hub.Stats().BodyBytes != 0 {
			t.Errorf("mended with %d bytes of the Hub, want the other member's", r.hub.Stats().BodyBytes)
		}
	})
}

// O08: an init container trusts the exit.
//
// Ensure returns nil only after refs/ is there; when that can't be written it fails,
// and says what.
func TestO08DoneMeansRefsAreThere(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		u := r.units[0]
		top := filepath.Join(u.node.Dir, "hub", "models--org--m")
		ref := filepath.Join(top, "refs", "main")
		r.must(os.MkdirAll(filepath.Join(ref, "in-the-way"), 0o755))
		if _, err := u.fetch("org/m", nil); err == nil || !strings.Contains(err.Error(), "reference") {
			t.Errorf("refs/main can't be written: %v", err)
		}
		r.must(os.RemoveAll(ref))
		r.hub.ResetStats()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := u.fetch("org/m", func(q *agent.Request) {
				q.Watch = func(v agent.Job) {
					if _, err := os.Lstat(ref); v.Status == agent.Done && err != nil {
						t.Errorf("done before refs/: %v", err)
					}
				}
			})
			r.check(err)
		}()
		<-done
		synctest.Wait()
		if raw, err := os.ReadFile(ref); err != nil || string(raw) != string(commit) {
			t.Errorf("refs/main: %q, %v", raw, err)
		}
		if got := r.hub.Stats().BodyBytes; got != 0 {
			t.Errorf("fetched again: %s", fmt.Sprint(got))
		}
	})
}
