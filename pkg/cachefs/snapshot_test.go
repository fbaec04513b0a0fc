package cachefs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p2pagent/pkg/pieces"
)

func randomName(i int) string { return "file-" + strconv.Itoa(i) }

var mainA = pieces.Ref{Repo: repoA, Revision: "main"}

func TestSnapshotOfNothing(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	for _, ref := range []pieces.Ref{mainA, {Repo: repoA, Revision: string(commitA)}} {
		if _, err := c.Snapshot(ref); !errors.Is(err, ErrNotCached) {
			t.Errorf("%s: %v", ref, err)
		}
		if _, err := c.Remove(ref, nil); !errors.Is(err, ErrNotCached) {
			t.Errorf("remove %s: %v", ref, err)
		}
	}
	if list, err := c.List(); err != nil || len(list) > 0 {
		t.Errorf("list: %v, %v", list, err)
	}
}

// What the real client wrote is understood, with nothing of ours beside it.
func TestSnapshotOfAClient(t *testing.T) {
	r, m := newRig(t), goldenModel()
	mustFetch(t, r.open(t), m, "main")
	other := &rig{hub: r.hub, state: r.state + "-new", sys: r.sys, log: r.log}
	other.sys.flock = func(int) error { return nil }
	ref := filepath.Join(r.hub, refName(repoA.Folder(), "main"))
	if err := os.WriteFile(ref, []byte(m.outline.Commit+"\n"), 0o644); err != nil { // forgiven
		t.Fatal(err)
	}
	when := time.Unix(1_700_000_000, 0)
	if err := os.Chtimes(ref, when, when); err != nil {
		t.Fatal(err)
	}
	c := other.open(t)
	s, err := c.Snapshot(mainA)
	if err != nil || !s.Complete || !slices.Equal(s.Outline.Files, m.outline.Files) || !s.Updated.Equal(when) ||
		!slices.Equal(s.Revisions, []string{"main"}) || s.Size != 5_000_000+100+17+9+9 {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.Remove(filepath.Join(r.hub, treeName(repoA.Folder(), m.outline.Commit))); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Snapshot(mainA); err != nil || s.Outline != nil || s.Complete {
		t.Errorf("without a listing: %+v, %v", s, err)
	}
	if problems, err := c.Verify(t.Context(), mainA, nil); err != nil || len(problems) > 0 {
		t.Errorf("verify by the blobs' names: %v, %v", problems, err)
	}
}

func TestIncompleteSnapshot(t *testing.T) {
	for name, damage := range map[string]func(dir string, m model) error{
		"entry removed": func(dir string, m model) error { return os.Remove(filepath.Join(dir, "config.json")) },
		"blob removed": func(dir string, m model) error {
			p, err := filepath.EvalSymlinks(filepath.Join(dir, "config.json"))
			return errors.Join(err, os.Remove(p))
		},
		"blob cut": func(dir string, m model) error { return os.Truncate(filepath.Join(dir, "config.json"), 1) },
		"other blob": func(dir string, m model) error {
			p := filepath.Join(dir, "config.json")
			blob := filepath.Join(dir, "../../blobs", strings.Repeat("0", 40))
			return errors.Join(os.Remove(p), os.WriteFile(blob, []byte("[]"), 0o644), os.Symlink("../../blobs/"+strings.Repeat("0", 40), p))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, m := newRig(t), smallModel()
			c := r.open(t)
			dir := mustFetch(t, c, m, "main")
			if err := damage(dir, m); err != nil {
				t.Fatal(err)
			}
			s, err := c.Snapshot(mainA)
			if err != nil || s.Complete || len(s.Files) != len(m.outline.Files)-1 {
				t.Errorf("%+v, %v", s, err)
			}
			problems, err := c.Verify(t.Context(), mainA, nil)
			if err != nil || len(problems) != 1 || problems[0].Path != "config.json" {
				t.Errorf("verify: %v, %v", problems, err)
			}
			checkSnapshot(t, mustFetch(t, c, m, "main"), m) // mends it
		})
	}
}

