package cachefs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"p2pagent/internal/openfile"
	"p2pagent/pkg/pieces"
)

// locksDir holds the locks that huggingface_hub takes while it downloads, in a
// folder for each repository (file_download.py, WeakFileLock: flock).
const locksDir = ".locks"

// InUse says who uses a snapshot right now, or "": a process that has one of its
// files open or mapped, this one included (a member is being sent to, a client is
// reading), or a Hub client that is at work in the repository. Where the kernel
// can't tell it says nothing.
func (c *Cache) InUse(repo pieces.Repo, commit pieces.Commit) (string, error) {
	why, err := c.inUse(repo, commit)
	return why, c.diskError(0, err, "look who uses %s@%s", repo, commit)
}

func (c *Cache) inUse(repo pieces.Repo, commit pieces.Commit) (why string, err error) {
	if why, err = c.clientAtWork(repo.Folder()); why != "" || err != nil {
		return why, err
	}
	c.handles.shutIdle() // what nobody reads now is no use
	snapshot := snapshotName(repo.Folder(), commit)
	err = c.walk(snapshot, func(name string, _ fs.DirEntry) error {
		open, err := c.openElsewhere(name)
		if open {
			why = strings.TrimPrefix(name, snapshot+"/") + " is open"
			return errFound
		}
		return err
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return why, err
}

// errFound ends a walk.
var errFound = errors.New("found")

// openElsewhere asks of the file behind an entry.
func (c *Cache) openElsewhere(name string) (bool, error) {
	if target, err := c.hub.Readlink(name); err == nil {
		name = path.Join(path.Dir(name), target)
	}
	f, err := c.hub.OpenRegular(name)
	if err != nil {
		return false, nil // dangling, or not for us to read: nobody's model
	}
	defer f.Close()
	open, err := openfile.Elsewhere(f)
	if errors.Is(err, openfile.ErrUnknown) {
		return false, nil
	}
	return open, err
}

// clientAtWork looks whether a Hub client holds one of its locks in a repository.
// The locks are not kept: correctness never depends on them.
func (c *Cache) clientAtWork(folder string) (string, error) {
	dir := path.Join(locksDir, folder)
	entries, err := c.hub.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if c.lockHeld(path.Join(dir, e.Name())) {
			return fmt.Sprintf("a Hub client holds %s", e.Name()), nil
		}
	}
	return "", nil
}

func (c *Cache) lockHeld(name string) bool {
	f, err := c.hub.OpenRegular(name)
	if err != nil {
		return false // gone
	}
	defer f.Close() // gives the lock back
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
