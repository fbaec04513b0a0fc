package sockopt

import (
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wrapped is a connection inside of another.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// pair returns the two ends of a connection over loopback.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

func option(t *testing.T, c net.Conn, level, name int) (v int) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestAReaderInABatchWaits(t *testing.T) {
	near, far := pair(t)
	Batch(wrapped{wrapped{near}}, true)
	if got := option(t, near, unix.SOL_SOCKET, unix.SO_RCVLOWAT); got != batch {
		t.Errorf("SO_RCVLOWAT is %d", got)
	}
	far.Write(make([]byte, 1000))
	near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	// The first call does not wait where there is something already.
	n, err := near.Read(make([]byte, 2000))
	if n == 1000 {
		n, err = near.Read(make([]byte, 2000))
	}
	if ne, ok := err.(net.Error); n != 0 || !ok || !ne.Timeout() {
		t.Errorf("read %d bytes, %v", n, err)
	}
	go far.Write(make([]byte, 2*batch))
	near.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(near, make([]byte, batch)); err != nil {
		t.Error(err)
	}
	Batch(near, false)
	if got := option(t, near, unix.SOL_SOCKET, unix.SO_RCVLOWAT); got != 1 {
		t.Errorf("SO_RCVLOWAT is %d", got)
	}
}

func TestBatchInMemoryDoesNothing(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	Batch(a, true)
	go b.Write([]byte{1})
	if _, err := a.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestUserTimeout(t *testing.T) {
	near, _ := pair(t)
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := UserTimeout(raw); err != nil {
		t.Fatal(err)
	}
	if got := option(t, near, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); time.Duration(got)*time.Millisecond != UserTimeoutLimit {
		t.Errorf("TCP_USER_TIMEOUT is %d ms", got)
	}
}
