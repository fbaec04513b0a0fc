package cachefs

import (
	"errors"
	"fmt"
	"syscall"

	"p2pagent/internal/durable"
)

// Answers to what a caller asks.
var (
	ErrNotHeld     = errors.New("piece not held")
	ErrNotBegun    = errors.New("blob not begun")
	ErrIncomplete  = errors.New("blob incomplete")
	ErrNotCached   = errors.New("not in the cache")
	ErrCrossDevice = errors.New("state and cache are on different filesystems or mounts")
	ErrInside      = errors.New("state lies inside the cache")
	ErrClosed      = errors.New("cache closed")
)

// BusyError tells that another process uses the cache or the state.
type BusyError struct {
	Dir string
	PID int // 0 when the holder can't be seen from here
}

func (e *BusyError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is in use by another p2pagent", e.Dir)
	}
	return fmt.Sprintf("%s is in use by process %d", e.Dir, e.PID)
}

// NoSpaceError tells that the disk is, or would become, full.
type NoSpaceError struct {
	Need int64 // bytes that the operation still has to write
	Free int64 // bytes that an ordinary user can still write in Dir
	Dir  string
	Err  error // the system's error when a write ran into the end, else nil

	Quota int64 // when that is what is full: Free is what is left of it
}

func (e *NoSpaceError) Error() string {
	if e.Quota > 0 {
		return fmt.Sprintf("no room in %s: need %d bytes, %d left of a quota of %d", e.Dir, e.Need, e.Free, e.Quota)
	}
	return fmt.Sprintf("no space in %s: need %d bytes, %d free", e.Dir, e.Need, e.Free)
}

// Unwrap returns the system's error; without one the error is ENOSPC all the same.
func (e *NoSpaceError) Unwrap() error {
	if e.Err == nil {
		return syscall.ENOSPC
	}
	return e.Err
}

// Permanent tells a fetcher that trying again at once is no use.
func (e *NoSpaceError) Permanent() bool { return true }

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// diskError is the one place where an error of the disk gets its type and its
// words. need is what the operation had still to write. A failed sync, unless the
// disk was only full, ends the use of the cache: the kernel forgets which pages
// were lost, so nothing written since can be believed.
func (c *Cache) diskError(need int64, err error, operation string, args ...any) error {
	if err == nil {
		return nil
	}
	var full *NoSpaceError
	if isNoSpace(err) && !errors.As(err, &full) {
		free, _ := c.free()
		err = &NoSpaceError{Need: need, Free: free, Dir: c.hubDir, Err: err}
	}
	err = fmt.Errorf(operation+": %w", append(args, err)...)
	var failed *durable.SyncError
	if errors.As(err, &failed) && !isNoSpace(err) {
		c.fail(err)
	}
	return err
}
