package cachefs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pagent/pkg/pieces"
)

var mainB = pieces.Ref{Repo: repoB, Revision: "main"}

// A removal is cut short before any step, and the agent starts again.
//
// Until then a client sees the whole snapshot or nothing of it. The start alone, with
// no second rm, ends either as if rm had never been asked for, when nothing had
// gone yet, or with nothing left; what shares a blob with it stays whole.
func TestRemovalCutShort(t *testing.T) {
	a, b := crashModels()
	made := func(r *crashRig) {
		if r.life(t, func(c *Cache) error { mustFetch(t, c, a, "main"); mustFetch(t, c, b, "main"); return nil }) {
			t.Fatal("crashed by itself")
		}
	}
	remove := func(c *Cache) error { return second2(c.Remove(mainB, nil)) }
	before, after := newCrashRig(t, func(*rig) {}), newCrashRig(t, func(*rig) {})
	made(before)
	made(after)
	first := after.disk.Steps()
	if after.life(t, remove) {
		t.Fatal("crashed by itself")
	}
	whole, gone, steps := tree(t, before.hub), tree(t, after.hub), after.disk.Steps()
	if len(whole) == len(gone) {
		t.Fatal("nothing was removed")
	}
	ends := map[bool]int{}
	const every = 3 // each mode its own third, as in C07
	for mode := range every {
		for stop := first + 1 + mode; stop <= steps; stop += every {
			t.Run(fmt.Sprintf("mode%d/step%d", mode, stop), func(t *testing.T) {
				r := newCrashRig(t, func(*rig) {})
				made(r)
				r.disk.StopAt = stop
				if !r.life(t, remove) {
					t.Skip("over before") // opening took the steps
				}
				r.cut(t, mode, stop)
				checkTruth(t, r.hub, a, b)
				r.disk.StopAt = 0
				kept := false
				r.life(t, func(c *Cache) error {
					checkHeld(t, c, a, b)
					_, err := c.Snapshot(pieces.Ref{Repo: repoB, Revision: string(b.outline.Commit)})
					kept = err == nil
					return nil
				})
				checkNoLeftovers(t, r.state)
				checkTruth(t, r.hub, a, b)
				ends[kept]++
				switch now := tree(t, r.hub); {
				case !kept:
					diff(t, now, gone)
				case mode == 0: // the watched disk makes folders anew after a power cut, as a client would
					diff(t, now, whole)
				}
			})
		}
	}
	if ends[true] == 0 || ends[false] == 0 {
		t.Errorf("ends %v: both were to be seen", ends)
	}
}

func second2(_ int64, err error) error { return err }

// A client fetched the snapshot again, or uses it, before the agent came back.
func TestRemovalNotFinishedAgainstAClient(t *testing.T) {
	m := smallModel()
	snapshot := func(r *rig) string { return filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA)) }
	hold := func(t *testing.T, path string) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
	}
	for name, client := range map[string]func(t *testing.T, r *rig){
		"wrote a reference": func(t *testing.T, r *rig) {
			ref, later := filepath.Join(r.hub, repoA.Folder(), refsDir, "v2"), time.Now().Add(time.Second)
			if err := errors.Join(os.WriteFile(ref, []byte(commitA), 0o644), os.Chtimes(ref, later, later)); err != nil {
				t.Fatal(err)
			}
		},
		"added a file": func(t *testing.T, r *rig) { os.WriteFile(filepath.Join(snapshot(r), "new"), nil, 0o644) },
		"made it anew": func(t *testing.T, r *rig) {
			old := snapshot(r)
			if err := errors.Join(os.Rename(old, old+".old"), os.CopyFS(old, os.DirFS(old+".old")), os.RemoveAll(old+".old")); err != nil {
				t.Fatal(err)
			}
		},
		"reads it": func(t *testing.T, r *rig) { hold(t, filepath.Join(snapshot(r), "config.json")) },
		"holds a lock": func(t *testing.T, r *rig) {
			files := clientLocks(t, r.hub, m)
			syscall.Flock(int(files[0].Fd()), syscall.LOCK_EX)
		},
		"nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			r := newDiskRig(t)
			c := r.open(t)
			mustFetch(t, c, m, "main")
			cut, err := c.planRemoval(repoA, commitA)
			if err := errors.Join(err, c.noteRemoval(cut), c.Close()); err != nil {
				t.Fatal(err)
			}
			if client != nil {
				client(t, r)
			}
			c = r.open(t)
			_, err = c.Snapshot(pieces.Ref{Repo: repoA, Revision: string(commitA)})
			if stays := err == nil; stays != (client != nil) {
				t.Errorf("stays: %v (%v)", stays, err)
			}
			if client != nil {
				for _, b := range m.blobs() {
					if !c.Has(repoA, b) {
						t.Errorf("%s is gone", b)
					}
				}
			}
			if left, err := os.ReadDir(filepath.Join(r.state, removalDir)); err != nil || len(left) > 0 {
				t.Errorf("left %v, %v", left, err)
			}
		})
	}
}

