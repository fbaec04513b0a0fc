package cachefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// helperEnv makes the test binary open a cache, say so, and wait for its standard
// input to end: a second process that holds the locks. With "nobody" as a third
// line it first becomes that user, and it commits smallModel, all of which must be
// there.
const helperEnv = "P2PAGENT_CACHEFS_HELPER"

const nobody = 65534 // the user

func helper() int {
	dirs := strings.Split(os.Getenv(helperEnv), "\n")
	var err error
	theirs := len(dirs) > 2
	if theirs {
		err = errors.Join(syscall.Setgroups(nil), syscall.Setgid(nobody), syscall.Setuid(nobody))
	}
	c, openErr := Open(Options{Hub: dirs[0], State: dirs[1], Signer: signer(3)})
	if err = errors.Join(err, openErr); err == nil && theirs {
		err = recommit(c)
	}
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

// recommit does what a fetch of a snapshot does that is there.
func recommit(c *Cache) error {
	m := smallModel()
	if err := c.Begin(context.Background(), repoA, m.blobs()); err != nil {
		return err
	}
	_, err := c.Commit(context.Background(), m.outline, m.outline.Files, "main")
	return err
}

// startHelper returns the process id and what ends it.
func startHelper(t *testing.T, lines ...string) (int, func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+strings.Join(lines, "\n"))
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

// L11: another process has the cache, and is stuck.
//
// Opening does not wait: it fails at once, and the error names the process, even
// one that was stopped. When that process has gone the cache is free.
func TestL11ABusyCacheNamesItsHolder(t *testing.T) {
	r := newRig(t)
	pid, end := startHelper(t, r.hub, r.state)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
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
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	end()
	r.open(t) // free again
}

// L11: the lock file of a killed process keeps nobody out.
//
// The kernel's lock counts, not the file: it went with the process.
func TestL11LockFileAloneDoesNotCount(t *testing.T) {
	r := newRig(t)
	if err := errors.Join(os.MkdirAll(r.state, 0o700), os.WriteFile(filepath.Join(r.state, lockFile), []byte("1\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	r.open(t)
}

// warnings counts what is logged as a warning or worse.
type warnings struct {
	slog.Handler
	count *atomic.Int32
}

func (w warnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (w warnings) Handle(ctx context.Context, r slog.Record) error {
	w.count.Add(1)
	return w.Handler.Handle(ctx, r)
}

// L05: the filesystem knows no locks.
//
// The agent goes on without, and says so in one warning. Any other failure of the
// call is an error.
func TestL05NoLocksOnThisFilesystem(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSYS, syscall.ENOTSUP, syscall.ENOLCK} {
		r, count := newRig(t), new(atomic.Int32)
		r.log = slog.New(warnings{r.log.Handler(), count})
		r.sys.flock = func(int) error { return errno }
		mustFetch(t, r.open(t), smallModel(), "main")
		if count.Load() != 1 {
			t.Errorf("%v: %d warnings, want one", errno, count.Load())
		}
	}
	r := newRig(t)
	r.sys.flock = func(int) error { return syscall.EIO }
	if _, err := open(Options{Hub: r.hub, State: r.state}, r.sys); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
}

// L04: flock does nothing (Lustre, NFS without lockd).
//
// Two agents and a client write one cache at once. Names are unique and renames
// are whole, so whoever wins, every blob is right and nothing is left over.
func TestL04TwoAgentsAndAClientWithoutLocks(t *testing.T) {
	a, m := newRig(t), smallModel()
	a.sys.flock = func(int) error { return nil }
	b := *a
	b.state += "-b"
	var wg sync.WaitGroup
	for _, c := range []*Cache{a.open(t), b.open(t)} {
		wg.Go(func() {
			dir, err := fetch(context.Background(), t, c, m, "main")
			for try := 0; try < 3 && errors.Is(err, ErrNotBegun); try++ { // the client's rename came after Begin
				dir, err = fetch(context.Background(), t, c, m, "main")
			}
			if err != nil {
				t.Error(err)
				return
			}
			checkSnapshot(t, dir, m)
		})
	}
	wg.Go(func() {
		if err := clientWrites(a.hub, m); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	checkTruth(t, a.hub, m)
	tagged := func(line string) bool { return strings.HasSuffix(line, tagName) } // not when the client was first
	diff(t, slices.DeleteFunc(tree(t, a.hub), tagged), slices.DeleteFunc(tree(t, freshTree(t, m)), tagged))
}

// clientWrites brings blobs as huggingface_hub does (file_download.py): a name of
// its own, then a rename.
func clientWrites(hub string, m model) error {
	blobs := filepath.Join(hub, blobsOf(repoA.Folder()))
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for _, b := range m.blobs() {
		tmp := filepath.Join(blobs, b.String()+".0123abcd.incomplete")
		if err := errors.Join(os.WriteFile(tmp, m.content[b], 0o644), os.Rename(tmp, filepath.Join(blobs, b.String()))); err != nil {
			return err
		}
	}
	return nil
}

func freshTree(t *testing.T, m model) string {
	t.Helper()
	r := newRig(t)
	mustFetch(t, r.open(t), m, "main")
	return r.hub
}

// lockPath is where huggingface_hub has the lock of a blob.
func lockPath(hub string, b pieces.Blob) string {
	return filepath.Join(hub, ".locks", repoA.Folder(), b.String()+".lock")
}

// clientLocks makes every lock file that a client would make for the model.
func clientLocks(t *testing.T, hub string, m model) []*os.File {
	t.Helper()
	var out []*os.File
	for _, b := range m.blobs() {
		err := os.MkdirAll(filepath.Dir(lockPath(hub, b)), 0o755)
		f, openErr := os.OpenFile(lockPath(hub, b), os.O_CREATE|os.O_RDWR, 0o664)
		if err := errors.Join(err, openErr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		out = append(out, f)
	}
	return out
}

// L01: a client holds the lock of every blob.
//
// The agent takes none of the client's locks and waits for none: pieces come in,
// blobs get their names and the snapshot is committed while all are held.
func TestL01ClientsLocksAreNotWaitedFor(t *testing.T) {
	r, m := newRig(t), smallModel()
	for _, f := range clientLocks(t, r.hub, m) {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
	}
	checkSnapshot(t, mustFetch(t, r.open(t), m, "main"), m)
}

// L03: lock files that nobody holds lie around.
//
// An existence lock of a pod that died, empty or with a process id in it, is
// neither waited for nor removed.
func TestL03StaleLockFiles(t *testing.T) {
	r, m := newRig(t), smallModel()
	for i, f := range clientLocks(t, r.hub, m) {
		if i%2 == 1 {
			fmt.Fprintln(f, 4194304)
		}
	}
	checkSnapshot(t, mustFetch(t, r.open(t), m, "main"), m)
	for _, b := range m.blobs() {
		if _, err := os.Lstat(lockPath(r.hub, b)); err != nil {
			t.Error(err)
		}
	}
}

// L06: a client that gives up on a lock after ten seconds.
//
// It never has to: at no step of a fetch, from the first piece to refs/, is any
// lock of the client's held by the agent.
func TestL06ClientsLocksAreNeverHeld(t *testing.T) {
	r, m := newRig(t), smallModel()
	files := clientLocks(t, r.hub, m)
	var steps atomic.Int32
	r.sys.hook = func(_ durable.Op, do func() error) error {
		steps.Add(1)
		for _, f := range files {
			if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
				t.Errorf("%s: %v", f.Name(), err)
			}
			syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
		}
		return do()
	}
	mustFetch(t, r.open(t), m, "main")
	if steps.Load() < 50 {
		t.Errorf("only %d steps were watched", steps.Load())
	}
}

// L07: temporary files of other tools lie among the blobs.
//
// They hold the right bytes, and are neither taken for the blob nor offered nor
// removed, by rm either.
func TestL07OtherToolsTemporaryFiles(t *testing.T) {
	r, m := newRig(t), smallModel()
	b := m.blobs()[1]
	blobs := filepath.Join(r.hub, blobsOf(repoA.Folder()))
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	left := []string{b.String() + ".incomplete", b.String() + ".0123abcd.incomplete", b.String() + ".downloadInProgress",
		b.String() + ".sync.part", b.String() + ".lock"}
	for _, name := range left {
		if err := os.WriteFile(filepath.Join(blobs, name), m.content[b], 0o644); err != nil {
			t.Fatal(err)
		}
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
	if _, err := c.Remove(pieces.Ref{Repo: repoA, Revision: "main"}, nil); err != nil {
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

// L08: the lock files belong to another user.
//
// The cache was filled by root and so are the locks, which nobody else may open.
// An agent of another user finds everything there and commits it: no lock is
// opened.
func TestL08LocksOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	mustClose(t, c)
	for _, f := range clientLocks(t, r.hub, m) {
		if err := f.Chmod(0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := r.state + "-theirs"
	if err := errors.Join(os.Chmod(filepath.Dir(r.hub), 0o755), os.Mkdir(state, 0o700), os.Chown(state, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, r.hub)
	_, end := startHelper(t, r.hub, state, "nobody")
	end()
	diff(t, tree(t, r.hub), before)
}

// L10: orphans of killed runs.
//
// What our own runs left half-made is removed when the cache is opened, and the log
// says how many files and bytes that gave back. What other programs left stays, and
// nothing is removed while another agent is alive.
func TestL10OrphansAreSwept(t *testing.T) {
	r := newRig(t)
	mustClose(t, r.open(t))
	theirs := filepath.Join(r.hub, "models--org--name/blobs/x.incomplete")
	ours := []string{stageDir + "/GARBAGE", stageDir + "/dir/file", partialDir + "/" + strings.Repeat("a", 64) + ".0123456789abcdef",
		partialDir + "/" + strings.Repeat("b", 64) + journalSuffix}
	for _, path := range append([]string{theirs}, inFolder(r.state, ours)...) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 1000), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	helperState := r.state + "-other" // another agent on the same cache, so ours can't open it
	_, end := startHelper(t, r.hub, helperState)
	if _, err := Open(Options{Hub: r.hub, State: r.state}); err == nil {
		t.Error("opened beside another agent")
	}
	for _, path := range inFolder(r.state, ours) {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("swept beside another agent: %v", err)
		}
	}
	end()
	var said strings.Builder
	r.log = slog.New(slog.NewTextHandler(&said, nil))
	r.open(t)
	if !strings.Contains(said.String(), "files=4 bytes=4000") {
		t.Errorf("log: %s", said.String())
	}
	checkNoLeftovers(t, r.state)
	if _, err := os.Lstat(theirs); err != nil {
		t.Error(err)
	}
}

func inFolder(dir string, names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = filepath.Join(dir, name)
	}
	return out
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
