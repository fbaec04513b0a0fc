package hub

import (
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p2pagent/internal/leaktest"
)

// S18: an idle connection is forgotten by a NAT.
//
// Pooled connections are dropped after 30 s, and the kernel gives up on a peer
// that acknowledges nothing after 20 s: the options are read back from a socket.
func TestS18SocketOptions(t *testing.T) {
	leaktest.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := New(Options{Endpoint: "http://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	transport := c.transport.(*http.Transport)
	conn, err := transport.DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, want int }{
			{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20000},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 5},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("option %d: got %d, %v, want %d", o.name, got, err, o.want)
			}
		}
	})
	if transport.IdleConnTimeout != 30*time.Second || !transport.DisableCompression {
		t.Errorf("pool: %v, compression off: %v", transport.IdleConnTimeout, transport.DisableCompression)
	}
}
