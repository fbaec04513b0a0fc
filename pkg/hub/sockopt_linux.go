package hub

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeoutLimit is how long sent bytes may stay unacknowledged before the
// kernel gives the connection up; without it that takes about 15 minutes.
const userTimeoutLimit = 20 * time.Second

func userTimeout(raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeoutLimit.Milliseconds()))
	})
	if err != nil {
		return err
	}
	return failed
}
