package agent_test

import (
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
)

// view looks a ref up within a minute.
func (u *unit) view(ref string) *agent.View {
	u.room.t.Helper()
	v, err := u.viewAs("", ref)
	u.room.must(err)
	return v
}

func (u *unit) viewAs(token, ref string) (*agent.View, error) {
	ctx, cancel := context.WithTimeout(u.room.t.Context(), time.Minute)
	defer cancel()
	return u.View(ctx, u.room.ref(ref), token, false)
}

// read reads a file of a view from its begin to its end, as it lands.
func (u *unit) read(v *agent.View, path string) ([]byte, error) { return u.readAs("", v, path) }

func (u *unit) readAs(token string, v *agent.View, path string) ([]byte, error) {
	f, ok := v.File(path)
	if !ok {
		return nil, errors.New("no file " + path)
	}
	c := u.Read(v, f, token)
	defer c.Close()
	ctx, cancel := context.WithTimeout(u.room.t.Context(), time.Minute)
	defer cancel()
	out := make([]byte, f.Blob.Size)
	for at := int64(0); at < f.Blob.Size; {
		n, err := c.Await(ctx, at)
		if err != nil {
			return nil, err
		}
		if _, err := c.ReadAt(out[at:at+n], at); err != nil {
			return nil, err
		}
		at += n
	}
	return out, nil
}

func (r *room) refOnDisk(u *unit, repo, revision string) string {
	raw, err := os.ReadFile(filepath.Join(u.node.Dir, "hub", "models--"+strings.ReplaceAll(repo, "/", "--"), "refs", revision))
	if err != nil {
		return ""
	}
	return string(raw)
}

// Files that are read one by one, on all nodes at once, cost one copy, one resolve
// and one listing; when the last one is here the snapshot is a full one, and the
// branch that was asked for means it.
func TestReadFileByFile(t *testing.T) {
	inRoom(t, 3, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		outline := r.hub.Outline("org/m", commit)
		var wg sync.WaitGroup
		for _, u := range r.units {
			for _, f := range outline.Files {
				wg.Go(func() {
					v := u.view("org/m")
					if f.Blob.Size == 0 { // as a HEAD does
						c := u.Read(v, f, "")
						r.check(errors.Join(c.Start(), c.Close()))
						return
					}
					got, err := u.read(v, f.Path)
					h := f.Blob.NewHash()
					h.Write(got)
					if err := errors.Join(err, f.Blob.Check(h)); err != nil {
						t.Errorf("%s: %v", f.Path, err)
					}
				})
			}
		}
		wg.Wait()
		time.Sleep(time.Second) // the last commits
		for _, u := range r.units {
			s, _, err := u.Show(r.ref("org/m"))
			if err != nil || !s.Complete || s.Commit != string(commit) || r.refOnDisk(u, "org/m", "main") != string(commit) {
				t.Errorf("snapshot %+v %v", s, err)
				continue
			}
			checkSnapshot(t, s.Path, outline)
			if _, err := os.Stat(filepath.Join(s.Path, "..", "..", "trees", string(commit)+".json")); err != nil {
				t.Error(err)
			}
		}
		stats := r.hub.Stats()
		if stats.BodyBytes != modelSize || stats.Calls[hubtest.Info] != 1 || stats.Calls[hubtest.Tree] != 1 {
			t.Errorf("the Hub sent %d bytes of %d, calls %v", stats.BodyBytes, modelSize, stats.Calls)
		}
	})
}

// A reader in the middle of a large file gets its piece before what lies in front
// of it, though the Hub is slow.
func TestReadFromTheMiddle(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/big", Files: []hubtest.File{{Path: "w", Content: hubtest.Generated(1, 60<<20)}}})
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Rate: 1 << 20})
		u := r.units[0]
		v := u.view("org/big")
		f, _ := v.File("w")
		c := u.Read(v, f, "")
		defer c.Close()
		began := time.Now()
		if _, err := c.Await(t.Context(), 40<<20); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 10*time.Second { // 4 MiB at 1 MiB/s, and not 40
			t.Errorf("it took %v", took)
		}
	})
}

