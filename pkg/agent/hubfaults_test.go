package agent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

const bigShard = "model-1.safetensors" // of room.model: 9 MiB, three pieces

// fetchWithin ensures within some time, and returns how long it took.
func (u *unit) fetchWithin(limit time.Duration, ref string) (agent.Result, time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(u.room.t.Context(), limit, errors.New("the test's time is over"))
	defer cancel()
	start := time.Now()
	res, err := u.Ensure(ctx, agent.Request{Ref: u.room.ref(ref)})
	return res, time.Since(start), err
}

// S01: a body goes silent half way in the middle of a fetch.
//
// The fetch goes on by itself after 15 s, from the first byte that is missing, and
// no byte is fetched twice.
func TestS01FetchGoesOn(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, Path: bigShard, Nth: 1, At: 9 << 19})
		res, took, err := r.units[0].fetchWithin(time.Minute, "org/m")
		r.must(err)
		checkSnapshot(t, res.Path, r.hub.Outline("org/m", commit))
		if sent := r.hub.Stats().BodyBytes; sent > modelSize || took < 15*time.Second || took > 20*time.Second {
			t.Errorf("%d bytes of %d, %v", sent, modelSize, took)
		}
	})
}

// givesUp wants a fetch that the fault never lets get a byte to end in time, and
// to say what it waited for.
func givesUp(t *testing.T, fault hubtest.Fault, says ...string) {
	t.Helper()
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		fault.Route = hubtest.CDN
		r.hub.Fail(fault)
		_, took, err := r.units[0].fetchWithin(time.Hour, "org/m")
		if err == nil || agentError(err).Kind != agent.Stalled || took < 10*time.Minute || took > 12*time.Minute {
			t.Fatalf("after %v: %v", took, err)
		}
		for _, text := range append(says, "no byte for 10m") {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%v\nlacks %q", err, text)
			}
		}
		noBlob(t, r.units[0], r.hub.Outline("org/m", commit), bigShard)
	})
}

// S02: the CDN takes requests and sends no response headers, ever.
//
// The fetch ends after ten minutes without a byte, as stalled; its error says what
// did not come, from where, and how often it was tried.
func TestS02GivesUp(t *testing.T) {
	givesUp(t, hubtest.Fault{Do: hubtest.Silent}, "stalled: no response headers for 15s", "http://cdn.test", "gave up after 2 attempts without a byte")
}

// S05: every body stalls before its first byte.
//
// The fetch ends after ten minutes without a byte, as stalled; its error says how
// often it was tried and at which byte it stalled. Nothing of it is left running.
func TestS05GivesUp(t *testing.T) {
	givesUp(t, hubtest.Fault{Do: hubtest.Stall}, "stalled: no byte for 15s at offset 0", "cdn.test", "gave up after 2 attempts without a byte")
}

// S14: every body is short, with a Content-Length to match.
//
// Each is refused, and after ten minutes without a byte the fetch ends with an
// error that has both lengths. No blob is there.
func TestS14GivesUp(t *testing.T) {
	givesUp(t, hubtest.Fault{Do: hubtest.Truncate}, "Content-Length", "for a range of")
}

// noBlob wants a file not to be in blobs/.
func noBlob(t *testing.T, u *unit, o *pieces.Outline, path string) {
	t.Helper()
	for _, f := range o.Files {
		if f.Path != path {
			continue
		}
		found, err := filepath.Glob(filepath.Join(u.node.Dir, "hub", "*", "blobs", f.Blob.Digest.String()+"*"))
		if err != nil || len(found) > 0 {
			t.Errorf("%s is there: %q, %v", path, found, err)
		}
		return
	}
	t.Errorf("no file %s", path)
}

// S12: a range comes back with right headers and wrong bytes.
//
// The digest of the whole does not fit, so nothing is published; the blob is
// fetched anew, and right then. The bad bytes never had the blob's name.
func TestS12WrongBytesAfterACut(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		outline := r.hub.Outline("org/m", commit)
		r.hub.Fail(hubtest.Fault{Do: hubtest.Cut, Route: hubtest.CDN, Path: bigShard, Nth: 1, At: 5 << 20})
		r.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.CDN, Path: bigShard, Nth: 2, At: 6 << 20, Len: 1 << 20})
		res, err := r.units[0].fetch("org/m", func(q *agent.Request) {
			q.Watch = func(v agent.Job) {
				if v.Status == agent.Fetching {
					checkBlobs(t, r.units[0], outline)
				}
			}
		})
		r.must(err)
		checkSnapshot(t, res.Path, outline)
		if sent := r.hub.Stats().BodyBytes; sent > modelSize+9<<20 {
			t.Errorf("the Hub sent %d bytes of %d", sent, modelSize)
		}
	})
}

