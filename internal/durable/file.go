package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// File is an open file whose changes pass through its Root's Hook.
type File struct {
	root *Root
	name string // at the time of opening; for messages and hooks
	f    *os.File
}

// ErrNotRegular tells that something was found that is not a regular file.
var ErrNotRegular = errors.New("not a regular file")

// OpenFound opens a file that somebody else may have put there, for reading. Where
// a pipe or a device has the name it fails with ErrNotRegular instead of waiting.
func (r *Root) OpenFound(name string) (*File, error) {
	f, err := r.OpenRegular(name)
	if err != nil {
		return nil, err
	}
	return &File{root: r, name: name, f: f}, nil
}

// OpenRegular is OpenFound for who needs the system's own file: one to be sent to
// a socket by the kernel.
func (r *Root) OpenRegular(name string) (*os.File, error) {
	f, err := r.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// OpenFile opens a file of ours to read and write, or to read only when flag says
// so. The caller closes it.
func (r *Root) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	file := &File{root: r, name: name}
	step := func() (err error) {
		file.f, err = r.root.OpenFile(name, flag, perm)
		return err
	}
	if flag&os.O_CREATE == 0 {
		return file, step()
	}
	if err := r.do(Op{Kind: Create, Name: name}, step); err != nil {
		return nil, err
	}
	return file, nil
}

// ReadAt reads like io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Stat describes the open file, whatever its name is by now.
func (f *File) Stat() (fs.FileInfo, error) { return f.f.Stat() }

// Close closes the file without syncing it.
func (f *File) Close() error { return f.f.Close() }

// WriteAt writes like io.WriterAt; nothing is durable before a sync.
func (f *File) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.root.do(Op{Kind: Write, Name: f.name}, func() (err error) {
		n, err = f.f.WriteAt(p, off)
		return err
	})
	return n, err
}

// Allocate sets the length and reserves the room for it, so that later writes
// can't run out of space. Where the filesystem can't reserve, it only sets the
// length.
func (f *File) Allocate(size int64) error {
	return f.root.do(Op{Kind: Resize, Name: f.name}, func() error {
		if err := f.f.Truncate(size); err != nil || size == 0 {
			return err
		}
		return f.reserve(size)
	})
}

func (f *File) reserve(size int64) error {
	err := f.control(func(fd int) error { return fallocate(fd, size) })
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// Sync makes content and length durable. Errors are a *SyncError.
func (f *File) Sync() error {
	return f.sync(Sync, func(fd int) error { return unix.Fsync(fd) })
}

// SyncData makes durable what is needed to read the content back, which can cost
// less than Sync. Errors are a *SyncError.
func (f *File) SyncData() error { return f.sync(SyncData, fdatasync) }

func (f *File) sync(kind Kind, call func(fd int) error) error {
	err := f.root.do(Op{Kind: kind, Name: f.name}, func() error { return f.control(call) })
	if err != nil {
		return &SyncError{Err: fmt.Errorf("file %s: %w", f.name, err)}
	}
	return nil
}

// CloneFrom makes the content that of src without copying it, where the filesystem
// can share blocks; elsewhere it fails and nothing is changed.
func (f *File) CloneFrom(src *File) error {
	return f.root.do(Op{Kind: Write, Name: f.name}, func() error {
		return src.control(func(from int) error {
			return f.control(func(to int) error { return clone(to, from) })
		})
	})
}

// InheritGroup gives the file the group of the folder it will be moved to, when
// that folder passes its group on (setgid), as the kernel would have done had the
// file been made there. Best effort: without the right to it the group stays.
func (f *File) InheritGroup(to *Root, dir string) {
	info, err := to.Stat(dir)
	if err != nil || info.Mode()&fs.ModeSetgid == 0 {
		return
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = f.f.Chown(-1, int(st.Gid))
	}
}

// control runs a system call on the descriptor, again when a signal cut it short.
func (f *File) control(call func(fd int) error) error {
	raw, err := f.f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); callErr != unix.EINTR {
				return
			}
		}
	})
	return errors.Join(err, callErr)
}
