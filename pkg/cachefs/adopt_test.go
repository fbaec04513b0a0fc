package cachefs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// leave puts a file under a blob's name, as any other program might.
func leave(t testing.TB, r *rig, repo pieces.Repo, b pieces.Blob, data []byte) string {
	t.Helper()
	path := filepath.Join(r.hub, blobName(repo.Folder(), b.Digest))
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdoptWhatAClientLeft(t *testing.T) {
	r, m := newRig(t), smallModel()
	for b, data := range m.content {
		leave(t, r, repoA, b, data)
	}
	c := r.open(t)
	var heard int64
	c.onHash = func(_ string, done, total int64) { heard = max(heard, done) }
	if c.Held(m.blobs()[1]) != nil {
		t.Error("offered before it was hashed")
	}
	mustBegin(t, c, repoA, m.blobs()...)
	for _, b := range m.blobs() {
		if !c.Has(repoA, b) {
			t.Errorf("%s not adopted", b)
		}
		for _, s := range c.Statements(b) {
			if err := s.Check(); err != nil || s.Maker != signer(2).Maker() {
				t.Errorf("statement %v by %x", err, s.Maker[:4])
			}
		}
	}
	checkHeld(t, c, m)
	if heard != 9<<20 {
		t.Errorf("heard of %d bytes", heard)
	}
	checkNoLeftovers(t, r.state)
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}

// V07: the cache has a blob with other bytes, of another length, or something that
// is no file.
//
// It is hashed before it counts, never offered, and replaced in one step once the
// right bytes are here.
func TestV07WrongBlobs(t *testing.T) {
	f, data := bigBlob()
	bad := slices.Clone(data)
	bad[len(bad)/2] ^= 1
	for name, make := range map[string]func(r *rig){
		"content":  func(r *rig) { leave(t, r, repoA, f.Blob, bad) },
		"shorter":  func(r *rig) { leave(t, r, repoA, f.Blob, data[:100]) },
		"longer":   func(r *rig) { leave(t, r, repoA, f.Blob, append(slices.Clone(data), 0)) },
		"empty":    func(r *rig) { leave(t, r, repoA, f.Blob, nil) },
		"dangling": func(r *rig) { p := leave(t, r, repoA, f.Blob, nil); os.Remove(p); os.Symlink("nowhere", p) },
		"outside": func(r *rig) {
			p := leave(t, r, repoA, f.Blob, nil)
			os.Remove(p)
			os.Symlink("/etc/passwd", p)
		},
		"unreadable": func(r *rig) { p := leave(t, r, repoA, f.Blob, nil); os.Remove(p); syscall.Mkfifo(p, 0o600) },
		"elsewhere":  func(r *rig) { leave(t, r, repoB, f.Blob, bad) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			make(r)
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			if c.Has(repoA, f.Blob) || c.Held(f.Blob).Count() > 0 {
				t.Fatal("a wrong blob was taken for good")
			}
			putAll(t, c, cut(t, f.Blob, data), 0, 1, 2, 3, 4)
			mustComplete(t, c, f.Blob)
			path := filepath.Join(r.hub, blobName(repoA.Folder(), f.Blob.Digest))
			sameContent(t, path, data)
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%v, %v", info, err)
			}
			if c.Has(repoB, f.Blob) {
				t.Error("another repository's wrong blob passes for good")
			}
		})
	}
}

// V09: another program left blobs/DIGEST.incomplete, of full length and wrong.
//
// It is not taken for the blob, not even looked at: the blob is fetched, and the
// other program's file stays as it was.
func TestV09ForeignPartialFile(t *testing.T) {
	f, data := bigBlob()
	bad := slices.Clone(data)
	bad[len(bad)/2] ^= 1
	for _, suffix := range []string{".incomplete", ".0123abcd.incomplete", ".downloadInProgress"} {
		r := newRig(t)
		path := leave(t, r, repoA, f.Blob, bad)
		if err := os.Rename(path, path+suffix); err != nil {
			t.Fatal(err)
		}
		c := r.open(t)
		mustBegin(t, c, repoA, f.Blob)
		if c.Has(repoA, f.Blob) || c.Held(f.Blob).Count() > 0 {
			t.Errorf("%s was taken for the blob", suffix)
		}
		putAll(t, c, cut(t, f.Blob, data), 0, 1, 2, 3, 4)
		mustComplete(t, c, f.Blob)
		sameContent(t, path, data)
		sameContent(t, path+suffix, bad)
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return stampOf(info).inode
}

func TestOneBlobInTwoRepositories(t *testing.T) {
	f, data := bigBlob()
	for name, tc := range map[string]struct {
		leaves, together, refuse bool
	}{
		"a client left it in the other": {leaves: true}, "fetched for both at once": {together: true},
		"fetched for one, then wanted by the other": {}, "links are refused": {refuse: true},
		"links are refused, both at once": {together: true, refuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			if tc.refuse {
				r.sys.hook = func(op durable.Op, do func() error) error {
					if op.Kind == durable.Link {
						return syscall.EPERM
					}
					return do()
				}
			}
			if tc.leaves {
				leave(t, r, repoA, f.Blob, data)
			}
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			if tc.together {
				mustBegin(t, c, repoB, f.Blob)
			}
			if !tc.leaves {
				putAll(t, c, cut(t, f.Blob, data), 0, 1, 2, 3, 4)
				mustComplete(t, c, f.Blob)
			}
			mustBegin(t, c, repoB, f.Blob)
			var paths []string
			for _, repo := range []pieces.Repo{repoA, repoB} {
				if !c.Has(repo, f.Blob) {
					t.Errorf("%s lacks it", repo)
				}
				paths = append(paths, filepath.Join(r.hub, blobName(repo.Folder(), f.Blob.Digest)))
				sameContent(t, paths[len(paths)-1], data)
			}
			if same := inode(t, paths[0]) == inode(t, paths[1]); same == tc.refuse {
				t.Errorf("one inode: %v", same)
			}
			mustClose(t, c)
			c = r.open(t) // the proof knows both places
			if !c.Has(repoA, f.Blob) || !c.Has(repoB, f.Blob) {
				t.Error("not proven in both after a restart")
			}
			if err := os.Remove(paths[0]); err != nil {
				t.Fatal(err)
			}
			if c.Has(repoA, f.Blob) || !c.Has(repoB, f.Blob) || !c.Held(f.Blob).Full() {
				t.Error("one place gone, the other one stays")
			}
			if got := readPiece(t, c, f.Blob, 4); !slices.Equal(got, data[16<<20:]) {
				t.Error("wrong bytes from the other place")
			}
		})
	}
}