// checkBlobs wants every file in blobs/ to be what its name says.
func checkBlobs(t *testing.T, u *unit, o *pieces.Outline) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(u.node.Dir, "hub", "*", "blobs", "*"))
	for _, path := range found {
		raw, err := os.ReadFile(path)
		i := slices.IndexFunc(o.Files, func(f pieces.File) bool { return f.Blob.Digest.String() == filepath.Base(path) })
		if err != nil || i < 0 {
			t.Errorf("%s: of no file, %v", path, err)
			continue
		}
		h := o.Files[i].Blob.NewHash()
		h.Write(raw)
		if err := o.Files[i].Blob.Check(h); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// refusesContent has the Hub send one wrong byte of a file each time, then none.
func refusesContent(t *testing.T, path string) {
	t.Helper()
	inRoom(t, 1, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		r.hub.Fail(hubtest.Fault{Do: hubtest.Wrong, Path: path, At: 3})
		_, _, err := r.units[0].fetchWithin(5*time.Minute, "org/m")
		wrong, ok := errors.AsType[*pieces.MismatchError](err)
		if !ok || agentError(err).Kind != agent.Integrity {
			t.Fatalf("got %v", err)
		}
		for _, text := range []string{path, wrong.Want, wrong.Got} {
			if text == "" || !strings.Contains(err.Error(), text) {
				t.Errorf("%v\nlacks %q", err, text)
			}
		}
		noBlob(t, r.units[0], outline, path)
		r.hub.Heal()
		res, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		checkSnapshot(t, res.Path, outline)
	})
}

// V01: one byte of a large file is wrong, however often it is fetched.
//
// The SHA-256 does not fit and nothing is published. The error names the file, the
// digest that it should have and the one that it has.
func TestV01WrongByte(t *testing.T) { refusesContent(t, bigShard) }

// V02: one byte of a file that the Hub keeps in git is wrong.
//
// The same with git's SHA-1 of a blob.
func TestV02WrongByteOfAGitFile(t *testing.T) { refusesContent(t, "config.json") }

// V05: the repository has an empty file.
//
// It is committed without a request for it.
func TestV05EmptyFile(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		res, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		raw, err := os.ReadFile(filepath.Join(res.Path, "empty.txt"))
		blob, lerr := os.Readlink(filepath.Join(res.Path, "empty.txt"))
		if err != nil || lerr != nil || len(raw) > 0 || filepath.Base(blob) != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
			t.Errorf("%d bytes in %q, %v, %v", len(raw), blob, err, lerr)
		}
		if asked := r.asks("empty.txt"); len(asked) > 0 {
			t.Errorf("asked for %v", asked)
		}
	})
}

// S21: all pieces are here, and the process ended before they were put together.
//
// After the restart they are compared and committed, and no byte is asked for.
func TestS21NothingLeftToFetch(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		u := r.units[0]
		r.must(u.cache.Begin(t.Context(), outline.Repo, pieces.Blobs(outline.Files)))
		for _, f := range outline.Files {
			r.cut(u, f)
		}
		time.Sleep(5 * time.Second) // the journal is written after two
		res, err := r.restart(0, nil).fetch("org/m", nil)
		r.must(err)
		checkSnapshot(t, res.Path, outline)
		if st := r.hub.Stats(); st.BodyBytes != 0 || st.Calls[hubtest.Head]+st.Calls[hubtest.Get]+st.Calls[hubtest.CDN] != 0 {
			t.Errorf("%d bytes, calls %v", st.BodyBytes, st.Calls)
		}
	})
}

// cut puts a file's pieces as upstream would.
func (r *room) cut(u *unit, f pieces.File) {
	r.t.Helper()
	if f.Blob.Size == 0 {
		return
	}
	c := pieces.NewCutter(pieces.NewSigner(u.node.Identity), f.Blob, 0, f.Blob.Pieces(), nil)
	body := bytes.NewReader(r.content(f))
	for range f.Blob.Pieces() {
		v, err := c.Next(body)
		r.must(err)
		r.must(u.cache.Put(r.t.Context(), v))
	}
	if f.Blob.Pieces() == 1 { // these have no journal: a fetch completes them at once
		r.must(u.cache.Complete(r.t.Context(), f.Blob))
	}
}

// S23: the end of a file comes from the CDN at 10 KiB/s.
//
// The speed floor drops the connection after a minute, and another brings the
// rest.
func TestS23SlowTail(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Path: bigShard, Nth: 1, At: 8 << 20, Rate: 10 << 10})
		res, took, err := r.units[0].fetchWithin(5*time.Minute, "org/m")
		r.must(err)
		checkSnapshot(t, res.Path, outline)
		if sent := r.hub.Stats().BodyBytes; took > 65*time.Second || sent > modelSize+10<<10 {
			t.Errorf("took %v, %d bytes of %d", took, sent, modelSize)
		}
	})
}

