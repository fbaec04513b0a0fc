package cachefs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

const commitB = pieces.Commit("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")

// sharingModel has one content in two files.
func sharingModel(commit pieces.Commit) model {
	return newModel(repoA, commit, map[string][]byte{"model.safetensors": randomBytes(1, 9<<20), "sub/w.bin": randomBytes(2, 100)},
		map[string][]byte{"config.json": []byte("{}"), "sub/dir/same.json": []byte("{}"), "sub/empty": {}})
}

// refusing is a disk that can't do some steps.
func refusing(errno syscall.Errno, kinds ...durable.Kind) durable.Hook {
	return func(op durable.Op, do func() error) error {
		if slices.Contains(kinds, op.Kind) {
			return errno
		}
		return do()
	}
}

// checkPlain checks that a snapshot is made of regular files and blobs/ is empty.
func checkPlain(t *testing.T, r *rig, dir string, m model) {
	t.Helper()
	checkSnapshot(t, dir, m)
	for _, f := range m.outline.Files {
		if info, err := os.Lstat(filepath.Join(dir, f.Path)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", f.Path, info, err)
		}
	}
	noBlobs(t, r)
}

func noBlobs(t *testing.T, r *rig) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(r.hub, blobsOf(repoA.Folder())))
	if len(left) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("blobs/ holds %v, %v", left, err)
	}
}

// C10: a filesystem without symbolic links, and one without hard links too.
//
// A blob is moved to the first file that needs it, as the real client does it, and blobs/
// stays empty: the content is there once. It is served from there, also after a restart;
// the next revision takes it from there, and rm gives its room back.
func TestC10NoLinks(t *testing.T) {
	for name, hook := range map[string]durable.Hook{
		"no symlinks":                    refusing(syscall.EPERM, durable.Symlink),
		"symlinks not supported":         refusing(syscall.ENOTSUP, durable.Symlink),
		"neither symlinks nor hardlinks": refusing(syscall.EPERM, durable.Symlink, durable.Link),
	} {
		t.Run(name, func(t *testing.T) {
			r, m := newRig(t), sharingModel(commitA)
			r.sys.hook = hook
			c := r.open(t)
			dir := mustFetch(t, c, m, "main")
			checkPlain(t, r, dir, m)
			for range 2 { // at once, and after a restart
				checkHeld(t, c, m)
				for _, b := range m.blobs() {
					if !c.Has(repoA, b) || !c.Held(b).Full() {
						t.Errorf("%s is not held", b)
					}
				}
				if s, err := c.Snapshot(mainA); err != nil || !s.Complete {
					t.Errorf("%+v, %v", s, err)
				}
				mustClose(t, c)
				c = r.open(t)
				c.onHash = func(name string, _, _ int64) { t.Errorf("%s hashed again", name) }
			}
			before := inode(t, filepath.Join(dir, "model.safetensors"))
			mustFetch(t, c, m, "main")
			checkPlain(t, r, dir, m)
			if inode(t, filepath.Join(dir, "model.safetensors")) != before {
				t.Error("made anew though it was right")
			}
			next := sharingModel(commitB)
			mustBegin(t, c, repoA, next.blobs()...)
			for _, b := range next.blobs() {
				if !c.Has(repoA, b) {
					t.Errorf("%s would be fetched again for the next revision", b)
				}
			}
			nextDir := mustFetch(t, c, next, "main")
			checkPlain(t, r, nextDir, next)
			checkPlain(t, r, dir, m)
			for _, commit := range []pieces.Commit{commitA, commitB} {
				if _, err := c.Remove(pieces.Ref{Repo: repoA, Revision: string(commit)}, nil); err != nil {
					t.Fatal(err)
				}
				if commit == commitA {
					checkPlain(t, r, nextDir, next)
					checkHeld(t, c, next)
				}
			}
			if got := tree(t, r.hub); len(got) != 1 {
				t.Errorf("left: %v", got)
			}
			for _, b := range m.blobs() {
				if c.Held(b) != nil {
					t.Errorf("%s is still offered", b)
				}
			}
		})
	}
}

// C10: the room of plain files is given back.
//
// What rm says it freed is what the files of the snapshot took.
func TestC10RemoveTellsTheRoom(t *testing.T) {
	r, m := newRig(t), sharingModel(commitA)
	r.sys.hook = refusing(syscall.EPERM, durable.Symlink, durable.Link)
	c := r.open(t)
	mustFetch(t, c, m, "main")
	if freed, err := c.Remove(mainA, nil); err != nil || freed < 9<<20 {
		t.Errorf("freed %d, %v", freed, err)
	}
}