// Newer clients keep a blob once for all repositories, in a store inside the
// cache; a repository's blob is then a link to it.
func TestBlobInTheClientsSharedStore(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	store := filepath.Join(r.hub, "blobs", "ab", "abcd")
	link := leave(t, r, repoA, f.Blob, nil)
	if err := errors.Join(os.Remove(link), os.MkdirAll(filepath.Dir(store), 0o755), os.WriteFile(store, data, 0o444),
		os.Symlink("../../blobs/ab/abcd", link)); err != nil {
		t.Fatal(err)
	}
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	mustBegin(t, c, repoB, f.Blob)
	if !c.Has(repoA, f.Blob) || !c.Has(repoB, f.Blob) {
		t.Fatal("not adopted through the link")
	}
	other := filepath.Join(r.hub, blobName(repoB.Folder(), f.Blob.Digest))
	if info, err := os.Lstat(other); err != nil || !info.Mode().IsRegular() || inode(t, other) != inode(t, store) {
		t.Errorf("not a hard link of the payload: %v", err)
	}
}

// C15: somebody prunes or changes a blob that is offered.
//
// Whatever happens to the file, it is noticed when the next piece is asked for: the
// blob is not offered any more, no wrong byte is served, and a fetch mends it.
func TestC15ChangedBlobIsWithdrawn(t *testing.T) {
	f, data := bigBlob()
	for name, change := range map[string]func(path string) error{
		"removed":         os.Remove,
		"cut":             func(p string) error { return os.Truncate(p, 10) },
		"touched":         func(p string) error { return os.Chtimes(p, time.Time{}, time.Unix(1, 0)) },
		"replaced":        func(p string) error { return errors.Join(os.WriteFile(p+"x", data, 0o644), os.Rename(p+"x", p)) },
		"a folder now":    func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) },
		"the folder gone": func(p string) error { return os.RemoveAll(filepath.Dir(p)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path := leave(t, r, repoA, f.Blob, data)
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			reader, err := c.OpenPiece(f.Blob, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			if err := change(path); err != nil {
				t.Fatal(err)
			}
			if _, err := c.OpenPiece(f.Blob, 1); !errors.Is(err, ErrNotHeld) {
				t.Errorf("still served: %v", err)
			}
			if c.Held(f.Blob) != nil || c.Statements(f.Blob) != nil || c.Has(repoA, f.Blob) {
				t.Error("still offered")
			}
			if name == "a folder now" {
				return // nothing can take its place
			}
			mustBegin(t, c, repoA, f.Blob)
			if name == "touched" || name == "replaced" {
				if !c.Has(repoA, f.Blob) {
					t.Error("not adopted again though the content is right")
				}
				return
			}
			putAll(t, c, cut(t, f.Blob, data), 0, 1, 2, 3, 4)
			mustComplete(t, c, f.Blob)
			sameContent(t, path, data)
		})
	}
}

func TestAdoptionEndsAPartialBlob(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	c := r.open(t)
	ps := cut(t, f.Blob, data)
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 0)
	leave(t, r, repoB, f.Blob, data) // a client was faster
	mustBegin(t, c, repoB, f.Blob)
	putAll(t, c, ps, 1) // does nothing
	mustComplete(t, c, f.Blob)
	if !c.Held(f.Blob).Full() || !c.Has(repoB, f.Blob) {
		t.Error("not whole")
	}
	mustBegin(t, c, repoA, f.Blob)
	if !c.Has(repoA, f.Blob) {
		t.Error("not linked")
	}
	checkNoLeftovers(t, r.state)
}

func TestAdoptionNeedsASigner(t *testing.T) {
	r, m := newRig(t), smallModel()
	b := m.blobs()[0]
	leave(t, r, repoA, b, m.content[b])
	c, err := Open(Options{Hub: r.hub, State: r.state})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Begin(t.Context(), repoA, []pieces.Blob{b}); err == nil {
		t.Error("adopted without a signer")
	}
}