// S24: a repository of many files that take their time.
//
// One agent has eight bodies open at most.
func TestS24OpenBodies(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		spec := hubtest.RepoSpec{ID: "org/many"}
		for i := range 200 {
			spec.Files = append(spec.Files, hubtest.File{Path: fmt.Sprintf("f%d", i), Content: hubtest.Generated(uint64(i), 2000)})
		}
		r.hub.AddRepo(spec)
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.Cache, Rate: 500})
		if _, _, err := r.units[0].fetchWithin(time.Hour, "org/many"); err != nil {
			t.Fatal(err)
		}
		if most := r.hub.Stats().MaxOpen; most < 2 || most > 8 {
			t.Errorf("%d bodies at once", most)
		}
	})
}

// S30: somebody asks how the job is while every connection stalls.
//
// The answer comes at once: the state, the bytes, the rate, the seconds since the
// last byte, what is waited for and the host that does not send.
func TestS30StatusDuringAStall(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, At: 1 << 20})
		u := r.units[0]
		var wg sync.WaitGroup
		wg.Go(func() { u.fetchWithin(time.Minute, "org/m") })
		time.Sleep(14 * time.Second)
		asked := time.Now()
		v := u.Jobs()[0]
		if took := time.Since(asked); took > 100*time.Millisecond {
			t.Errorf("answered after %v", took)
		}
		if v.Status != agent.Fetching || v.Total != modelSize || v.Completed > modelSize-9<<20 || v.Rate > 1<<20 ||
			v.Idle < 5 || v.Idle > 14 || v.Host != "cdn.test" || v.Waiting != "upstream" {
			t.Errorf("job %+v", v)
		}
		if st := u.Status(); time.Since(asked) > 100*time.Millisecond {
			t.Errorf("status %+v after %v", st, time.Since(asked))
		}
		wg.Wait()
	})
}

// fleet is how many agents a test has: all, but for the race detector a few do.
func fleet(n int) int {
	if testing.Short() {
		return min(n, 6)
	}
	return n
}

// together fetches on all agents at once.
func (r *room) together(ref string) []agent.Result {
	r.t.Helper()
	results := make([]agent.Result, len(r.units))
	var wg sync.WaitGroup
	for i, u := range r.units {
		wg.Go(func() {
			var err error
			if results[i], err = u.fetch(ref, nil); err != nil {
				r.t.Errorf("%s: %v", u.node.Name, err)
			}
		})
	}
	wg.Wait()
	return results
}

// R04: 24 agents start cold on one model in the same second.
//
// The Hub is asked once what the branch means and once for each page of the
// listing, and sends every byte once.
func TestR04ColdFleet(t *testing.T) {
	inRoomWith(t, fleet(24), furniture{hub: hubtest.Options{PageSize: 2}}, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		for _, res := range r.together("org/m") {
			checkSnapshot(t, res.Path, outline)
		}
		st := r.hub.Stats()
		if st.Calls[hubtest.Info] != 1 || st.Calls[hubtest.Tree] != 3 || st.BodyBytes != modelSize || st.MaxCoverage != 1 {
			t.Errorf("%d bytes of %d, calls %v", st.BodyBytes, modelSize, st.Calls)
		}
	})
}

// R05: 24 agents start again with everything cached, and ask for a commit.
//
// The Hub is asked nothing.
func TestR05WarmFleet(t *testing.T) {
	inRoom(t, fleet(24), func(t *testing.T, r *room) {
		commit := r.model("org/m")
		outline := r.hub.Outline("org/m", commit)
		r.together("org/m")
		for i := range r.units {
			r.restart(i, nil)
		}
		r.hub.ResetStats()
		for _, res := range r.together("org/m@" + string(commit)) {
			checkSnapshot(t, res.Path, outline)
		}
		if st := r.hub.Stats(); len(st.Calls) != 0 {
			t.Errorf("calls %v", st.Calls)
		}
	})
}

