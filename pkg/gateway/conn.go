package gateway

import (
	"io"
	"net"
	"sync"
	"time"
)

// writeWait is how long a client may take for one step of a response, and
// writeStep how long a step is. A response as a whole has no limit.
const (
	writeWait = 2 * time.Minute
	writeStep = 8 << 20
)

// maxConns is how many connections there are at once; more wait to be accepted.
const maxConns = 1024

// boundedListener bounds its connections: how many there are, and what they wait
// for.
type boundedListener struct {
	net.Listener
	room chan struct{}
}

// Accept implements net.Listener.
func (l boundedListener) Accept() (net.Conn, error) {
	l.room <- struct{}{} // connections end: each of their waits is bounded
	c, err := l.Listener.Accept()
	tcp, ok := c.(*net.TCPConn)
	if err != nil || !ok {
		<-l.room
		return c, err
	}
	return &boundedConn{tcp, sync.OnceFunc(func() { <-l.room })}, nil
}

// boundedConn gives up on a client that takes nothing. It stays a connection that
// files leave by sendfile on.
type boundedConn struct {
	*net.TCPConn
	gone func()
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.gone()
	return c.TCPConn.Close()
}

// Write implements io.Writer.
func (c *boundedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return 0, err
	}
	return c.TCPConn.Write(p)
}

// ReadFrom implements io.ReaderFrom. net/http hands over a limited file.
func (c *boundedConn) ReadFrom(r io.Reader) (total int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: 1<<63 - 1}
	}
	for limited.N > 0 && err == nil {
		if err = c.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
			break
		}
		step := &io.LimitedReader{R: limited.R, N: min(limited.N, writeStep)}
		var n int64
		n, err = c.TCPConn.ReadFrom(step)
		total, limited.N = total+n, limited.N-n
		if n == 0 {
			break
		}
	}
	return total, err
}