// A note that can't be read is dropped, and nothing is removed by it.
func TestRemovalNoteNotReadable(t *testing.T) {
	m := smallModel()
	name := repoA.Folder() + "@" + string(commitA)
	for file, text := range map[string]string{
		name: "", "x": removalHead + "\n1 2\n", name + "@": removalHead + "\n1 2\n",
		repoA.Folder() + "@main": removalHead + "\n1 2\n", repoA.Folder() + "@" + strings.Repeat("e", 40): removalHead + "\n1 2\n../../../x\n",
	} {
		r := newRig(t)
		c := r.open(t)
		mustFetch(t, c, m, "main")
		if err := errors.Join(c.Close(), os.WriteFile(filepath.Join(r.state, removalDir, file), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		checkSnapshot(t, mustFetch(t, r.open(t), m, "main"), m)
		if _, err := os.Lstat(filepath.Join(r.state, removalDir, file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q stays: %v", file, err)
		}
	}
}

// Who uses a snapshot: a process that has a blob open by any of its names, this one
// while it sends a piece, a client that holds a lock; not a file that was read.
func TestInUse(t *testing.T) {
	r, m := newDiskRig(t), smallModel()
	c := r.open(t)
	dir := mustFetch(t, c, m, "main")
	check := func(what string, want string) {
		t.Helper()
		if why, err := c.InUse(repoA, commitA); err != nil || !strings.Contains(why, want) || want == "" && why != "" {
			t.Errorf("%s: %q, %v; want %q", what, why, err, want)
		}
	}
	check("nobody", "")
	readPiece(t, c, m.blobs()[1], 0)
	check("a piece was read", "")
	piece, err := c.OpenPiece(m.blobs()[1], 0)
	if err != nil {
		t.Fatal(err)
	}
	check("a piece is being sent", "is open")
	piece.Close()
	f, err := os.Open(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	check("a client reads", "config.json is open")
	f.Close()
	locks := clientLocks(t, r.hub, m)
	check("locks lie around", "")
	if err := syscall.Flock(int(locks[0].Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	check("a client downloads", "a Hub client holds ")
	syscall.Flock(int(locks[0].Fd()), syscall.LOCK_UN)
	check("it is done", "")
}

// Snapshots of one repository share names, those of two share files; what a Hub
// client made is not ours until somebody asks for it.
func TestHoldings(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	other := smallModel()
	other.outline.Repo = repoB
	mustFetch(t, c, other, "main")
	if err := c.state.Remove(outlineName(repoB, commitA)); err != nil { // as a client leaves it
		t.Fatal(err)
	}
	got, err := c.Holdings()
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	theirs, ours := got[0], got[1] // datasets come first
	if theirs.Ours || !ours.Ours || len(ours.Names) != len(m.blobs()) || len(theirs.Names) != len(ours.Names) {
		t.Errorf("%+v\n%+v", theirs, ours)
	}
	inodes := map[uint64]bool{}
	for _, n := range append(ours.Names, theirs.Names...) {
		inodes[n.Inode] = true
		if n.Links != 2 {
			t.Errorf("%+v", n)
		}
	}
	if len(inodes) != len(m.blobs()) {
		t.Errorf("%d files", len(inodes))
	}
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	if err := os.Chtimes(filepath.Join(r.hub, ours.Names[0].Path), later, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got, err = c.Holdings(); err != nil || !got[1].Read.Equal(later) {
		t.Errorf("read at %v, want %v, %v", got[1].Read, later, err)
	}
}

// A quota counts what is there, whoever put it there, and what was begun; what is
// there already needs nothing.
func TestQuota(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	room, err := c.Room()
	if err != nil || room.Used != m.outline.Size() || room.Quota != 0 || room.Left() != room.Free || room.Disk < room.Free {
		t.Fatalf("%+v, %v", room, err)
	}
	c.quota = room.Used + 1000
	begin := func(seed uint64, n int) (pieces.Blob, error) {
		data := randomBytes(seed, n)
		f := lfsFile(fmt.Sprint(seed), data)
		return f.Blob, c.Begin(t.Context(), repoB, []pieces.Blob{f.Blob, m.blobs()[1]}) // the second is linked
	}
	full, err := begin(21, 1001)
	if no, ok := errors.AsType[*NoSpaceError](err); !ok || no.Need != 1001 || no.Free != 1000 || no.Quota != c.quota {
		t.Fatalf("over the quota: %v", err)
	}
	if c.Held(full) != nil {
		t.Error("begun all the same")
	}
	if _, err := begin(22, 600); err != nil {
		t.Fatal(err)
	}
	if _, err := begin(22, 600); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if _, err := begin(23, 600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("with what was begun, too much: %v", err)
	}
	if room, err := c.Room(); err != nil || room.Left() != 400 {
		t.Errorf("%+v, %v", room, err)
	}
}