// R01: the Hub says to one of 16 members that the address has used up its
// requests.
//
// Nobody else asks it before the window is over, whatever each was about to ask
// for; then all do, spread over two seconds.
func TestR01SwarmWaitsAsOne(t *testing.T) {
	inRoomWith(t, fleet(16), furniture{}, func(t *testing.T, r *room) {
		for i := range r.units {
			r.hub.AddRepo(hubtest.RepoSpec{ID: fmt.Sprintf("org/m%d", i), Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte{byte(i)})}}})
		}
		const window = 5 * time.Second
		r.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Info, Status: 429, Header: map[string]string{"RateLimit": `"api";r=0;t=5`}})
		begin := time.Now()
		var wg sync.WaitGroup
		for i, u := range r.units {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				if _, err := u.fetch(fmt.Sprintf("org/m%d", i), nil); err != nil {
					t.Errorf("%s: %v", u.node.Name, err)
				}
			})
		}
		time.Sleep(window)
		if asked := r.asks("/revision/"); len(asked) != 1 {
			t.Errorf("asked %d times within the window", len(asked))
		}
		r.hub.Heal()
		wg.Wait()
		instants := map[time.Time]bool{}
		for _, a := range r.asks("/revision/")[1:] {
			instants[a.at] = true
			if after := a.at.Sub(begin); after < window || after > window+4*time.Second {
				t.Errorf("asked after %v", after)
			}
		}
		if others := len(r.units) - 1; len(instants) <= others/2 {
			t.Errorf("%d members asked at %d instants", others, len(instants))
		}
	})
}

// R01: 16 members want one model, and the Hub limits first the API, then files.
//
// One member asks in a window of the API. Of files, as many requests as were under
// way when the first was refused, at most one for each fetcher.
func TestR01OneModelUnderLimits(t *testing.T) {
	inRoomWith(t, fleet(16), furniture{}, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		limits := map[hubtest.Route]string{hubtest.Tree: "api", hubtest.Head: "resolvers"}
		for route, bucket := range limits {
			r.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: route, Nth: 1, Status: 429, Header: map[string]string{"RateLimit": `"` + bucket + `";r=0;t=5`}})
		}
		for _, res := range r.together("org/m") {
			checkSnapshot(t, res.Path, outline)
		}
		st := r.hub.Stats()
		t.Logf("status %v, calls %v", st.Status, st.Calls)
		if st.Calls[hubtest.Info] != 1 || st.Calls[hubtest.Tree] != 2 || st.Status[429] > 1+8 || st.BodyBytes != modelSize {
			t.Errorf("%d bytes, calls %v, status %v", st.BodyBytes, st.Calls, st.Status)
		}
	})
}

// R10: the repository was renamed.
//
// The redirect is followed, and the cache has the name that was asked for.
func TestR10CacheKeepsTheName(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		outline := r.hub.Outline("org/m", r.model("org/m"))
		r.hub.AddRepo(hubtest.RepoSpec{ID: "old/name", RenamedTo: "org/m"})
		res, err := r.units[0].fetch("old/name", nil)
		r.must(err)
		checkSnapshot(t, res.Path, outline)
		if rel, err := filepath.Rel(filepath.Join(r.units[0].node.Dir, "hub", "models--old--name"), res.Path); err != nil || strings.HasPrefix(rel, "..") {
			t.Errorf("it is in %s", res.Path)
		}
	})
}

// R11: a branch moves while it is fetched.
//
// Everything is of the commit that the branch meant at the start, and so is the
// ref. The next fetch sees the new commit and gets only what differs.
func TestR11BranchMovesDuringAFetch(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		old := r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Path: bigShard, Rate: 1 << 20})
		var moved pieces.Commit
		res, err := r.units[0].fetch("org/m", func(q *agent.Request) {
			q.Watch = func(v agent.Job) {
				if v.Status == agent.Fetching && moved == "" {
					moved = r.hub.Push("org/m", "main", []hubtest.File{
						{Path: bigShard, Content: hubtest.Generated(1, 9<<20)}, {Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":2}`))},
					})
				}
			}
		})
		r.must(err)
		ref := filepath.Join(res.Path, "..", "..", "refs", "main")
		if raw, err := os.ReadFile(ref); err != nil || string(raw) != string(old) || res.Commit != string(old) {
			t.Errorf("the ref is %q, %v; fetched %s, want %s", raw, err, res.Commit, old)
		}
		checkSnapshot(t, res.Path, r.hub.Outline("org/m", old))
		r.hub.Heal()
		if res, err = r.units[0].fetch("org/m", nil); err != nil || res.Commit != string(old) {
			t.Errorf("at once: %s, %v; the swarm's answer holds for 30 s", res.Commit, err)
		}
		time.Sleep(31 * time.Second)
		r.hub.ResetStats()
		res, err = r.units[0].fetch("org/m", nil)
		r.must(err)
		if raw, err := os.ReadFile(ref); err != nil || res.Commit != string(moved) || string(raw) != string(moved) || r.hub.Stats().BodyBytes != 7 {
			t.Errorf("moved to %s: %+v, ref %q, the Hub sent %d bytes", moved, res, raw, r.hub.Stats().BodyBytes)
		}
	})
}
