package cachefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"p2pagent/pkg/pieces"
)

// Commit makes a snapshot visible to Hub clients: the given files of an outline,
// whose blobs must all be in the cache (ErrIncomplete otherwise). It returns the
// snapshot's absolute path. The order, each step durable before the next:
// links, trees/<commit>.json (only when files are all of the outline: with it
// clients refuse a snapshot that lacks a file), refs/<revision> last, and only
// when revision is not a commit id. What is right already is not written again,
// so a cache that can't be written but has everything commits too. After an error
// no reference points at what is not there.
func (c *Cache) Commit(ctx context.Context, o *pieces.Outline, files []pieces.File, revision string) (string, error) {
	dir, err := c.commit(ctx, o, files, revision)
	return dir, c.diskError(0, err, "commit %s@%s", o.Repo, revision)
}

func (c *Cache) commit(ctx context.Context, o *pieces.Outline, files []pieces.File, revision string) (string, error) {
	if err := c.usable(); err != nil {
		return "", err
	}
	if err := checkCommit(o, files, revision); err != nil {
		return "", err
	}
	folder := o.Repo.Folder()
	if err := c.checkBlobs(ctx, folder, pieces.Blobs(files)); err != nil {
		return "", err
	}
	if err := c.linkAll(ctx, folder, o.Commit, files); err != nil {
		return "", err
	}
	if err := c.name(o, files, revision); err != nil {
		return "", err
	}
	return filepath.Join(c.hubDir, filepath.FromSlash(snapshotName(folder, o.Commit))), nil
}

// checkBlobs makes sure that the repository has every blob as it was found right.
// A client that fetched the same blob may have renamed its own over ours since:
// then that one is hashed.
func (c *Cache) checkBlobs(ctx context.Context, folder string, blobs []pieces.Blob) error {
	const tries = 3 // against somebody who goes on replacing
	a := adopter{Cache: c, folder: folder}
	for _, b := range blobs {
		for try := 0; !c.hasIn(folder, b); try++ {
			found, err := a.adopt(ctx, b)
			if err == nil && (!found || try == tries) {
				err = ErrIncomplete
			}
			if err != nil {
				return fmt.Errorf("blob %s: %w", b, err)
			}
		}
	}
	return nil
}

// name writes what makes clients find the snapshot.
func (c *Cache) name(o *pieces.Outline, files []pieces.File, revision string) error {
	if err := c.saveOutline(o); err != nil {
		return err
	}
	folder := o.Repo.Folder()
	if len(files) == len(o.Files) {
		if err := c.saveTree(treeName(folder, o.Commit), o); err != nil {
			return fmt.Errorf("tree listing: %w", err)
		}
	}
	if pieces.IsCommit(revision) {
		return nil
	}
	if err := c.update(refName(folder, revision), []byte(o.Commit), 0o666); err != nil {
		return fmt.Errorf("reference: %w", err)
	}
	return nil
}

// checkCommit refuses what must never reach the disk.
func checkCommit(o *pieces.Outline, files []pieces.File, revision string) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if err := pieces.CheckRevision(revision); err != nil {
		return err
	}
	if pieces.IsCommit(revision) && revision != string(o.Commit) {
		return fmt.Errorf("revision %s is not the outline's commit %s", revision, o.Commit)
	}
	known := make(map[pieces.File]bool, len(o.Files))
	for _, f := range o.Files {
		known[f] = true
	}
	for _, f := range files {
		if !known[f] {
			return fmt.Errorf("file %q is not in the outline, or given twice", f.Path)
		}
		delete(known, f)
	}
	return nil
}

// linkAll makes the entries of a snapshot and then syncs every folder on the way
// to one: those too that were there before, because whoever made them, a Hub
// client or a run of ours that was killed, may not have got so far.
func (c *Cache) linkAll(ctx context.Context, folder string, commit pieces.Commit, files []pieces.File) error {
	snapshot := snapshotName(folder, commit)
	if err := c.hub.MkdirAll(snapshot, 0o777); err != nil {
		return err
	}
	_, err := c.hub.Lstat(blobsOf(folder)) // not there when all files are plain
	if err := c.syncAll(map[string]bool{blobsOf(folder): err == nil}); err != nil {
		return err // a link must not outlive its blob
	}
	dirs := map[string]bool{snapshot: true}
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.link(ctx, snapshot, f, dirs); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	return c.syncAll(dirs)
}

