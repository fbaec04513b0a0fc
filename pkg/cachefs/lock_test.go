package cachefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"p2pagent/pkg/pieces"
)

// helperEnv makes the test binary open a cache, say so, and wait for its standard
// input to end: a second process that holds the locks.
const helperEnv = "P2PAGENT_CACHEFS_HELPER"

func helper() int {
	dirs := strings.Split(os.Getenv(helperEnv), "\n")
	c, err := Open(Options{Hub: dirs[0], State: dirs[1]})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := c.Close(); err != nil {
		return 1
	}
	return 0
}

// startHelper returns the process id and what ends it.
func startHelper(t *testing.T, hub, state string) (int, func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+hub+"\n"+state)
	in, errIn := cmd.StdinPipe()
	out, errOut := cmd.StdoutPipe()
	if err := errors.Join(errIn, errOut, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "open\n" {
		t.Fatalf("helper said %q, %v", line, err)
	}
	return cmd.Process.Pid, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestOneProcessForEachCacheAndState(t *testing.T) {
	r := newRig(t)
	pid, end := startHelper(t, r.hub, r.state)
	other := filepath.Join(t.TempDir(), "other")
	for name, o := range map[string]Options{
		"same cache, other state": {Hub: r.hub, State: other + "-state"},
		"other cache, same state": {Hub: other + "-hub", State: r.state},
		"both the same":           {Hub: r.hub, State: r.state},
	} {
		c, err := Open(o)
		if err == nil {
			c.Close()
		}
		var busy *BusyError
		if !errors.As(err, &busy) || busy.PID != pid || !strings.Contains(err.Error(), fmt.Sprint(pid)) {
			t.Errorf("%s: %v, want a *BusyError that names %d", name, err, pid)
		}
	}
	end()
	r.open(t) // free again
}

// A killed process must not leave anything that keeps the next one out.
func TestLockFileAloneDoesNotCount(t *testing.T) {
	r := newRig(t)
	if err := errors.Join(os.MkdirAll(r.state, 0o700), os.WriteFile(filepath.Join(r.state, lockFile), []byte("1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r.open(t)
}

func TestNoLocksOnThisFilesystem(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.ENOTSUP, syscall.ENOLCK} {
		r := newRig(t)
		r.sys.flock = func(int) error { return errno }
		mustFetch(t, r.open(t), smallModel(), "main")
	}
	r := newRig(t)
	r.sys.flock = func(int) error { return syscall.EIO }
	if _, err := open(Options{Hub: r.hub, State: r.state}, r.sys); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// Where locks do nothing two agents may share a cache: whoever wins, what is
// there is whole.
func TestTwoAgentsWithoutLocks(t *testing.T) {
	a, m := newRig(t), smallModel()
	a.sys.flock = func(int) error { return nil }
	b := *a
	b.state += "-b"
	var wg sync.WaitGroup
	for _, c := range []*Cache{a.open(t), b.open(t)} {
		wg.Go(func() {
			dir, err := fetch(context.Background(), t, c, m, "main")
			if err != nil {
				t.Error(err)
				return
			}
			checkSnapshot(t, dir, m)
		})
	}
	wg.Wait()
	if got := tree(t, a.hub); len(got) != len(tree(t, freshTree(t, m))) {
		t.Errorf("left over: %v", got)
	}
}

func freshTree(t *testing.T, m model) string {
	t.Helper()
	r := newRig(t)
	mustFetch(t, r.open(t), m, "main")
	return r.hub
}

// Clients' locks are neither taken nor waited for, and their temporary files are
// neither read nor removed.
func TestClientsLocksAndLeftovers(t *testing.T) {
	r, m := newRig(t), smallModel()
	b := m.blobs()[1]
	blobs := filepath.Join(r.hub, blobsOf(repoA.Folder()))
	locks := filepath.Join(r.hub, ".locks", repoA.Folder())
	if err := errors.Join(os.MkdirAll(blobs, 0o755), os.MkdirAll(locks, 0o755)); err != nil {
		t.Fatal(err)
	}
	left := []string{b.String() + ".incomplete", b.String() + ".0123abcd.incomplete", b.String() + ".downloadInProgress",
		b.String() + ".sync.part", b.String() + ".lock"}
	for _, name := range left {
		if err := os.WriteFile(filepath.Join(blobs, name), m.content[b], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := os.Create(filepath.Join(locks, b.String()+".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c := r.open(t)
	if err := c.Begin(t.Context(), repoA, m.blobs()); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.blobs() {
		if c.Has(repoA, b) || c.Held(b).Count() > 0 {
			t.Errorf("%s taken from a temporary file", b)
		}
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
	if _, err := c.Remove(pieces.Ref{Repo: repoA, Revision: "main"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		if _, err := os.Lstat(filepath.Join(blobs, name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(r.hub, snapshotsDir)); err == nil {
		t.Error("made snapshots/ in the root")
	}
	if _, err := os.Lstat(filepath.Join(r.hub, repoA.Folder(), snapshotsDir)); err != nil {
		t.Errorf("a folder without snapshots/ is a warning for clients: %v", err)
	}
}

func TestStateAndCachePlaces(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(Options{Hub: dir, State: filepath.Join(dir, "state")}); !errors.Is(err, ErrInside) {
		t.Errorf("state inside the cache: %v", err)
	}
	if _, err := Open(Options{Hub: dir, State: dir}); !errors.Is(err, ErrInside) {
		t.Errorf("state is the cache: %v", err)
	}
	if _, err := Open(Options{Hub: dir}); err == nil {
		t.Error("no state was accepted")
	}
	shm, err := os.MkdirTemp("/dev/shm", "p2pagent-test-")
	if err != nil {
		t.Skip("no second filesystem at /dev/shm: ", err)
	}
	defer os.RemoveAll(shm)
	_, err = Open(Options{Hub: dir, State: shm})
	if !errors.Is(err, ErrCrossDevice) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), shm) {
		t.Errorf("two filesystems: %v", err)
	}
}
