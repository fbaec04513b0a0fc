// Package openfile tells whether any process has a file open.
//
// It asks the kernel for a write lease (fcntl, F_SETLEASE), which it grants only
// when nobody else has the file open or mapped, under whatever name and in
// whatever container, and gives it back at once. That costs three system calls,
// where looking through /proc costs one for each descriptor of the machine and
// sees no other user's.
package openfile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnknown tells that the kernel does not say: the filesystem has no leases, or
// the file belongs to another user.
var ErrUnknown = errors.New("can't tell whether the file is open elsewhere")

// Elsewhere tells whether somebody has the file open besides f, this process
// included. f must be open for reading alone.
func Elsewhere(f *os.File) (bool, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, err
	}
	if cerr := raw.Control(func(fd uintptr) { err = lease(int(fd)) }); cerr != nil {
		return false, cerr
	}
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, unix.EAGAIN):
		return true, nil
	}
	return false, errors.Join(ErrUnknown, os.NewSyscallError("fcntl", err))
}

func lease(fd int) error {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return err
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	return err
}
