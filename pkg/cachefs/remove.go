package cachefs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"p2pagent/pkg/pieces"
)

// Remove takes a snapshot out of the cache, in the reverse order of Commit:
// references first, then its entries in one step, blobs that no other snapshot of
// the repository needs last. It returns how many bytes of disk that gave back: a
// blob that other repositories link to gives back none. Files that other programs
// left are not touched. What is to go is written down first, so that a removal
// which a crash cuts short is finished by the next Open. Blobs that are needed, by a
// job that has not linked them yet, stay.
func (c *Cache) Remove(ref pieces.Ref, needed map[pieces.Blob]bool) (freed int64, err error) {
	freed, err = c.remove(ref, needed)
	return freed, c.diskError(0, err, "remove %s", ref)
}

func (c *Cache) remove(ref pieces.Ref, needed map[pieces.Blob]bool) (int64, error) {
	if err := c.usable(); err != nil {
		return 0, err
	}
	commit, _, err := c.lookup(ref)
	if err != nil {
		return 0, err
	}
	r, err := c.planRemoval(ref.Repo, commit)
	if err != nil {
		return 0, err
	}
	for b := range needed {
		delete(r.blobs, b.Digest)
	}
	if err := c.noteRemoval(r); err != nil {
		return 0, err
	}
	freed, err := c.carryOut(r)
	if err != nil {
		return freed, err
	}
	return freed, c.state.Remove(r.noteName())
}

// carryOut removes what is left of a snapshot that is to go.
func (c *Cache) carryOut(r *removal) (freed int64, err error) {
	folder, snapshot := r.repo.Folder(), snapshotName(r.repo.Folder(), r.commit)
	revisions, err := c.revisions(r.repo)
	if err != nil {
		return 0, err
	}
	for _, revision := range revisions[r.commit] {
		if err := c.removeDurably(refName(folder, revision)); err != nil {
			return 0, err
		}
	}
	plain, err := c.plainBytes(snapshot)
	if err != nil {
		return 0, err
	}
	if err := c.removeSnapshot(r.repo, r.commit); err != nil {
		return 0, err
	}
	freed, err = c.removeBlobs(folder, r.blobs)
	return plain + freed, errors.Join(err, c.removeEmpty(folder))
}

func (c *Cache) removeDurably(name string) error {
	if _, err := c.hub.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := c.hub.Remove(name); err != nil {
		return err
	}
	return c.hub.SyncDir(path.Dir(name))
}

// removeSnapshot makes the snapshot vanish in one step, then cleans up.
func (c *Cache) removeSnapshot(repo pieces.Repo, commit pieces.Commit) error {
	folder := repo.Folder()
	if err := c.removeDurably(treeName(folder, commit)); err != nil {
		return err
	}
	err := c.stage.Discard(c.hub, snapshotName(folder, commit))
	if errors.Is(err, fs.ErrNotExist) { // a removal that is carried out for the second time
		err = nil
	}
	return errors.Join(err,
		c.hub.RemoveAll(path.Join(folder, noExistDir, string(commit))),
		c.state.Remove(outlineName(repo, commit)),
	)
}

// linkedBlobs returns the blobs that the links of a snapshot name.
func (c *Cache) linkedBlobs(snapshot string) (map[pieces.Digest]bool, error) {
	out := map[pieces.Digest]bool{}
	err := c.walk(snapshot, func(name string, _ fs.DirEntry) error {
		if target, err := c.hub.Readlink(name); err == nil {
			if d, err := pieces.ParseDigest(path.Base(target)); err == nil {
				out[d] = true
			}
		}
		return nil
	})
	return out, err
}

// removeBlobs removes those that no snapshot of the repository links to.
func (c *Cache) removeBlobs(folder string, blobs map[pieces.Digest]bool) (freed int64, err error) {
	used, err := c.linkedBlobs(path.Join(folder, snapshotsDir))
	if err != nil {
		return 0, err
	}
	removed := false
	for _, d := range slices.SortedFunc(maps.Keys(blobs), byName) {
		if used[d] {
			continue
		}
		name := blobName(folder, d)
		info, err := c.hub.Lstat(name)
		if err != nil {
			continue // somebody else removed it
		}
		if err := c.hub.Remove(name); err != nil {
			return freed, err
		}
		removed = true
		if st := info.Sys().(*syscall.Stat_t); st.Nlink == 1 {
			freed += st.Blocks * 512
		}
		c.findWhole(pieces.Blob{Digest: d, Size: info.Size()}) // withdraws it if this was its last place
	}
	if !removed {
		return freed, nil // and there may be no folder of blobs any more
	}
	return freed, c.hub.SyncDir(blobsOf(folder))
}

func byName(a, b pieces.Digest) int { return strings.Compare(a.String(), b.String()) }

// removeEmpty removes the repository's folder when nothing is left in it. A
// folder without snapshots/ would be a warning for Hub clients, so that goes last.
func (c *Cache) removeEmpty(folder string) error {
	for _, dir := range []string{blobsDir, refsDir, treesDir, noExistDir} {
		if err := c.pruneEmpty(path.Join(folder, dir)); err != nil {
			return err
		}
	}
	left, err := c.hub.ReadDir(folder)
	if err != nil || len(left) > 1 {
		return err
	}
	for _, dir := range []string{path.Join(folder, snapshotsDir), folder} {
		err := c.hub.Remove(dir)
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return c.hub.SyncDir(".")
}

// pruneEmpty removes a folder tree that holds no file. What appears meanwhile
// stays: the kernel refuses to remove a folder that is not empty.
func (c *Cache) pruneEmpty(dir string) error {
	entries, err := c.hub.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			return nil
		}
		if err := c.pruneEmpty(path.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	err = c.hub.Remove(dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove folder %s: %w", dir, err)
	}
	return nil
}
