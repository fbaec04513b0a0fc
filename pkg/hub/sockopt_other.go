//go:build !linux

package hub

import "syscall"

// userTimeout has no portable form; keep-alive and stall.Reader remain.
func userTimeout(syscall.RawConn) error { return nil }