func TestVerifyFindsRot(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	dir := mustFetch(t, c, m, "main")
	var read int64
	count := func(n int64) { read += n }
	if problems, err := c.Verify(t.Context(), mainA, count); err != nil || len(problems) > 0 || read != m.outline.Size() {
		t.Errorf("%v, %v, read %d of %d", problems, err, read, m.outline.Size())
	}
	path := filepath.Join(dir, "model.safetensors")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	rot(t, path, 5<<20)
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil { // rot leaves no stamp
		t.Fatal(err)
	}
	b := m.outline.Files[slices.IndexFunc(m.outline.Files, func(f pieces.File) bool { return f.Path == "model.safetensors" })].Blob
	if c.Held(b) == nil {
		t.Fatal("nobody can know yet")
	}
	problems, err := c.Verify(t.Context(), mainA, nil)
	if err != nil || len(problems) != 1 || !errors.Is(problems[0].Err, pieces.ErrDigest) {
		t.Errorf("%v, %v", problems, err)
	}
	if c.Held(b) != nil || c.Has(repoA, b) {
		t.Error("offered though it is rotten")
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Verify(ctx, mainA, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestListAndRemove(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	one, two := smallModel(), smallModel()
	two.outline.Commit = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	two.add(gitFile("new.json", []byte("new")), []byte("new"))
	two.outline.Sort()
	three := smallModel()
	three.outline.Repo = repoB
	mustFetch(t, c, one, "v1")
	mustFetch(t, c, two, "main")
	mustFetch(t, c, three, "refs/pr/7")
	list, err := c.List()
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, want := range []struct {
		repo      pieces.Repo
		commit    pieces.Commit
		revisions []string
	}{{repoB, commitA, []string{"refs/pr/7"}}, {repoA, commitA, []string{"v1"}}, {repoA, two.outline.Commit, []string{"main"}}} {
		if s := list[i]; s.Repo != want.repo || s.Commit != want.commit || !slices.Equal(s.Revisions, want.revisions) || !s.Complete {
			t.Errorf("%d: %+v", i, s)
		}
	}
	// Only what the other snapshot does not need goes.
	freed, err := c.Remove(mainA, nil)
	if err != nil || freed > 64<<10 {
		t.Errorf("freed %d, %v", freed, err)
	}
	checkSnapshot(t, filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA)), one)
	if _, err := c.Snapshot(mainA); !errors.Is(err, ErrNotCached) {
		t.Errorf("removed, but %v", err)
	}
	// The other repository links to the same blobs: nothing is given back.
	freed, err = c.Remove(pieces.Ref{Repo: repoA, Revision: string(commitA)}, nil)
	if err != nil || freed > 64<<10 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if _, err := os.Lstat(filepath.Join(r.hub, repoA.Folder())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty repository stays: %v", err)
	}
	checkHeld(t, c, three)
	if b := one.blobs()[1]; c.Held(b) == nil {
		t.Errorf("%s is in the other repository still", b)
	}
	freed, err = c.Remove(pieces.Ref{Repo: repoB, Revision: "refs/pr/7"}, nil)
	if err != nil || freed < 9<<20 {
		t.Errorf("freed %d, %v", freed, err)
	}
	if got := tree(t, r.hub); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
	for _, dir := range []string{proofDir, stageDir} {
		if left, err := os.ReadDir(filepath.Join(r.state, dir)); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
}

// C12: no strangers at the root of the cache.
//
// Fetches, subsets, imports, a crash, removals and a restart later there are only
// repositories and CACHEDIR.TAG: what the agent keeps for itself lies elsewhere.
func TestC12OnlyRepositoriesAtTheRoot(t *testing.T) {
	r := newRig(t)
	for day := range 3 {
		c := r.open(t)
		one, two := smallModel(), smallModel()
		two.outline.Repo = pieces.Repo{Kind: pieces.Space, Name: "org/space"}
		mustFetch(t, c, one, "main")
		mustFetch(t, c, two, "refs/pr/1")
		if _, _, err := c.ImportDir(t.Context(), writeTree(t, importFiles()), repoB, "main"); err != nil {
			t.Fatal(err)
		}
		f, data := bigBlob() // stays unfinished
		mustBegin(t, c, repoA, f.Blob)
		putAll(t, c, cut(t, f.Blob, data), 0)
		if _, err := c.Verify(t.Context(), mainA, nil); err != nil {
			t.Fatal(err)
		}
		if day == 1 {
			if _, err := c.Remove(mainA, nil); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := os.ReadDir(r.hub)
		if err != nil || len(entries) < 3 {
			t.Fatal(entries, err)
		}
		for _, e := range entries {
			if _, err := pieces.ParseFolder(e.Name()); err != nil && e.Name() != tagName {
				t.Errorf("day %d: stranger %s", day, e.Name())
			}
		}
		mustClose(t, c)
	}
}

// writeTree makes a folder to import.
func writeTree(t testing.TB, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(memoryDir(t), "model")
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func importFiles() map[string][]byte {
	return map[string][]byte{
		"config.json": []byte("{}"), "tokenizer.model": []byte("small but binary"), "model.safetensors": randomBytes(3, 5<<20),
		"sub/big.txt": randomBytes(4, 1<<20), "sub/small.txt": randomBytes(4, 1<<20-1), "empty": {},
	}
}

func TestImportDir(t *testing.T) {
	files := importFiles()
	dir := writeTree(t, files)
	outside := filepath.Join(filepath.Dir(dir), "secret")
	if err := errors.Join(os.WriteFile(outside, []byte("secret"), 0o600), os.Symlink(outside, filepath.Join(dir, "link")),
		os.Mkdir(filepath.Join(dir, ".git"), 0o755), os.WriteFile(filepath.Join(dir, ".git", "HEAD"), nil, 0o644),
		os.Mkdir(filepath.Join(dir, ".cache"), 0o755), os.WriteFile(filepath.Join(dir, ".cache", "x"), nil, 0o644),
		unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	c := r.open(t)
	hashed := map[string]int64{}
	c.onHash = func(name string, done, _ int64) { hashed[name] = done }
	o, snapshot, err := c.ImportDir(t.Context(), dir, repoA, "main")
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(repoA, o.Commit, map[string][]byte{}, nil)
	for name, data := range files {
		lfs := name != "config.json" && name != "empty" && name != "sub/small.txt"
		if lfs {
			m.add(lfsFile(name, data), data)
		} else {
			m.add(gitFile(name, data), data)
		}
	}
	m.outline.Sort()
	if !slices.Equal(o.Files, m.outline.Files) {
		t.Errorf("outline %v", o.Files)
	}
	checkSnapshot(t, snapshot, m)
	checkHeld(t, c, m)
	if hashed["model.safetensors"] != 5<<20 || len(hashed) != len(files)-1 {
		t.Errorf("heard of %v", hashed)
	}
	for _, b := range m.blobs() {
		for _, s := range c.Statements(b) {
			if err := s.Check(); err != nil || s.Maker != signer(2).Maker() {
				t.Errorf("statement: %v", err)
			}
		}
		if !c.Has(repoA, b) {
			t.Errorf("%s not proven", b)
		}
	}
	// The commit id follows from the content alone.
	zero := *o
	zero.Commit = pieces.Commit(strings.Repeat("0", 40))
	raw, err := zero.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(raw); string(o.Commit) != hex.EncodeToString(sum[:])[:40] {
		t.Errorf("commit %s", o.Commit)
	}
	other := newRig(t)
	again, _, err := other.open(t).ImportDir(t.Context(), writeTree(t, files), repoA, "v2")
	if err != nil || again.Commit != o.Commit {
		t.Errorf("another machine: %s, %v", again.Commit, err)
	}
	checkNoLeftovers(t, r.state)
	mustClose(t, c)
	c = r.open(t)
	c.onHash = func(name string, _, _ int64) { t.Errorf("%s hashed again", name) }
	checkHeld(t, c, m)
}

// Who edits an imported file that is linked changes the blob: it is noticed.
func TestImportedFileIsEdited(t *testing.T) {
	r := newRig(t)
	dir := writeTree(t, importFiles())
	r.hub, r.state = filepath.Join(filepath.Dir(dir), "hub"), filepath.Join(filepath.Dir(dir), "state")
	c := r.open(t)
	o, _, err := c.ImportDir(t.Context(), dir, repoA, "main")
	if err != nil {
		t.Fatal(err)
	}
	f := o.Files[slices.IndexFunc(o.Files, func(f pieces.File) bool { return f.Path == "model.safetensors" })]
	path := filepath.Join(dir, f.Path)
	linked := inode(t, path) == inode(t, filepath.Join(r.hub, blobName(repoA.Folder(), f.Blob.Digest)))
	rot(t, path, 0)
	if held := c.Held(f.Blob) != nil; held == linked {
		t.Errorf("linked %v, still offered %v", linked, held)
	}
}

func TestImportRefuses(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	empty := t.TempDir()
	bad := writeTree(t, map[string][]byte{"a\nb": nil})
	clash := writeTree(t, map[string][]byte{"A": nil, "a": nil})
	good := writeTree(t, map[string][]byte{"a": nil})
	for name, err := range map[string]error{
		"nothing there":  second(c.ImportDir(t.Context(), filepath.Join(empty, "x"), repoA, "main")),
		"no files":       second(c.ImportDir(t.Context(), empty, repoA, "main")),
		"hostile name":   second(c.ImportDir(t.Context(), bad, repoA, "main")),
		"clashing names": second(c.ImportDir(t.Context(), clash, repoA, "main")),
		"bad revision":   second(c.ImportDir(t.Context(), good, repoA, "../x")),
		"bad repository": second(c.ImportDir(t.Context(), good, pieces.Repo{Name: "../x"}, "main")),
		"other commit":   second(c.ImportDir(t.Context(), good, repoA, string(commitA))),
	} {
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(r.hub, repoA.Folder(), refsDir)); len(left) > 0 {
		t.Errorf("published %v", left)
	}
	c.sys.free = func(*os.File) (int64, error) { return 0, nil }
	far := t.TempDir() // on another filesystem than the cache, where there is one
	if inode(t, far) != 0 && os.WriteFile(filepath.Join(far, "w.bin"), []byte("x"), 0o644) == nil && !sameDevice(t, far, r.hub) {
		var full *NoSpaceError
		if err := second(c.ImportDir(t.Context(), far, repoA, "main")); !errors.As(err, &full) || full.Need != 1 {
			t.Errorf("no space: %v", err)
		}
	}
}

func second(_ *pieces.Outline, _ string, err error) error { return err }

func sameDevice(t testing.TB, a, b string) bool {
	t.Helper()
	var x, y unix.Stat_t
	if err := errors.Join(unix.Stat(a, &x), unix.Stat(b, &y)); err != nil {
		t.Fatal(err)
	}
	return x.Dev == y.Dev
}

// C13: the cache is mounted read-only.
//
// With everything there it is served, verified and committed, without a write; what
// is missing can't be begun, and the error says why.
func TestC13ReadOnlyCache(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount the cache read-only")
	}
	r, m := newDiskRig(t), smallModel()
	mustClose(t, func() *Cache { c := r.open(t); mustFetch(t, c, m, "main"); return c }())
	view := t.TempDir()
	if err := unix.Mount(r.hub, view, "", unix.MS_BIND, ""); err != nil {
		t.Skip("can't bind-mount: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(view, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", view, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{r.state, r.state + "-new"} { // with proofs, and without
		c, err := open(Options{Hub: view, State: state, Signer: signer(2)}, r.sys)
		if err != nil {
			t.Fatal(err)
		}
		mustBegin(t, c, repoA, m.blobs()...)
		checkHeld(t, c, m)
		checkSnapshot(t, mustFetch(t, c, m, "main"), m)
		if problems, err := c.Verify(t.Context(), mainA, nil); err != nil || len(problems) > 0 {
			t.Errorf("verify: %v, %v", problems, err)
		}
		if s, err := c.Snapshot(mainA); err != nil || !s.Complete {
			t.Errorf("snapshot: %+v, %v", s, err)
		}
		if err := c.Begin(t.Context(), repoB, m.blobs()); !errors.Is(err, unix.EROFS) {
			t.Errorf("begin in another repository: %v", err)
		}
		if err := c.Writable(); !errors.Is(err, unix.EROFS) {
			t.Errorf("writable: %v", err)
		}
		if _, err := c.Remove(mainA, nil); !errors.Is(err, unix.EROFS) {
			t.Errorf("remove: %v", err)
		}
		mustClose(t, c)
	}
}
