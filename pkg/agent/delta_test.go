package agent_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// revised is a repository of one file of four pieces, and its next revision, of which
// some bytes of the last piece are others.
type revised struct {
	*room
	old, now *pieces.Outline
}

const (
	revisedSize = 16 << 20
	revisedPart = 200_000 // of the last piece
	revisedMost = revisedPart + 1<<20
)

// inRevised runs test on a member that has the first revision. layouts is where it
// notes what files are made of.
func inRevised(t *testing.T, f furniture, test func(r *revised, u *unit, layouts string)) {
	t.Helper()
	f.hub, f.retries, f.taps = hubtest.Options{Xet: &hubtest.Xet{Plain: true, Dedup: true}}, -1, &taps{}
	inRoomWith(t, 1, f, func(t *testing.T, r *room) {
		first := noise(1, revisedSize)
		second := bytes.Clone(first)
		copy(second[revisedSize-1<<20:], noise(2, revisedPart))
		old := r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: oneFile("model.safetensors", first)})
		r.allGet(old)
		now := r.hub.Push("org/m", "main", oneFile("model.safetensors", second))
		time.Sleep(time.Minute) // longer than a name may be old
		test(&revised{r, r.hub.Outline("org/m", old), r.hub.Outline("org/m", now)}, r.units[0], filepath.Join(r.units[0].node.Dir, "state", "layouts"))
	})
}

// next fetches the second revision and compares it.
func (r *revised) next(u *unit) agent.Result {
	r.t.Helper()
	res, err := u.fetch("org/m", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	checkSnapshot(r.t, res.Path, r.now)
	return res
}

// said counts the lines of the log that have a text.
func (r *revised) said(text string) int {
	return bytes.Count(r.furniture.taps.logs.heard(), []byte(text))
}

// smallDisk is a cache whose disk has no room for pieces of a file but the first two
// and the last.
type smallDisk struct {
	*cachefs.Cache
	full *atomic.Bool
}

func (s *smallDisk) Put(ctx context.Context, v pieces.Verified) error {
	if i := v.Index(); s.full.Load() && 2 <= i && i < v.Blob().Pieces()-1 {
		return &cachefs.NoSpaceError{Need: int64(len(v.Bytes())), Dir: "/cache", Err: syscall.ENOSPC}
	}
	return s.Cache.Put(ctx, v)
}

// S25: the disk is full while bytes are copied from an older file.
//
// The job ends with that error. The older file and the pieces that were copied before
// stay; with room again nothing is fetched but what is not here.
func TestS25FullWhileCopying(t *testing.T) {
	var full atomic.Bool
	store := func(c *cachefs.Cache) swarm.Store { return &smallDisk{c, &full} }
	inRevised(t, furniture{store: store}, func(r *revised, u *unit, _ string) {
		full.Store(true)
		r.hub.ResetStats()
		_, err := u.fetch("org/m", nil)
		if e := agentError(err); e.Kind != agent.NoSpace || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("got %v", err)
		}
		checkSnapshot(t, filepath.Join(u.node.Dir, "hub", "models--org--m", "snapshots", string(r.old.Commit)), r.old)
		if held := u.cache.Held(r.now.Files[0].Blob); !held.Has(0) || held.Has(2) {
			t.Error("the pieces that there was room for are not here, or others")
		}
		full.Store(false)
		if res := r.next(u); res.Upstream > revisedMost || res.Here < revisedSize-revisedMost {
			t.Errorf("with room again %d bytes came from upstream, %d were here", res.Upstream, res.Here)
		}
		synctest.Wait() // the store counts when it has sent all
		if sent := r.hub.Stats().StoredBytes; sent > 2*revisedMost {
			t.Errorf("the store sent %d bytes", sent)
		}
	})
}

// A disk changed a byte of the older file: its statement shows that before it is
// copied, and that piece alone is fetched.
func TestSpoiledOldFile(t *testing.T) {
	inRevised(t, furniture{}, func(r *revised, u *unit, _ string) {
		path := filepath.Join(u.node.Dir, "hub", "models--org--m", "blobs", r.old.Files[0].Blob.Digest.String())
		was, err := os.Stat(path)
		r.must(err)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		r.must(err)
		_, err = f.WriteAt([]byte("spoiled"), 9<<20)
		r.must(errors.Join(err, f.Close(), os.Chtimes(path, was.ModTime(), was.ModTime()))) // as a disk does it
		const piece = 4 << 20
		if res := r.next(u); res.Upstream < piece || res.Upstream > piece+revisedMost || r.said("not what it was on the disk") == 0 {
			t.Errorf("%d bytes from upstream; log %s", res.Upstream, r.furniture.taps.logs.heard())
		}
	})
}

// What is noted of layouts is a hint. A note that can't be read is asked for again;
// where none can be written, the file comes as if nothing were here. The log says so.
func TestSpoiledLayouts(t *testing.T) {
	if testing.Short() {
		t.Skip("six fetches, one after the other")
	}
	for name, row := range map[string]struct {
		spoil func(note string) error
		says  string
		most  int64 // from upstream
	}{
		"garbage": {func(note string) error { return os.WriteFile(note, []byte(strings.Repeat("no ", 99)), 0o600) }, "layout dropped", revisedMost},
		"gone":    {os.Remove, "layout dropped", revisedMost},
		"can't be read or written": {func(note string) error {
			return errors.Join(os.Remove(note), os.MkdirAll(filepath.Join(note, "something"), 0o700))
		}, "layout not noted", revisedSize},
	} {
		t.Run(name, func(t *testing.T) {
			inRevised(t, furniture{}, func(r *revised, u *unit, layouts string) {
				r.must(row.spoil(filepath.Join(layouts, r.old.Files[0].Xet.String())))
				if res := r.next(u); res.Upstream > row.most || r.said(row.says) == 0 {
					t.Errorf("%d bytes from upstream; log %s", res.Upstream, r.furniture.taps.logs.heard())
				}
			})
		})
	}
}

// The disk of the layouts is full: they are not noted, and what they say of the next
// revision is of no use. When there is room they are, by the same questions.
func TestNoRoomForLayouts(t *testing.T) {
	if os.Getuid() != 0 || testing.Short() {
		t.Skip("needs root to mount a small tmpfs, and time")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("can't mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	inRevised(t, furniture{}, func(r *revised, _ *unit, _ string) {
		u := r.restart(0, func(o *agent.Options) { o.Deltas = r.deltas(dir) })
		if err := os.WriteFile(filepath.Join(dir, "stranger"), make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("filling up: %v", err)
		}
		if res := r.next(u); res.Upstream < revisedSize || r.said("layout not noted") == 0 || r.said("no space left on device") == 0 {
			t.Errorf("%d bytes from upstream; log %s", res.Upstream, r.furniture.taps.logs.heard())
		}
		r.must(os.Remove(filepath.Join(dir, "stranger")))
		third := r.hub.Push("org/m", "main", oneFile("model.safetensors", append(noise(3, 1234), noise(1, revisedSize)...)))
		time.Sleep(time.Minute)
		r.now = r.hub.Outline("org/m", third)
		if res := r.next(u); res.Upstream > revisedMost {
			t.Errorf("with room again %d bytes came from upstream", res.Upstream)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "layouts", "new")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}
