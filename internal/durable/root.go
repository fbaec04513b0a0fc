package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Kind tells what a step does to the disk.
type Kind string

// The steps that a Hook sees.
const (
	Create   Kind = "create"
	Write    Kind = "write"
	Resize   Kind = "resize"
	Sync     Kind = "sync"
	SyncData Kind = "syncdata"
	SyncDir  Kind = "syncdir"
	Mkdir    Kind = "mkdir"
	Symlink  Kind = "symlink"
	Link     Kind = "link"
	Rename   Kind = "rename"
	Remove   Kind = "remove"
)

// Op is one step. Names are relative to the Root that takes the step.
type Op struct {
	Kind Kind
	Root *Root
	Name string
	To   *Root  // of Rename and Link
	New  string // of Rename and Link; the target of a Symlink
}

// Hook stands between a Root and the disk: it is called in place of every step
// and takes it by calling do. It may fail instead, or do more. It is called from
// many goroutines at once.
type Hook func(op Op, do func() error) error

// SyncError tells that a sync failed: what it covered may or may not be on disk.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return "sync: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SyncError) Unwrap() error { return e.Err }

// Root is a folder whose changes pass through a Hook. It is safe for use by many
// goroutines.
type Root struct {
	root *os.Root
	hook Hook
}

// Open opens an existing folder. A nil hook takes every step as it is.
func Open(dir string, hook Hook) (*Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return At(root, hook), nil
}

// At wraps a root that is already open; Close closes it.
func At(root *os.Root, hook Hook) *Root {
	if hook == nil {
		hook = func(_ Op, do func() error) error { return do() }
	}
	return &Root{root: root, hook: hook}
}

// Close releases the folder. Open files stay usable.
func (r *Root) Close() error { return r.root.Close() }

// Name returns the path that the root was opened with.
func (r *Root) Name() string { return r.root.Name() }

func (r *Root) do(op Op, step func() error) error {
	op.Root = r
	return r.hook(op, step)
}

// Open opens a file for reading. The caller closes it.
func (r *Root) Open(name string) (*os.File, error) { return r.root.Open(name) }

// Stat describes a file, following links that stay below the root.
func (r *Root) Stat(name string) (fs.FileInfo, error) { return r.root.Stat(name) }

// Lstat describes a file without following a link.
func (r *Root) Lstat(name string) (fs.FileInfo, error) { return r.root.Lstat(name) }

// Readlink returns where a symbolic link points.
func (r *Root) Readlink(name string) (string, error) { return r.root.Readlink(name) }

// ReadFile returns the content of a regular file of at most limit bytes.
func (r *Root) ReadFile(name string, limit int64) ([]byte, error) {
	f, err := r.OpenFound(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f.f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = &fs.PathError{Op: "read", Path: name, Err: unix.EFBIG}
	}
	return raw, err
}

// ReadDir lists a folder, sorted by name. A folder that does not exist is empty.
func (r *Root) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.root.FS(), name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// MkdirAll makes a folder and those above it, each with its name synced. Folders
// that exist are left alone; anything else in the way, a symbolic link too, is an
// error: a link could lead the caller somewhere else.
func (r *Root) MkdirAll(name string, perm fs.FileMode) error {
	if name == "." {
		return nil
	}
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrInvalid}
	}
	parent := path.Dir(name)
	if err := r.MkdirAll(parent, perm); err != nil {
		return err
	}
	info, err := r.root.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkdir", Path: name, Err: unix.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	err = r.do(Op{Kind: Mkdir, Name: name}, func() error { return r.root.Mkdir(name, perm) })
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return r.SyncDir(parent)
}

// Remove removes a file, a link or an empty folder. What does not exist is
// removed already.
func (r *Root) Remove(name string) error {
	err := r.do(Op{Kind: Remove, Name: name}, func() error { return r.root.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// RemoveAll removes name and all below it, without following links.
func (r *Root) RemoveAll(name string) error {
	return r.do(Op{Kind: Remove, Name: name}, func() error { return r.root.RemoveAll(name) })
}

// Amount is how much lies somewhere.
type Amount struct {
	Files int
	Bytes int64 // by their lengths
}

// Add adds b to a.
func (a *Amount) Add(b Amount) { a.Files, a.Bytes = a.Files+b.Files, a.Bytes+b.Bytes }

// Measure counts the files below name, itself included. What can't be read counts
// nothing: the number is for people.
func (r *Root) Measure(name string) Amount {
	var sum Amount
	_ = fs.WalkDir(r.root.FS(), name, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			sum.Add(Amount{1, info.Size()})
		}
		return nil
	})
	return sum
}

// SyncDir makes the names in a folder durable. A failed sync is a *SyncError; a folder
// that can't be opened, because somebody removed it, is not: nothing was lost then.
func (r *Root) SyncDir(name string) error {
	d, err := r.root.Open(name)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", name, err)
	}
	defer d.Close()
	if err := r.do(Op{Kind: SyncDir, Name: name}, d.Sync); err != nil {
		return &SyncError{Err: fmt.Errorf("folder %s: %w", name, err)}
	}
	return nil
}