// G22: a client that goes away in the middle of a body.
//
// What it asked for is brought here all the same and ends in the cache: it, or
// another client, will come again.
func TestG22DownloadGoesOn(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Path: "model-1.safetensors", Rate: 1 << 20})
		u := r.units[0]
		v := u.view("org/m")
		f, _ := v.File("model-1.safetensors")
		c := u.Read(v, f, "")
		ctx, leave := context.WithCancelCause(t.Context())
		time.AfterFunc(2*time.Second, func() { leave(errGone) })
		if _, err := c.Await(ctx, 0); !errors.Is(err, errGone) {
			t.Fatalf("got %v", err)
		}
		r.must(c.Close())
		if c.Whole() != nil {
			t.Fatal("it was there before it could be")
		}
		time.Sleep(30 * time.Second)
		if whole := u.Read(v, f, "").Whole(); whole == nil {
			t.Errorf("it is not here: %+v", u.Jobs())
		} else {
			whole.Close()
		}
		if got := r.refOnDisk(u, "org/m", "main"); got == "" {
			t.Error("a branch that the cache did not know means nothing")
		}
	})
}

// G23: the meaning of a branch is kept for one download.
//
// A branch that moves at the Hub keeps its meaning for a minute, and as long as
// files are read by it; then the new commit is seen.
func TestG23PinnedCommit(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		first := r.model("org/m")
		u := r.units[0]
		if got := u.view("org/m").Outline.Commit; got != first {
			t.Fatal(got)
		}
		second := r.hub.Push("org/m", "main", []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("new"))}})
		for range 5 {
			time.Sleep(40 * time.Second)
			v, err := u.View(t.Context(), r.ref("org/m"), "", true)
			r.must(err)
			if v.Outline.Commit != first {
				t.Fatal("the commit changed while files were read")
			}
		}
		time.Sleep(61 * time.Second)
		if got := u.view("org/m").Outline.Commit; got != second {
			t.Errorf("a minute after the last read: %s", got)
		}
	})
}

// G24: the Hub is down and the model in the swarm.
//
// Information, listing, refs and files come from the cache and from other members;
// a repository that was open is open.
func TestG24HubDown(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		_, err := r.units[0].fetch("org/m", nil)
		r.must(err)
		time.Sleep(2 * time.Hour) // nothing is fresh any more
		r.hub.Fail(hubtest.Fault{Do: hubtest.Status, Status: 503})
		for i, u := range r.units {
			v := u.view("org/m")
			if v.Outline.Commit != commit {
				t.Fatalf("unit %d: %s", i, v.Outline.Commit)
			}
			if err := u.MayRead(t.Context(), v, ""); err != nil {
				t.Errorf("unit %d: %v", i, err)
			}
			if got, err := u.read(v, "config.json"); err != nil || string(got) != `{"a":1}` {
				t.Errorf("unit %d: %q %v", i, got, err)
			}
		}
		refs, err := r.units[0].Refs(t.Context(), r.ref("org/m").Repo, "")
		if err != nil || refs["refs/heads/main"] != commit {
			t.Errorf("refs %v %v", refs, err)
		}
	})
}

// Who may read a repository is learned with its commit, by all members, and kept
// over a restart; a restricted one is asked for with the caller's token.
func TestAccess(t *testing.T) {
	inRoom(t, 2, func(t *testing.T, r *room) {
		r.model("org/open")
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/gated", Gated: true, Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}})
		for _, u := range r.units {
			open, gated := u.view("org/open"), u.view("org/gated")
			if !u.Open(open) || u.Open(gated) {
				t.Errorf("open %v, gated %v", u.Open(open), u.Open(gated))
			}
			if err := u.MayRead(t.Context(), gated, ""); !errors.As(err, new(interface{ Permanent() bool })) {
				t.Errorf("gated for nobody: %v", err)
			}
		}
		stats := r.hub.Stats()
		if stats.Calls[hubtest.Info] != 2 {
			t.Errorf("calls %v", stats.Calls)
		}
		// By its commit alone, on another member: the outline's record says it.
		byCommit := r.units[1].view("org/open@" + string(r.units[0].view("org/open").Outline.Commit))
		if !r.units[1].Open(byCommit) {
			t.Error("a commit of an open repository")
		}
		_, err := r.units[0].fetch("org/open", nil)
		r.must(err)
		u := r.restart(0, func(o *agent.Options) { o.Offline = true })
		v := u.view("org/open")
		if u.Open(v) || u.MayRead(t.Context(), v, "") != nil {
			t.Error("after a restart without a Hub it is not open")
		}
		if err := u.MayRead(t.Context(), r.units[1].view("org/gated"), "hf_x"); agentError(err).Kind != agent.Denied {
			t.Errorf("a gated one without a Hub: %v", err)
		}
	})
}

