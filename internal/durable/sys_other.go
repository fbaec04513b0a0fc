//go:build unix && !linux

package durable

import (
	"errors"

	"golang.org/x/sys/unix"
)

func fallocate(int, int64) error { return errors.ErrUnsupported }

func fdatasync(fd int) error { return unix.Fsync(fd) }

func linkOpen(int, int, string) error { return errors.ErrUnsupported }

func clone(int, int) error { return errors.ErrUnsupported }
