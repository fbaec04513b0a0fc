package cachefs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"p2pagent/pkg/pieces"
)

// removal is a snapshot that is to go. It is written down, as lines of text, before
// anything of it does:
//
//	p2pagent removal 1
//	<inode> <sum>    of the snapshot's folder; of the names and targets in it
//	<digest>         of each blob that it links to
type removal struct {
	repo   pieces.Repo
	commit pieces.Commit
	at     folderState
	blobs  map[pieces.Digest]bool // that its links name
	noted  time.Time              // when it was written down; of one that was read
}

// folderState tells a snapshot's folder from one that somebody made or changed
// since.
type folderState struct {
	inode uint64
	sum   string // SHA-256, in hexadecimal
}

const (
	removalHead = "p2pagent removal 1"
	// maxRemovalBytes bounds a note: a digest for each file of a listing.
	maxRemovalBytes = pieces.MaxOutlineBytes
)

var errRemoval = errors.New("not a note on a removal")

func (r *removal) noteName() string {
	return path.Join(removalDir, r.repo.Folder()+"@"+string(r.commit))
}

func (c *Cache) planRemoval(repo pieces.Repo, commit pieces.Commit) (*removal, error) {
	r := &removal{repo: repo, commit: commit}
	name := snapshotName(repo.Folder(), commit)
	info, err := c.hub.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir():
		return nil, ErrNotCached
	case err != nil:
		return nil, err
	}
	if r.at, err = c.folderState(name, info); err != nil {
		return nil, err
	}
	r.blobs, err = c.linkedBlobs(name)
	return r, err
}

func (c *Cache) folderState(name string, info fs.FileInfo) (folderState, error) {
	sum := sha256.New()
	err := c.walk(name, func(at string, _ fs.DirEntry) error {
		target, _ := c.hub.Readlink(at) // none is fine: a plain file
		fmt.Fprintf(sum, "%q %q\n", at, target)
		return nil
	})
	return folderState{stampOf(info).inode, hex.EncodeToString(sum.Sum(nil))}, err
}

func (c *Cache) noteRemoval(r *removal) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s\n%d %s\n", removalHead, r.at.inode, r.at.sum)
	for _, d := range slices.SortedFunc(maps.Keys(r.blobs), byName) {
		fmt.Fprintln(&out, d)
	}
	return c.stage.WriteFile(c.state, r.noteName(), []byte(out.String()), 0o600)
}

func (c *Cache) readRemoval(name string) (*removal, error) {
	folder, commit, _ := strings.Cut(path.Base(name), "@")
	repo, err := pieces.ParseFolder(folder)
	if err != nil {
		return nil, err
	}
	r := &removal{repo: repo, commit: pieces.Commit(commit), blobs: map[pieces.Digest]bool{}}
	if !pieces.IsCommit(commit) {
		return nil, errRemoval
	}
	info, err := c.state.Lstat(name)
	if err != nil {
		return nil, err
	}
	r.noted = info.ModTime()
	raw, err := c.state.ReadFile(name, maxRemovalBytes)
	if err != nil {
		return nil, err
	}
	return r, r.parse(string(raw))
}

func (r *removal) parse(text string) error {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 2 || lines[0] != removalHead {
		return errRemoval
	}
	if n, err := fmt.Sscanf(lines[1], "%d %s", &r.at.inode, &r.at.sum); n != 2 || err != nil {
		return errRemoval
	}
	for _, line := range lines[2:] {
		d, err := pieces.ParseDigest(line)
		if err != nil {
			return fmt.Errorf("%w: %w", errRemoval, err)
		}
		r.blobs[d] = true
	}
	return nil
}

// finishRemovals carries out what a crash cut short. A cache that can't be written
// keeps its notes.
func (c *Cache) finishRemovals() error {
	entries, err := c.state.ReadDir(removalDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(removalDir, e.Name())
		err := c.finishRemoval(name)
		switch {
		case errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission):
			c.log.Warn("can't finish a removal", "note", name, "err", err)
		case err != nil:
			return fmt.Errorf("finish removal %s: %w", e.Name(), err)
		}
	}
	return nil
}

func (c *Cache) finishRemoval(name string) error {
	r, err := c.readRemoval(name)
	if err != nil {
		c.log.Warn("note on a removal not readable", "note", name, "err", err)
		return c.state.Remove(name)
	}
	stays, err := c.wantedAgain(r)
	if err != nil {
		return err
	}
	if stays == "" {
		freed, err := c.carryOut(r)
		if err != nil {
			return err
		}
		c.log.Info("finished the removal of a snapshot", "repo", r.repo.String(), "commit", string(r.commit), "freed", freed)
	} else {
		c.log.Info("a snapshot that was being removed stays", "repo", r.repo.String(), "commit", string(r.commit), "why", stays)
		if _, err := c.removeBlobs(r.repo.Folder(), r.blobs); err != nil { // those that nothing links to
			return err
		}
	}
	return c.state.Remove(name)
}

// wantedAgain says why a snapshot whose removal was cut short should stay after
// all: somebody fetched it since, or uses it.
func (c *Cache) wantedAgain(r *removal) (string, error) {
	name := snapshotName(r.repo.Folder(), r.commit)
	info, err := c.hub.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	now, err := c.folderState(name, info)
	if err != nil || now != r.at {
		return "it was made or changed since", err
	}
	revisions, err := c.revisions(r.repo)
	if err != nil {
		return "", err
	}
	for _, revision := range revisions[r.commit] {
		ref, err := c.hub.Stat(refName(r.repo.Folder(), revision))
		if err == nil && ref.ModTime().After(r.noted) {
			return "a reference was written since", nil
		}
	}
	return c.inUse(r.repo, r.commit)
}