// C10: the process dies, or the power goes, while blobs are moved to their files.
//
// Every blob is whole in one of the two places, so nothing is fetched again, and the same
// work done again ends with the same tree.
func TestC10CrashWhileMoving(t *testing.T) {
	m := newModel(repoA, commitA, map[string][]byte{"w.bin": randomBytes(2, 5000)},
		map[string][]byte{"config.json": []byte("{}"), "sub/same.json": []byte("{}"), "empty": {}})
	bring := func(c *Cache) error {
		for _, b := range m.blobs() {
			err := c.Begin(t.Context(), repoA, []pieces.Blob{b})
			for _, v := range cut(t, b, m.content[b]) {
				err = errors.Join(err, c.Put(t.Context(), v))
			}
			if err := errors.Join(err, c.Complete(t.Context(), b)); err != nil {
				return err
			}
		}
		return nil
	}
	commit := func(c *Cache) error {
		_, err := c.Commit(t.Context(), m.outline, m.outline.Files, "main")
		return err
	}
	start := func() *crashRig {
		r := newCrashRig(t, func(*rig) {})
		r.refuse = []durable.Kind{durable.Symlink, durable.Link}
		return r
	}
	clean, brought := start(), 0
	clean.life(t, func(c *Cache) error {
		err := bring(c)
		brought = clean.disk.Steps()
		return errors.Join(err, commit(c))
	})
	want := tree(t, clean.hub)
	for mode := range 3 {
		for stop := brought + 1; stop <= clean.disk.Steps(); stop++ {
			r := start()
			r.disk.StopAt = stop
			r.life(t, func(c *Cache) error { return errors.Join(bring(c), commit(c)) })
			r.cut(t, mode, stop)
			r.disk.StopAt = 0
			r.life(t, func(c *Cache) error {
				checkHeld(t, c, m)
				mustBegin(t, c, repoA, m.blobs()...)
				for _, b := range m.blobs() {
					if !c.Has(repoA, b) {
						t.Errorf("mode %d, step %d: %s must be fetched again", mode, stop, b)
					}
				}
				return slowFetch(t.Context(), t, c, m)
			})
			got := slices.DeleteFunc(tree(t, r.hub), func(line string) bool { return strings.Contains(line, "refs/") })
			diff(t, got, slices.DeleteFunc(slices.Clone(want), func(line string) bool { return strings.Contains(line, "refs/") }))
		}
	}
}

// C09: a snapshot of regular files that a client copied.
//
// They are hashed once each, and are the blobs: nothing is fetched, they are offered, and
// they stay as they are. What another revision needs of them is linked into blobs/ then,
// not before: a client's own clean-up would miss it there.
func TestC09CopiedSnapshot(t *testing.T) {
	r, m := newRig(t), sharingModel(commitA)
	m.add(lfsFile("twin.bin", randomBytes(9, 100)), randomBytes(9, 100)) // as long as sub/w.bin
	m.outline.Sort()
	dir := filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA))
	var before []string
	for _, f := range m.outline.Files {
		path := filepath.Join(dir, f.Path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, m.content[f.Blob], 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	before = tree(t, dir)
	c := r.open(t)
	hashed := map[string]int{}
	c.onHash = func(name string, done, total int64) {
		if done == total {
			hashed[name]++
		}
	}
	mustBegin(t, c, repoA, m.blobs()...)
	for _, b := range m.blobs() {
		if !c.Has(repoA, b) {
			t.Errorf("%s would be fetched", b)
		}
	}
	passes := 0
	for _, n := range hashed {
		passes += n
	}
	if passes > len(m.outline.Files) {
		t.Errorf("%d passes for %d files: %v", passes, len(m.outline.Files), hashed)
	}
	checkHeld(t, c, m)
	if got := mustFetch(t, c, m, "main"); got != dir {
		t.Errorf("path %s", got)
	}
	diff(t, tree(t, dir), before)
	noBlobs(t, r)
	next := sharingModel(commitB)
	nextDir := mustFetch(t, c, next, "main")
	checkSnapshot(t, nextDir, next)
	diff(t, tree(t, dir), before)
	if info, err := os.Lstat(filepath.Join(nextDir, "model.safetensors")); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the next revision's entry: %v, %v", info, err)
	}
	if inode(t, filepath.Join(nextDir, "model.safetensors")) != inode(t, filepath.Join(dir, "model.safetensors")) {
		t.Error("copied, where a link would do")
	}
	if problems, err := c.Verify(t.Context(), mainA, nil); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// C09: a copied file that is wrong.
//
// One of the right length is hashed and not believed; what is fetched takes its place.
func TestC09WrongCopyIsReplaced(t *testing.T) {
	r, m := newRig(t), sharingModel(commitA)
	path := filepath.Join(r.hub, snapshotName(repoA.Folder(), commitA), "model.safetensors")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, 9<<20), 0o644)); err != nil {
		t.Fatal(err)
	}
	c := r.open(t)
	mustBegin(t, c, repoA, m.blobs()...)
	for _, b := range m.blobs() {
		if c.Has(repoA, b) || c.Held(b).Count() > 0 {
			t.Errorf("%s is believed", b)
		}
	}
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}
