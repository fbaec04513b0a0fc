package cachefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// Commit makes a snapshot visible to Hub clients: the given files of an outline,
// whose blobs the repository must all have. It returns the snapshot's absolute
// path. The order, each step durable before the next: links, our copy of the
// outline, trees/<commit>.json (only when files are all of the outline: with it
// clients refuse a snapshot that lacks a file), refs/<revision> last and only
// when revision is not a commit id. Whatever is right already is left as it is,
// so a cache that can't be written but has everything commits too. After an
// error no reference points at what is not there.
func (c *Cache) Commit(ctx context.Context, o *pieces.Outline, files []pieces.File, revision string) (string, error) {
	dir, err := c.commit(ctx, o, files, revision)
	if err != nil {
		return "", c.diskError("commit", pieces.Ref{Repo: o.Repo, Revision: revision}, 0, err)
	}
	return dir, nil
}

func (c *Cache) commit(ctx context.Context, o *pieces.Outline, files []pieces.File, revision string) (string, error) {
	if err := c.usable(); err != nil {
		return "", err
	}
	if err := checkCommit(o, files, revision); err != nil {
		return "", err
	}
	folder := o.Repo.Folder()
	for _, b := range pieces.Blobs(files) {
		if !c.hasIn(folder, b) {
			return "", fmt.Errorf("blob %s: %w", b, ErrIncomplete)
		}
	}
	if err := c.linkAll(ctx, snapshotName(folder, o.Commit), files); err != nil {
		return "", err
	}
	if err := c.saveOutline(o); err != nil {
		return "", err
	}
	if len(files) == len(o.Files) {
		if err := c.update(treeName(folder, o.Commit), encodeTree(o.Files), 0o644); err != nil {
			return "", err
		}
	}
	if !pieces.IsCommit(revision) {
		if err := c.update(refName(folder, revision), []byte(o.Commit), 0o666); err != nil {
			return "", err
		}
	}
	return filepath.Join(c.hubDir, filepath.FromSlash(snapshotName(folder, o.Commit))), nil
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

// linkAll makes the entries of a snapshot and then syncs every folder it changed.
func (c *Cache) linkAll(ctx context.Context, snapshot string, files []pieces.File) error {
	changed := map[string]bool{}
	if err := c.hub.MkdirAll(snapshot, 0o777); err != nil {
		return err
	}
	for _, f := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		did, err := c.link(ctx, snapshot, f)
		if err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		if did {
			changed[path.Dir(path.Join(snapshot, f.Path))] = true
		}
	}
	for dir := range changed {
		if err := c.hub.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// link makes one entry of a snapshot and tells whether it had to.
func (c *Cache) link(ctx context.Context, snapshot string, f pieces.File) (bool, error) {
	name, target := path.Join(snapshot, f.Path), linkTarget(f.Path, f.Blob.Digest)
	if err := staysInside(snapshot, f.Path, target); err != nil {
		return false, err
	}
	done, err := c.linked(ctx, name, target, f.Blob)
	if err != nil || done {
		return false, err
	}
	if err := c.hub.MkdirAll(path.Dir(name), 0o777); err != nil {
		return false, err
	}
	err = c.stage.Symlink(c.hub, target, name)
	if unsupportedLink(err) {
		err = c.plainFile(f.Blob, name)
	}
	return true, err
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

// linked tells whether the entry is right as it is: the very link, or a regular
// file with the right content, as clients leave it where links don't work.
func (c *Cache) linked(ctx context.Context, name, target string, b pieces.Blob) (bool, error) {
	info, err := c.hub.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode()&fs.ModeSymlink != 0:
		now, err := c.hub.Readlink(name)
		return now == target, err
	case !info.Mode().IsRegular() || info.Size() != b.Size:
		return false, nil
	}
	err = c.rehash(ctx, name, b, nil)
	if errors.Is(err, pieces.ErrDigest) {
		return false, nil
	}
	return err == nil, err
}

func unsupportedLink(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)
}

// plainFile puts the content itself where a link can't be made: a hard link, so
// that the blob is there once, else a copy.
func (c *Cache) plainFile(b pieces.Blob, name string) error {
	w := c.findWhole(b)
	if w == nil {
		return ErrIncomplete
	}
	h, err := c.openWhole(w)
	if err != nil {
		return err
	}
	defer c.handles.put(h)
	if err := c.stage.Link(h.file, c.hub, name); err != nil {
		return c.copyIn(h, b, name)
	}
	return nil
}

// update gives a small file its content, durably, unless it has it.
func (c *Cache) update(name string, data []byte, perm fs.FileMode) error {
	return c.updateIn(c.hub, name, data, perm)
}

func (c *Cache) updateIn(root *durable.Root, name string, data []byte, perm fs.FileMode) error {
	if now, err := root.ReadFile(name); err == nil && bytes.Equal(now, data) {
		return nil
	}
	if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return err
	}
	return c.stage.WriteFile(root, name, data, perm)
}

func outlineName(repo pieces.Repo, commit pieces.Commit) string {
	return path.Join(outlineDir, repo.Folder(), string(commit))
}

func (c *Cache) saveOutline(o *pieces.Outline) error {
	raw, err := o.Marshal()
	if err != nil {
		return err
	}
	return c.updateIn(c.state, outlineName(o.Repo, o.Commit), raw, 0o600)
}

// outline returns the listing of a commit: ours, else what a client left, else
// nil.
func (c *Cache) outline(repo pieces.Repo, commit pieces.Commit) *pieces.Outline {
	if raw, err := c.state.ReadFile(outlineName(repo, commit)); err == nil {
		o, err := pieces.ParseOutline(raw)
		if err == nil && o.Repo == repo && o.Commit == commit {
			return o
		}
		c.log.Warn("outline not readable", "repo", repo.String(), "commit", string(commit), "err", err)
	}
	raw, err := c.hub.ReadFile(treeName(repo.Folder(), commit))
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
