package sockopt

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// UserTimeout sets TCP_USER_TIMEOUT to UserTimeoutLimit.
func UserTimeout(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(UserTimeoutLimit.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}

// wakeAt fails silently: then every packet wakes the reader, as usual.
func wakeAt(c net.Conn, bytes int) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := s.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
	}
}
