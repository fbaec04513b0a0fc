package cachefs

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// breakIf makes steps fail as long as it is on.
type breakIf struct {
	on   atomic.Bool
	err  error
	what func(op durable.Op) bool
}

func (b *breakIf) hook(op durable.Op, do func() error) error {
	if b.on.Load() && b.what(op) {
		return b.err
	}
	return do()
}

// After a failed sync nothing is published, and nothing is written any more.
func TestFailedSyncPublishesNothing(t *testing.T) {
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	inHub := func(op durable.Op) bool { return strings.HasSuffix(op.Root.Name(), "/hub") }
	for name, what := range map[string]func(op durable.Op) bool{
		"of pieces": func(op durable.Op) bool {
			return op.Kind == durable.SyncData && !strings.HasSuffix(op.Name, journalSuffix)
		},
		"of journal": func(op durable.Op) bool {
			return op.Kind == durable.SyncData && strings.HasSuffix(op.Name, journalSuffix)
		},
		"of blob":   func(op durable.Op) bool { return op.Kind == durable.Sync && strings.HasPrefix(op.Name, partialDir) },
		"of blobs/": func(op durable.Op) bool { return op.Kind == durable.SyncDir && strings.HasSuffix(op.Name, blobsDir) },
		"of snapshot": func(op durable.Op) bool {
			return op.Kind == durable.SyncDir && strings.Contains(op.Name, string(commitA))
		},
		"of ref": func(op durable.Op) bool {
			return op.Kind == durable.SyncDir && inHub(op) && op.Name == repoA.Folder()+"/refs"
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fault := &breakIf{err: syscall.EIO, what: what}
			r.sys.hook = fault.hook
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			putAll(t, c, ps, 0, 1, 2, 3, 4)
			fault.on.Store(true)
			o := &pieces.Outline{Repo: repoA, Commit: commitA, Files: []pieces.File{f}}
			err := c.flushAll(t.Context())
			if err == nil {
				err = c.Complete(t.Context(), f.Blob)
			}
			if err == nil {
				_, err = c.Commit(t.Context(), o, o.Files, "main")
			}
			var failed *durable.SyncError
			if !errors.As(err, &failed) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("got %v", err)
			}
			if name != "of ref" {
				noRef(t, r)
			}
			fault.on.Store(false) // the next sync would succeed, and prove nothing
			for what, err := range map[string]error{
				"put": c.Put(t.Context(), ps[0]), "begin": c.Begin(t.Context(), repoB, []pieces.Blob{f.Blob}), "probe": c.Writable(),
			} {
				if !errors.Is(err, syscall.EIO) {
					t.Errorf("%s after a failed sync: %v", what, err)
				}
			}
			if err := c.Run(t.Context()); !errors.Is(err, syscall.EIO) {
				t.Errorf("run: %v", err)
			}
			if name == "of pieces" && c.Held(f.Blob).Count() > 0 {
				t.Errorf("held after their sync failed: %v", heldIn(c, f.Blob))
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			c = r.open(t) // started anew, everything works
			m := model{outline: o, content: map[pieces.Blob][]byte{f.Blob: data}}
			checkHeld(t, c, m)
			checkSnapshot(t, mustFetch(t, c, m, "main"), m)
		})
	}
}

// An error of one write is that Put's own affair.
func TestFailedWrite(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	fault := &breakIf{err: syscall.EIO, what: func(op durable.Op) bool { return op.Kind == durable.Write }}
	r.sys.hook = fault.hook
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	fault.on.Store(true)
	if err := c.Put(t.Context(), ps[0]); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "put piece 0 of "+f.Blob.String()) {
		t.Errorf("got %v", err)
	}
	fault.on.Store(false)
	if c.Held(f.Blob).Has(0) {
		t.Error("held though its write failed")
	}
	putAll(t, c, ps, 0, 1, 2, 3, 4)
	mustComplete(t, c, f.Blob)
}

// S25: there is less room than a snapshot needs.
//
// That is said before a byte moves, with what is needed and what is free; nothing
// is written.
func TestS25NoRoom(t *testing.T) {
	r := newRig(t)
	r.sys.free = func(*os.File) (int64, error) { return 10 << 20, nil }
	c := r.open(t)
	small := lfsFile("small.bin", randomBytes(1, 100))
	huge := pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1}), Size: 60 << 30}
	err := c.Begin(t.Context(), repoA, []pieces.Blob{small.Blob, huge})
	var full *NoSpaceError
	if !errors.As(err, &full) || full.Need != 60<<30+100 || full.Free != 10<<20 || full.Dir != r.hub {
		t.Fatalf("got %v", err)
	}
	if !errors.Is(err, syscall.ENOSPC) || !full.Permanent() {
		t.Errorf("not ENOSPC: %v", err)
	}
	if left := tree(t, r.hub); len(left) > 0 {
		t.Errorf("wrote %v", left)
	}
	checkNoLeftovers(t, r.state)
	if c.Held(small.Blob) != nil {
		t.Error("one of them was begun all the same")
	}
}

