package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"p2pagent/internal/durable"
	"p2pagent/internal/durable/durabletest"
)

// disk is two roots that a Disk watches: made is where things are staged.
type disk struct {
	*durabletest.Disk
	dir, made, out string
}

func newDisk(t *testing.T) *disk {
	t.Helper()
	dir := t.TempDir()
	d := &disk{dir: dir, made: filepath.Join(dir, "top", "made"), out: filepath.Join(dir, "top", "out")}
	for _, folder := range []string{filepath.Join(d.made, "tmp"), d.out, filepath.Join(dir, "attic")} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if d.Disk, err = durabletest.NewDisk(filepath.Join(dir, "top"), filepath.Join(dir, "attic")); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) open(t *testing.T) (*durable.Stage, *durable.Root) {
	t.Helper()
	var roots []*durable.Root
	for _, dir := range []string{d.made, d.out} {
		r, err := durable.Open(dir, d.Hook)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		roots = append(roots, r)
	}
	return durable.NewStage(roots[0], "tmp"), roots[1]
}

func TestWriteFileIsOldOrNewAfterAnyCrash(t *testing.T) {
	old, now := []byte("old content"), bytes.Repeat([]byte("new "), 5000)
	for seed := range uint64(6) {
		for stop := 1; ; stop++ {
			d := newDisk(t)
			stage, out := d.open(t)
			if err := stage.WriteFile(out, "file", old, 0o644); err != nil {
				t.Fatal(err)
			}
			d.StopAt = d.Steps() + stop
			err := stage.WriteFile(out, "file", now, 0o644)
			if err := d.CutPower(chance(seed)); err != nil {
				t.Fatal(err)
			}
			got, readErr := os.ReadFile(filepath.Join(d.out, "file"))
			if readErr != nil || !bytes.Equal(got, old) && !bytes.Equal(got, now) {
				t.Fatalf("seed %d, stopped at %d: %d bytes %.20q, %v", seed, stop, len(got), got, readErr)
			}
			if err == nil {
				if !bytes.Equal(got, now) {
					t.Fatalf("seed %d: reported done but lost", seed)
				}
				break
			}
			if !errors.Is(err, durabletest.ErrStopped) {
				t.Fatal(err)
			}
		}
	}
}

// chance returns nil, nothing unsynced survives, for seed 0.
func chance(seed uint64) *rand.Rand {
	if seed == 0 {
		return nil
	}
	return rand.New(rand.NewPCG(seed, 0))
}