// syncAll syncs the folders and all above them.
func (c *Cache) syncAll(dirs map[string]bool) error {
	all := map[string]bool{".": true}
	for dir, there := range dirs {
		for ; there && !all[dir]; dir = path.Dir(dir) {
			all[dir] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		if err := c.hub.SyncDir(dir); err != nil && !errors.Is(err, syscall.EROFS) {
			return err
		}
	}
	return nil
}

// link makes one entry of a snapshot unless it is right already. dirs are the
// folders that are known to be there.
func (c *Cache) link(ctx context.Context, snapshot string, f pieces.File, dirs map[string]bool) error {
	name, target := path.Join(snapshot, f.Path), linkTarget(f.Path, f.Blob.Digest)
	if err := staysInside(snapshot, f.Path, target); err != nil {
		return err
	}
	if dir := path.Dir(name); !dirs[dir] {
		if err := c.hub.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		dirs[dir] = true
	}
	entry, err := c.entryAt(ctx, name, target, f.Blob)
	if err != nil || entry == isPlain {
		return err
	}
	folder, _, _ := strings.Cut(snapshot, "/")
	if err := c.provide(ctx, folder, f.Blob); err != nil || entry == isLink {
		return err
	}
	err = c.stage.Symlink(c.hub, target, name)
	if unsupportedLink(err) {
		return c.moveToEntry(ctx, f.Blob, blobName(folder, f.Blob.Digest), name)
	}
	return err
}

// provide makes sure that the blob is in blobs/, where links lead: what was adopted
// from a plain file, or moved to one, is not.
func (c *Cache) provide(ctx context.Context, folder string, b pieces.Blob) error {
	name := blobName(folder, b.Digest)
	if c.isAt(c.findWhole(b), name) {
		return nil
	}
	if err := c.checkBlobs(ctx, folder, []pieces.Blob{b}); err != nil { // a client replaced it just now
		return err
	}
	w := c.findWhole(b)
	switch {
	case w == nil:
		return ErrIncomplete
	case c.isAt(w, name):
		return nil
	}
	return c.plantWhole(ctx, w, folder)
}

// staysInside checks again what pieces.CheckPath promises: the target must be a
// blob of the same repository.
func staysInside(snapshot, file, target string) error {
	if err := pieces.CheckPath(file); err != nil {
		return err
	}
	folder, _, _ := strings.Cut(snapshot, "/")
	if path.Dir(path.Join(path.Dir(path.Join(snapshot, file)), target)) != blobsOf(folder) {
		return fmt.Errorf("link %q leaves the repository: %w", target, pieces.ErrBadPath)
	}
	return nil
}

// What may have the name of a file in a snapshot.
type entryKind int

const (
	isWrong entryKind = iota // nothing, or something else
	isLink                   // the very link
	isPlain                  // a regular file with the right content
)

// entryAt tells whether an entry is right as it is.
func (c *Cache) entryAt(ctx context.Context, name, target string, b pieces.Blob) (entryKind, error) {
	info, err := c.hub.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return isWrong, nil
	case err != nil:
		return isWrong, err
	case info.Mode()&fs.ModeSymlink != 0:
		now, err := c.hub.Readlink(name)
		if err != nil || now != target {
			return isWrong, err
		}
		return isLink, nil
	case !info.Mode().IsRegular() || info.Size() != b.Size:
		return isWrong, nil
	case c.isAt(c.recallWhole(b), name):
		return isPlain, nil
	}
	err = c.rehash(ctx, name, b, nil)
	if errors.Is(err, pieces.ErrDigest) {
		return isWrong, nil
	}
	return isPlain, err
}

// update gives a small file of the cache its content, durably. Content that is
// there already is only synced: see linkAll.
func (c *Cache) update(name string, data []byte, perm fs.FileMode) error {
	if now, err := c.hub.ReadFile(name, int64(len(data))); err == nil && bytes.Equal(now, data) {
		return c.syncSmall(name)
	}
	if err := c.hub.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	return c.stage.WriteFile(c.hub, name, data, perm)
}

func (c *Cache) syncSmall(name string) error {
	f, err := c.hub.OpenFound(name)
	if err != nil {
		return err
	}
	err = errors.Join(f.Sync(), f.Close(), c.hub.SyncDir(path.Dir(name)))
	if errors.Is(err, syscall.EROFS) {
		return nil
	}
	return err
}

// saveTree leaves a listing alone that a client wrote and that says the same.
func (c *Cache) saveTree(name string, o *pieces.Outline) error {
	if raw, err := c.hub.ReadFile(name, maxTreeBytes); err == nil {
		if now, err := parseTree(raw, o.Repo, o.Commit); err == nil && slices.Equal(now.Files, o.Files) {
			return c.syncSmall(name)
		}
	}
	return c.update(name, encodeTree(o.Files), 0o644)
}

func outlineName(repo pieces.Repo, commit pieces.Commit) string {
	return path.Join(outlineDir, repo.Folder(), string(commit))
}

// saveOutline keeps the listing, also of what was left out. It can be had again,
// so it is not synced.
func (c *Cache) saveOutline(o *pieces.Outline) error {
	raw, err := o.Marshal()
	if err != nil {
		return err
	}
	name := outlineName(o.Repo, o.Commit)
	if now, err := c.state.ReadFile(name, pieces.MaxOutlineBytes); err == nil && bytes.Equal(now, raw) {
		return nil
	}
	if err := c.state.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	return c.stage.WriteHint(c.state, name, raw, 0o600)
}

// outline returns the listing of a commit: ours, else what a client left, else
// nil.
func (c *Cache) outline(repo pieces.Repo, commit pieces.Commit) *pieces.Outline {
	if raw, err := c.state.ReadFile(outlineName(repo, commit), pieces.MaxOutlineBytes); err == nil {
		o, err := pieces.ParseOutline(raw)
		if err == nil && o.Repo == repo && o.Commit == commit {
			return o
		}
		c.log.Warn("outline not readable", "repo", repo.String(), "commit", string(commit), "err", err)
	}
	raw, err := c.hub.ReadFile(treeName(repo.Folder(), commit), maxTreeBytes)
	if err != nil {
		return nil
	}
	o, err := parseTree(raw, repo, commit)
	if err != nil {
		c.log.Warn("tree listing not readable", "repo", repo.String(), "commit", string(commit), "err", err)
		return nil
	}
	return o
}