// A commit that callers asked for by its id alone gets no ref, a branch that means
// it later does.
func TestReadByCommit(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		r.hub.Tag("org/m", "v1", commit)
		u := r.units[0]
		v := u.view("org/m@" + string(commit))
		for _, f := range v.Outline.Files {
			c := u.Read(v, f, "")
			r.check(errors.Join(c.Start(), c.Close()))
		}
		time.Sleep(10 * time.Second)
		if s, _, err := u.Show(r.ref("org/m@" + string(commit))); err != nil || !s.Complete || len(s.Revision) > 0 {
			t.Errorf("%+v %v", s, err)
		}
		u.view("org/m@v1")
		u.view("org/m")
		if s, _, err := u.Show(r.ref("org/m")); err != nil || !slices.Equal(s.Revision, []string{"main", "v1"}) {
			t.Errorf("%+v %v", s, err)
		}
		// What is removed is brought again.
		_, err := u.Remove(t.Context(), agent.RemoveRequest{Ref: r.ref("org/m")})
		r.must(err)
		if got, err := u.read(u.view("org/m"), "config.json"); err != nil || string(got) != `{"a":1}` {
			t.Errorf("%q %v", got, err)
		}
	})
}

func TestReadErrors(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.model("org/m")
		u := r.units[0]
		for ref, kind := range map[string]agent.Kind{"org/none": agent.NotFound, "org/m@v9": agent.NotFound} {
			if _, err := u.View(t.Context(), r.ref(ref), "", false); agentError(err).Kind != kind {
				t.Errorf("%s: %v", ref, err)
			}
		}
		v := u.view("org/m")
		r.hub.Fail(hubtest.Fault{Do: hubtest.Status, Status: 404, Code: "EntryNotFound", Path: "config.json"})
		if _, err := u.read(v, "config.json"); err == nil {
			t.Error("a file that the Hub refuses was read")
		}
		if _, err := u.Ensure(t.Context(), agent.Request{Ref: r.ref("org/m"), Path: "none"}); agentError(err).Kind != agent.NotFound {
			t.Errorf("no such file: %v", err)
		}
	})
}

// G25: a renamed repository.
//
// It is answered under the name that was asked for, and lies in the cache under
// that.
func TestG25RenamedRepository(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/old", RenamedTo: "org/m"})
		u := r.units[0]
		v := u.view("org/old")
		if v.Outline.Repo.Name != "org/old" || v.Outline.Commit != commit {
			t.Errorf("%s at %s", v.Outline.Repo, v.Outline.Commit)
		}
		if got, err := u.read(v, "config.json"); err != nil || string(got) != `{"a":1}` {
			t.Errorf("%q %v", got, err)
		}
		time.Sleep(time.Second)
		if r.refOnDisk(u, "org/old", "main") != string(commit) {
			t.Error("it is not in the cache under its old name")
		}
	})
}

// Small files that share an extent, read by eight workers on each of three nodes
// that don't keep step: every one leaves the Hub once.
func TestReadManySmallFiles(t *testing.T) {
	inRoom(t, 3, func(t *testing.T, r *room) {
		var files []hubtest.File
		for i := range 48 {
			files = append(files, hubtest.File{Path: fmt.Sprintf("f%02d", i), Content: hubtest.Generated(uint64(i), int64(1000*(i+1)))})
		}
		commit := r.hub.AddRepo(hubtest.RepoSpec{ID: "org/small", Files: files})
		var wg sync.WaitGroup
		for n, u := range r.units {
			next := make(chan string)
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 17 * time.Millisecond)
				for _, f := range files {
					next <- f.Path
				}
				close(next)
			})
			for range 8 {
				wg.Go(func() {
					for path := range next {
						if _, err := u.read(u.view("org/small@"+string(commit)), path); err != nil {
							t.Errorf("%s: %v", path, err)
						}
					}
				})
			}
		}
		wg.Wait()
		if got := r.hub.MaxCoverage(""); got != 1 {
			t.Errorf("%v copies, one byte %d times", r.hub.Copies(), got)
		}
	})
}
