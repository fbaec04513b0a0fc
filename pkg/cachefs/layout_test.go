package cachefs

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p2pagent/pkg/pieces"
)

// goldenModel is what testdata/golden.py serves.
func goldenModel() model {
	content := func(seed, n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(i*7 + seed)
		}
		return out
	}
	return newModel(repoA, "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",
		map[string][]byte{"model.safetensors": content(1, 5_000_000), "sub/dir/deep/w.bin": content(2, 100)},
		map[string][]byte{
			".gitattributes": []byte("*.bin filter=lfs\n"), "config.json": []byte("{\"a\": 1}\n"), "empty.txt": {},
			"same-as-config.json": []byte("{\"a\": 1}\n"), "sub/n\u00e4me \"quoted\" \U0001d11e.txt": []byte("odd name\n"),
		})
}

// tree describes a tree as testdata/golden.py does, sorted.
func tree(t testing.TB, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		line, err := describeEntry(path)
		rel, _ := filepath.Rel(root, path)
		out = append(out, line+" "+rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func describeEntry(path string) (string, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	switch {
	case info.IsDir():
		return fmt.Sprintf("d %o", info.Mode().Perm()), nil
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return "l " + target, err
	}
	raw, err := os.ReadFile(path)
	return fmt.Sprintf("f %o %d %x", info.Mode().Perm(), len(raw), sha256.Sum256(raw)), err
}

// golden returns what the real client leaves, with the differences that are
// meant: it locks, and we don't; its trees/ files can be read by their owner
// only.
func golden(t testing.TB) []string {
	t.Helper()
	f, err := os.Open("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "#"), strings.Contains(line, " .locks"):
			continue
		case strings.Contains(line, "/trees/"):
			line = strings.Replace(line, "f 600", "f 644", 1)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func diff(t testing.TB, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("only here:  %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("missing:    %s", line)
		}
	}
}

// C14: tags, pull requests and nested refs.
//
// Committed under main, v1.0, refs/pr/1 and its own id, the tree is the one that the
// real client makes, refs/refs/pr/1 included, and each name is found again.
func TestC14GoldenTree(t *testing.T) {
	r, m := newDiskRig(t), goldenModel()
	c := r.open(t)
	for _, revision := range []string{"main", "v1.0", "refs/pr/1", string(m.outline.Commit)} {
		dir := mustFetch(t, c, m, revision)
		if want := filepath.Join(r.hub, "models--org--name/snapshots", string(m.outline.Commit)); dir != want {
			t.Errorf("path %s, want %s", dir, want)
		}
	}
	diff(t, tree(t, r.hub), golden(t))
	for _, revision := range []string{"main", "v1.0", "refs/pr/1", string(m.outline.Commit)} {
		s, err := c.Snapshot(pieces.Ref{Repo: repoA, Revision: revision})
		if err != nil || s.Commit != m.outline.Commit {
			t.Errorf("%s: %+v, %v", revision, s, err)
		}
	}
}

// C01: the file under refs/ is exact.
//
// 40 bytes, no newline, mode 0666 less the umask; also when it moves to another
// commit, and under a name with slashes.
func TestC01RefsAreExact(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	for umask, want := range map[int]fs.FileMode{0o022: 0o644, 0o027: 0o640, 0o002: 0o664} {
		old := syscall.Umask(umask)
		for _, commit := range []pieces.Commit{commitA, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"} {
			m.outline.Commit = commit
			revision := fmt.Sprintf("a/b-%o", umask)
			mustFetch(t, c, m, revision)
			path := filepath.Join(r.hub, refName(repoA.Folder(), revision))
			raw, err := os.ReadFile(path)
			info, statErr := os.Lstat(path)
			if err := errors.Join(err, statErr); err != nil || string(raw) != string(commit) || len(raw) != 40 || info.Mode() != want {
				t.Errorf("umask %o: %q, %v, %v", umask, raw, info, err)
			}
		}
		syscall.Umask(old)
	}
}

// C02: links are relative and of the right depth.
//
// One ".." for each folder between the file and the repository; so the tree reads
// the same after the cache was moved.
func TestC02LinksSurviveMoving(t *testing.T) {
	r := newRig(t)
	m := newModel(repoA, commitA, nil, map[string][]byte{"a": []byte("0"), "d/a": []byte("1"), "d/e/f/a": []byte("3")})
	c := r.open(t)
	dir := mustFetch(t, c, m, "main")
	for file, up := range map[string]string{"a": "../../blobs", "d/a": "../../../blobs", "d/e/f/a": "../../../../../blobs"} {
		if target, err := os.Readlink(filepath.Join(dir, file)); err != nil || filepath.Dir(target) != up {
			t.Errorf("%s -> %s, %v", file, target, err)
		}
	}
	rel, _ := filepath.Rel(r.hub, dir)
	if err := os.Rename(r.hub, r.hub+"-moved"); err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, filepath.Join(r.hub+"-moved", rel), m)
}

// C05: trees/<commit>.json of a full snapshot.
//
// format_version 1, keys sorted, no xet_hash, and readable to every user where the
// client's own is not; its bytes are otherwise the client's (TestC14GoldenTree).
func TestC05TreeListing(t *testing.T) {
	r, m := newRig(t), goldenModel()
	mustFetch(t, r.open(t), m, "main")
	path := filepath.Join(r.hub, treeName(repoA.Folder(), m.outline.Commit))
	raw, err := os.ReadFile(path)
	info, statErr := os.Lstat(path)
	if err := errors.Join(err, statErr); err != nil || info.Mode() != 0o644 {
		t.Fatalf("%v, %v", info, err)
	}
	var doc struct {
		Version int                       `json:"format_version"`
		Files   map[string]map[string]any `json:"files"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil || doc.Version != 1 || len(doc.Files) != len(m.outline.Files) {
		t.Errorf("%v: %s", err, raw)
	}
	last := -1
	for _, f := range m.outline.Files { // sorted
		at := bytes.Index(raw, []byte(quoteASCII(f.Path)+": {"))
		if at <= last || doc.Files[f.Path]["size"] != float64(f.Blob.Size) || doc.Files[f.Path]["blob_id"] != f.OID.String() {
			t.Errorf("%s at %d after %d: %v", f.Path, at, last, doc.Files[f.Path])
		}
		last = at
	}
	if bytes.Contains(raw, []byte("xet")) {
		t.Error("xet_hash written")
	}
}

// C06: a subset gets no trees/ file.
//
// With one the client would refuse the snapshot for what it lacks. One that is there
// already, of the full snapshot, stays.
func TestC06SubsetHasNoTree(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	subset := slices.DeleteFunc(slices.Clone(m.outline.Files), func(f pieces.File) bool { return f.Path != "config.json" })
	part := model{outline: &pieces.Outline{Repo: repoA, Commit: commitA, Files: subset}, content: m.content}
	if _, err := fetch(t.Context(), t, c, part, string(commitA)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.hub, treeName(repoA.Folder(), commitA))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context(), m.outline, subset, "main"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a subset got a trees/ file: %v", err)
	}
	s, err := c.Snapshot(pieces.Ref{Repo: repoA, Revision: "main"})
	if err != nil || s.Complete || !slices.Equal(s.Files, subset) || len(s.Outline.Files) != len(m.outline.Files) {
		t.Errorf("snapshot %+v, %v", s, err)
	}
	mustFetch(t, c, m, "main")
	if _, err := c.Commit(t.Context(), m.outline, subset, "main"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("the full snapshot's trees/ file is gone: %v", err)
	}
}

func TestRefMoves(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	next := smallModel()
	next.outline.Commit = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	mustFetch(t, c, next, "main")
	got, err := os.ReadFile(filepath.Join(r.hub, refName(repoA.Folder(), "main")))
	if err != nil || string(got) != string(next.outline.Commit) {
		t.Errorf("refs/main = %q, %v", got, err)
	}
	if _, err := c.Snapshot(pieces.Ref{Repo: repoA, Revision: string(commitA)}); err != nil {
		t.Errorf("the old snapshot is gone: %v", err)
	}
	if _, err := c.Commit(t.Context(), next.outline, next.outline.Files, string(commitA)); err == nil {
		t.Error("committed under another commit's id")
	}
}

func TestWrongEntriesAreReplaced(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	dir := filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA))
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	good := []byte("{}") // a plain file with the right content stays as it is
	for name, make := range map[string]func(path string) error{
		"model.safetensors": func(p string) error { return os.Symlink("../../blobs/dangling", p) },
		"sub/readme.md":     func(p string) error { return os.Symlink("/etc/passwd", p) },
		"sub/empty":         func(p string) error { return os.WriteFile(p, []byte("not empty"), 0o644) },
		"config.json":       func(p string) error { return os.WriteFile(p, good, 0o644) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
	if info, err := os.Lstat(filepath.Join(dir, "config.json")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("a plain file with the right content was replaced: %v", err)
	}
	// Same length, other content: replaced.
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("[]"), 0o644); err != nil {
		t.Fatal(err)
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}

func TestFolderInTheWay(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	if err := os.MkdirAll(filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA), "config.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t.Context(), t, c, m, "main"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("got %v", err)
	}
	noRef(t, r)
}

// noRef checks that nothing was published.
func noRef(t *testing.T, r *rig) {
	t.Helper()
	for _, dir := range []string{refsDir, treesDir} {
		if left, err := os.ReadDir(filepath.Join(r.hub, repoA.Folder(), dir)); err == nil && len(left) > 0 {
			t.Errorf("published in spite of the error: %v", left)
		}
	}
}

// A link planted in place of a folder must not make us write elsewhere.
func TestLinkedFolderIsRefused(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	elsewhere := filepath.Join(r.hub, "models--other--name", "snapshots")
	dir := filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA))
	if err := errors.Join(os.MkdirAll(filepath.Join(elsewhere, "dir/deep"), 0o755), os.MkdirAll(dir, 0o755),
		os.Symlink("../../../models--other--name/snapshots", filepath.Join(dir, "sub"))); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(t.Context(), t, c, m, "main"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("got %v", err)
	}
	if left := tree(t, elsewhere); len(left) != 2 {
		t.Errorf("wrote through a link: %v", left)
	}
	noRef(t, r)
}

// C11: hostile names in a listing.
//
// Every one is refused before anything is written, and the error quotes it; so are
// hostile revisions and repositories.
func TestC11HostileNames(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	good := gitFile("good", []byte("x"))
	for _, name := range []string{
		"../x", "/abs", "a/../../x", `C:\x`, "", "a\x00b", "a//b", "a/", "./a", "a/.", strings.Repeat("n", 256),
		strings.Repeat("d/", 1100) + "x", "a\nb", "\xff",
	} {
		o := &pieces.Outline{Repo: repoA, Commit: commitA, Files: []pieces.File{gitFile(name, []byte("x")), good}}
		o.Sort()
		_, err := c.Commit(t.Context(), o, o.Files, "main")
		if !errors.Is(err, pieces.ErrBadPath) || !strings.Contains(err.Error(), strings.Trim(fmt.Sprintf("%.40q", name), `"`)) {
			t.Errorf("%.40q: %v", name, err)
		}
	}
	for _, revision := range []string{"../x", "/x", "a//b", "", "a/../b", "-x", "x\n"} {
		o := &pieces.Outline{Repo: repoA, Commit: commitA, Files: []pieces.File{good}}
		if _, err := c.Commit(t.Context(), o, nil, revision); err == nil {
			t.Errorf("revision %q was taken", revision)
		}
		if _, err := c.Snapshot(pieces.Ref{Repo: repoA, Revision: revision}); err == nil {
			t.Errorf("revision %q was looked up", revision)
		}
	}
	for _, name := range []string{"../x", "a/b/c", "", ".", "a--b", "org/.."} {
		if err := c.Begin(t.Context(), pieces.Repo{Name: name}, []pieces.Blob{good.Blob}); err == nil {
			t.Errorf("repository %q was taken", name)
		}
	}
	if left := tree(t, r.hub); len(left) > 0 {
		t.Errorf("wrote %v", left)
	}
}

// C11: names that only look hostile.
//
// "blobs" and "refs/main" are ordinary names inside a snapshot, and so is "..a".
func TestC11OrdinaryNames(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	m := newModel(repoA, commitA, nil, map[string][]byte{
		"blobs": []byte("1"), "refs/main": []byte("2"), "..a": []byte("4"),
	})
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}

// C19: names at the limits of filesystems.
//
// 255 bytes are fine for a file and a revision, since no temporary name is made from
// them. Names that differ in case alone are refused with both quoted, before
// anything is written: some filesystems would keep one of them.
func TestC19LongAndClashingNames(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	long := strings.Repeat("n", 255)
	m := newModel(repoA, commitA, nil, map[string][]byte{long: []byte("3"), "d/" + long: []byte("4")})
	checkSnapshot(t, mustFetch(t, c, m, strings.Repeat("r", 255)), m)
	before := tree(t, r.hub)
	for _, pair := range [][2]string{{"Config.json", "config.json"}, {"a/X/b", "a/x/b"}} {
		m := newModel(repoA, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", nil, map[string][]byte{pair[0]: []byte("1"), pair[1]: []byte("2")})
		_, err := c.Commit(t.Context(), m.outline, m.outline.Files, "main")
		if !errors.Is(err, pieces.ErrBadPath) || !strings.Contains(err.Error(), pair[0]) || !strings.Contains(err.Error(), pair[1]) {
			t.Errorf("%q: %v", pair, err)
		}
	}
	diff(t, tree(t, r.hub), before)
}

func TestStaysInside(t *testing.T) {
	snapshot := snapshotName(repoA.Folder(), commitA)
	for _, file := range []string{"a", "a/b", "a/b/c/d"} {
		d := gitFile(file, nil).Blob.Digest
		if err := staysInside(snapshot, file, linkTarget(file, d)); err != nil {
			t.Error(err)
		}
		for _, target := range []string{"../" + linkTarget(file, d), "blobs/" + d.String(), "/etc/passwd"} {
			if err := staysInside(snapshot, file, target); !errors.Is(err, pieces.ErrBadPath) {
				t.Errorf("%s -> %s: %v", file, target, err)
			}
		}
	}
}

func TestCommitNeedsBlobs(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	if _, err := c.Commit(t.Context(), m.outline, m.outline.Files, "main"); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	if left := tree(t, r.hub); len(left) > 0 {
		t.Errorf("made %v", left)
	}
	mustFetch(t, c, m, "main")
	other := gitFile("config.json", []byte("other"))
	if _, err := c.Commit(t.Context(), m.outline, []pieces.File{other}, "main"); err == nil {
		t.Error("committed a file that is not in the outline")
	}
	twice := []pieces.File{m.outline.Files[0], m.outline.Files[0]}
	if _, err := c.Commit(t.Context(), m.outline, twice, "main"); err == nil {
		t.Error("committed a file twice")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := c.Commit(ctx, m.outline, m.outline.Files, "main"); !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestTreeRoundTrip(t *testing.T) {
	m := goldenModel()
	o, err := parseTree(encodeTree(m.outline.Files), m.outline.Repo, m.outline.Commit)
	if err != nil || !slices.Equal(o.Files, m.outline.Files) {
		t.Errorf("%v", err)
	}
	for name, raw := range map[string]string{
		"empty": "", "version": `{"format_version": 2, "files": {}}`, "json": `{"format_version": 1, "files": `,
		"path":   `{"format_version": 1, "files": {"../x": {"size": 1, "blob_id": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"}}}`,
		"digest": `{"format_version": 1, "files": {"x": {"size": 1, "blob_id": "zz"}}}`,
		"size":   `{"format_version": 1, "files": {"x": {"size": -1, "blob_id": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"}}}`,
	} {
		if _, err := parseTree([]byte(raw), repoA, commitA); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if got := string(encodeTree(nil)); got != "{\n \"format_version\": 1,\n \"files\": {}\n}" {
		t.Errorf("no files: %q", got)
	}
}