// The model must be able to lose what is not synced, or the test above proves
// nothing.
func TestUnsyncedIsLost(t *testing.T) {
	d := newDisk(t)
	stage, out := d.open(t)
	if err := stage.WriteHint(out, "hint", []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.CutPower(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(d.out, "hint")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unsynced name survived: %v", err)
	}

	d = newDisk(t)
	stage, out = d.open(t)
	if err := errors.Join(stage.WriteHint(out, "hint", []byte("content"), 0o644), out.SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	if err := d.CutPower(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(d.out, "hint")); err != nil || !bytes.Equal(got, make([]byte, 7)) {
		t.Errorf("unsynced content survived a synced name: %q, %v", got, err)
	}
}

func TestMkdirAllIsDurable(t *testing.T) {
	d := newDisk(t)
	_, out := d.open(t)
	if err := out.MkdirAll("a/b/c", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := d.CutPower(nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(d.out, "a/b/c")); err != nil || !info.IsDir() {
		t.Errorf("folder lost: %v", err)
	}
}

func TestMkdirAllGoesThroughNoLink(t *testing.T) {
	d := newDisk(t)
	_, out := d.open(t)
	if err := out.MkdirAll("real/below", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(d.out, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "link/below", "link/new"} {
		if err := out.MkdirAll(name, 0o755); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSymlinkReplaces(t *testing.T) {
	d := newDisk(t)
	stage, out := d.open(t)
	if err := os.WriteFile(filepath.Join(d.out, "name"), []byte("in the way"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"one", "two"} {
		if err := stage.Symlink(out, target, "name"); err != nil {
			t.Fatal(err)
		}
		if got, err := out.Readlink("name"); err != nil || got != target {
			t.Errorf("link to %q, %v", got, err)
		}
	}
	if err := os.Mkdir(filepath.Join(d.out, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := stage.Symlink(out, "one", "folder"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a folder in the way: %v", err)
	}
	empty(t, filepath.Join(d.made, "tmp"))
}

func empty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
}

func TestLinkOntoItself(t *testing.T) {
	d := newDisk(t)
	stage, out := d.open(t)
	if err := stage.WriteFile(out, "file", []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := out.OpenFile("file", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // the second time the name is there and is the same inode
		if err := stage.Link(f, out, "other"); err != nil {
			t.Fatal(err)
		}
	}
	a, errA := out.Stat("file")
	b, errB := out.Stat("other")
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Errorf("not one file: %v %v", errA, errB)
	}
	empty(t, filepath.Join(d.made, "tmp"))
}

func TestNamesCannotLeaveTheRoot(t *testing.T) {
	d := newDisk(t)
	stage, out := d.open(t)
	outside := filepath.Join(d.dir, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(d.out, "escape")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "a/../../x", "escape/x", "/x", ".."} {
		errs := map[string]error{
			"write":   stage.WriteFile(out, name, []byte("x"), 0o644),
			"symlink": stage.Symlink(out, "x", name),
			"mkdir":   out.MkdirAll(name+"/y", 0o755),
			"move":    out.Move("escape", out, name),
		}
		for what, err := range errs {
			if err == nil {
				t.Errorf("%s %q was allowed", what, name)
			}
		}
	}
	empty(t, outside)
	empty(t, filepath.Join(d.made, "tmp"))
	if _, err := os.Lstat(filepath.Join(d.dir, "top", "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made something outside: %v", err)
	}
}

func TestFailedStepsLeaveNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, kind := range []durable.Kind{durable.Create, durable.Write, durable.Sync, durable.Rename} {
		d := newDisk(t)
		d.Fault = func(_ int, op durable.Op) error {
			if op.Kind == kind {
				return boom
			}
			return nil
		}
		stage, out := d.open(t)
		err := stage.WriteFile(out, "file", []byte("content"), 0o644)
		var failed *durable.SyncError
		if !errors.Is(err, boom) || errors.As(err, &failed) != (kind == durable.Sync) {
			t.Errorf("%s: %v", kind, err)
		}
		empty(t, d.out)
		empty(t, filepath.Join(d.made, "tmp"))
	}
}

func TestSweepAndDiscard(t *testing.T) {
	d := newDisk(t)
	stage, out := d.open(t)
	for i := range 3 {
		dir := filepath.Join(d.made, "tmp", fmt.Sprint(i), "below")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("12345"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := stage.Sweep(); n != (durable.Amount{Files: 3, Bytes: 15}) || err != nil {
		t.Errorf("swept %+v, %v", n, err)
	}
	if err := errors.Join(out.MkdirAll("a/b", 0o755), stage.Discard(out, "a")); err != nil {
		t.Fatal(err)
	}
	empty(t, d.out)
	empty(t, filepath.Join(d.made, "tmp"))
}

func TestSameMount(t *testing.T) {
	d := newDisk(t)
	_, out := d.open(t)
	made, err := durable.Open(d.made, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	if same, err := made.SameMount(out); !same || err != nil {
		t.Errorf("one mount: %v, %v", same, err)
	}
	shm, err := durable.Open("/dev/shm", nil)
	if err != nil {
		t.Skip("no second filesystem at /dev/shm: ", err)
	}
	defer shm.Close()
	if same, err := made.SameMount(shm); same || err != nil {
		t.Errorf("two mounts: %v, %v", same, err)
	}
	empty(t, d.out)
}

func TestAllocateReservesRoom(t *testing.T) {
	d := newDisk(t)
	_, out := d.open(t)
	f, err := out.OpenFile("big", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, 8 << 20} {
		if err := f.Allocate(size); err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil || info.Size() != size {
			t.Errorf("length %v, %v", info.Size(), err)
		}
		if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; blocks < size {
			t.Errorf("%d bytes reserved for %d", blocks, size)
		}
	}
}

func TestInheritGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a folder of another group")
	}
	d := newDisk(t)
	stage, out := d.open(t)
	if err := errors.Join(os.Chown(d.out, -1, 12345), os.Chmod(d.out, 0o755|fs.ModeSetgid)); err != nil {
		t.Fatal(err)
	}
	if err := stage.WriteFile(out, "file", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := out.Stat("file")
	if err != nil || info.Sys().(*syscall.Stat_t).Gid != 12345 {
		t.Errorf("group not inherited: %v", err)
	}
}
