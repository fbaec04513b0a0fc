package swarm

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// wakeAt sets how many bytes must have come before a reader of c is woken
// (SO_RCVLOWAT). Where it can't be set every packet wakes it.
func wakeAt(c net.Conn, bytes int) {
	if wrapped, ok := c.(*conn); ok {
		c = wrapped.Conn
	}
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
	}
}