// What is reserved or held already does not count again.
func TestNoSpaceCountsWhatIsMissing(t *testing.T) {
	r := newRig(t)
	f, _ := bigBlob()
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	c.sys.free = func(*os.File) (int64, error) { return 1000, nil }
	mustBegin(t, c, repoB, f.Blob) // its blocks are reserved
	c.sys.free = func(*os.File) (int64, error) { return math.MinInt64, nil }
	mustBegin(t, c, repoB)
}

// S25: the disk, or a quota, is full in the middle of any operation.
//
// It fails for good with an error of its own type, nothing half is published, and
// with room again the same work ends well.
func TestS25FullInTheMiddle(t *testing.T) {
	a, _ := crashModels()
	for name, what := range map[string]func(op durable.Op) bool{
		"creating":  func(op durable.Op) bool { return op.Kind == durable.Create },
		"reserving": func(op durable.Op) bool { return op.Kind == durable.Resize },
		"writing":   func(op durable.Op) bool { return op.Kind == durable.Write },
		"syncing":   func(op durable.Op) bool { return op.Kind == durable.SyncData || op.Kind == durable.Sync },
		"folders":   func(op durable.Op) bool { return op.Kind == durable.Mkdir },
		"renaming":  func(op durable.Op) bool { return op.Kind == durable.Rename },
		"links":     func(op durable.Op) bool { return op.Kind == durable.Symlink },
	} {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
			t.Run(name+"/"+unix.ErrnoName(errno), func(t *testing.T) {
				r := newRig(t)
				fault := &breakIf{err: errno, what: what}
				r.sys.hook = fault.hook
				c := r.open(t)
				fault.on.Store(true)
				err := slowFetch(t.Context(), t, c, a)
				var full *NoSpaceError
				if !errors.As(err, &full) || !errors.Is(err, errno) || full.Dir != r.hub {
					t.Fatalf("got %v", err)
				}
				noRef(t, r)
				fault.on.Store(false)
				if err := slowFetch(t.Context(), t, c, a); err != nil {
					t.Fatalf("with room again: %v", err)
				}
				checkTruth(t, r.hub, a)
				checkNoLeftovers(t, r.state)
			})
		}
	}
}

