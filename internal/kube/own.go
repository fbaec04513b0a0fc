package kube

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// OwnerError is a folder that is somebody else's.
type OwnerError struct {
	Dir      string
	UID, GID int // whose it is
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("%s is not empty and belongs to %d:%d", e.Dir, e.UID, e.GID)
}

// Own gives dir to uid and gid when there is nothing in it, as the kubelet leaves
// a hostPath that it had to make. One that is uid's stays as it is. Nothing below
// dir is changed ever, so that no cache changes hands by mistake: a folder of
// others with something in it is an OwnerError.
func Own(dir string, uid, gid int) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is := info.Sys().(*syscall.Stat_t)
	if int(is.Uid) == uid {
		return nil
	}
	if used, err := inUse(f); used || err != nil {
		return errors.Join(&OwnerError{dir, int(is.Uid), int(is.Gid)}, err)
	}
	return f.Chown(uid, gid)
}

// inUse tells whether there is something in a folder; what mkfs leaves in the top
// one of a disk is nothing.
func inUse(dir *os.File) (bool, error) {
	names, err := dir.Readdirnames(2)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return slices.ContainsFunc(names, func(n string) bool { return n != "lost+found" }), err
}
