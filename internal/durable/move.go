package durable

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// Move renames a file or folder from one root into another on the same mount,
// replacing a file that has the new name. The names are not durable before
// SyncDir. Both parents are opened through their roots, so neither can lead
// outside; the last parts are used as they are.
func (r *Root) Move(name string, to *Root, newName string) error {
	return r.do(Op{Kind: Rename, Name: name, To: to, New: newName}, func() error {
		return r.inParents("rename", name, to, newName, func(from, into int) error {
			return unix.Renameat(from, path.Base(name), into, path.Base(newName))
		})
	})
}

// linkFile gives an open file another name below to, which must not exist yet.
func (f *File) linkFile(to *Root, newName string) error {
	return f.root.do(Op{Kind: Link, Name: f.name, To: to, New: newName}, func() error {
		return f.root.inParents("link", ".", to, newName, func(_, into int) error {
			return f.control(func(fd int) error { return linkOpen(fd, into, path.Base(newName)) })
		})
	})
}

// SameMount tells whether files can be renamed from r into other: a filesystem
// can be mounted twice, and then they can't although the device is the same.
// Nothing is changed: the kernel compares the mounts before it looks for names.
func (r *Root) SameMount(other *Root) (bool, error) {
	const none = ".p2pagent-no-such-file"
	err := r.inParents("rename", none, other, none, func(from, into int) error {
		return unix.Renameat(from, none, into, none)
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.EXDEV):
		return false, nil
	}
	return false, err
}

// inParents calls fn with descriptors of the two folders that hold the names.
func (r *Root) inParents(op, name string, to *Root, newName string, fn func(from, into int) error) error {
	if !fs.ValidPath(name) || !fs.ValidPath(newName) {
		return &os.LinkError{Op: op, Old: name, New: newName, Err: fs.ErrInvalid}
	}
	from, err := r.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer from.Close()
	into, err := to.root.Open(path.Dir(newName))
	if err != nil {
		return err
	}
	defer into.Close()
	if err := fn(int(from.Fd()), int(into.Fd())); err != nil {
		return &os.LinkError{Op: op, Old: r.Name() + "/" + name, New: to.Name() + "/" + newName, Err: err}
	}
	return nil
}