// S25: a filesystem of 16 MiB that somebody else fills.
//
// The kernel's own refusals get the same type, and what is reserved is not taken
// away.
func TestS25SmallFilesystem(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skip("can't mount a tmpfs: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t)
	r.hub, r.state = filepath.Join(dir, "hub"), filepath.Join(dir, "state")
	c, err := open(Options{Hub: r.hub, State: r.state, Signer: signer(2)}, r.sys)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, data := bigBlob() // 17 MiB
	var full *NoSpaceError
	if err := c.Begin(t.Context(), repoA, []pieces.Blob{f.Blob}); !errors.As(err, &full) || full.Need != f.Blob.Size {
		t.Fatalf("a blob that is too long: %v", err)
	}
	m := smallModel()                                              // 9 MiB
	if err := c.Begin(t.Context(), repoA, m.blobs()); err != nil { // reserves
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stranger"), data, 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling up: %v", err)
	}
	err = nil
	for _, b := range m.blobs() {
		for _, v := range cut(t, b, m.content[b]) {
			err = errors.Join(err, c.Put(t.Context(), v))
		}
	}
	if !errors.As(err, &full) {
		t.Fatalf("small blobs have nothing reserved: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "stranger")); err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}

// V08: all pieces match their statements, and the whole is not what the Hub says.
//
// The outline's digest is the Hub's word: the blob is not published, whoever
// signed. Once the liar's pieces are forgotten and fetched again, it is.
func TestV08DigestMismatch(t *testing.T) {
	for _, pieceCount := range []int{1, 5} {
		r := newRig(t)
		f, data := bigBlob()
		if pieceCount == 1 {
			data = data[:1000]
			f = lfsFile("w.bin", data)
		}
		lie := slices.Clone(data)
		lie[10] ^= 1
		lies := pieces.NewCutter(signer(66), f.Blob, 0, 1, nil)
		liar, err := lies.Next(strings.NewReader(string(lie)))
		if err != nil {
			t.Fatal(err)
		}
		honest := cut(t, f.Blob, data)
		c := r.open(t)
		mustBegin(t, c, repoA, f.Blob)
		if err := c.Put(t.Context(), liar); err != nil {
			t.Fatal(err)
		}
		for _, v := range honest[1:] {
			putAll(t, c, []pieces.Verified{v}, 0)
		}
		if err := c.flushAll(t.Context()); err != nil { // the lie is in the journal
			t.Fatal(err)
		}
		for range 2 { // the second answer is the same
			var wrong *pieces.MismatchError
			if err := c.Complete(t.Context(), f.Blob); !errors.As(err, &wrong) || !errors.Is(err, pieces.ErrDigest) || wrong.Index != pieces.WholeBlob {
				t.Fatalf("got %v", err)
			}
		}
		if c.Has(repoA, f.Blob) || !c.Held(f.Blob).Full() {
			t.Error("published, or pieces lost")
		}
		if left, _ := os.ReadDir(filepath.Join(r.hub, blobsOf(repoA.Folder()))); len(left) > 0 {
			t.Errorf("published %v", left)
		}
		byLiar := func(s pieces.Statement) bool { return s.Maker == signer(66).Maker() }
		if err := c.Forget(f.Blob, byLiar); err != nil {
			t.Fatal(err)
		}
		if c.Held(f.Blob).Has(0) || c.Held(f.Blob).Count() != f.Blob.Pieces()-1 {
			t.Errorf("held %v", heldIn(c, f.Blob))
		}
		if pieceCount > 1 { // the journal forgot it too
			mustClose(t, c)
			c = r.open(t)
			if got := heldIn(c, f.Blob); !slices.Equal(got, []int{1, 2, 3, 4}) {
				t.Errorf("held after a restart: %v", got)
			}
			mustBegin(t, c, repoA, f.Blob)
		}
		putAll(t, c, honest, 0)
		mustComplete(t, c, f.Blob)
		if err := c.Forget(f.Blob, func(pieces.Statement) bool { return true }); err != nil || !c.Held(f.Blob).Full() {
			t.Errorf("a whole blob was forgotten: %v", err)
		}
	}
}

func TestNotBegun(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	c := r.open(t)
	if err := c.Put(t.Context(), cut(t, f.Blob, data)[0]); !errors.Is(err, ErrNotBegun) {
		t.Errorf("put: %v", err)
	}
	if err := c.Complete(t.Context(), f.Blob); !errors.Is(err, ErrNotBegun) {
		t.Errorf("complete: %v", err)
	}
	for _, i := range []int{-1, 0, 5} {
		if _, err := c.OpenPiece(f.Blob, i); !errors.Is(err, ErrNotHeld) {
			t.Errorf("open piece %d: %v", i, err)
		}
	}
	if c.Held(f.Blob) != nil || c.Statements(f.Blob) != nil {
		t.Error("something is held")
	}
	if err := errors.Join(c.Abandon(f.Blob), c.Forget(f.Blob, nil)); err != nil {
		t.Error(err)
	}
	mustClose(t, c)
	if err := c.Begin(t.Context(), repoA, []pieces.Blob{f.Blob}); !errors.Is(err, ErrClosed) {
		t.Errorf("begin after close: %v", err)
	}
}

// A cancelled call ends with the cause, and what it did not do can be done again.
func TestCancelled(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	c := r.open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	mustBegin(t, c, repoA, f.Blob)
	if err := c.Put(ctx, ps[0]); !errors.Is(err, stop) {
		t.Errorf("put: %v", err)
	}
	putAll(t, c, ps, 4, 3, 2, 1, 0)
	if err := c.Complete(ctx, f.Blob); !errors.Is(err, stop) {
		t.Errorf("complete: %v", err)
	}
	mustComplete(t, c, f.Blob)
	leave(t, r, repoB, ps[0].Blob(), data)
	c.withdraw(c.findWhole(f.Blob), "test")
	if err := c.Begin(ctx, repoB, []pieces.Blob{f.Blob}); !errors.Is(err, stop) {
		t.Errorf("begin: %v", err)
	}
	if _, err := c.Verify(ctx, pieces.Ref{Repo: repoA, Revision: "main"}, nil); !errors.Is(err, ErrNotCached) {
		t.Errorf("verify: %v", err)
	}
}
