//go:build !linux

package sockopt

import (
	"net"
	"syscall"
)

// UserTimeout has no portable form; keep-alive and stall.Reader remain.
func UserTimeout(syscall.RawConn) error { return nil }

func wakeAt(net.Conn, int) {}
