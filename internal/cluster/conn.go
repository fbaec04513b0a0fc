package cluster

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// segment is what a write is cut into: the grain at which links are shared.
	segment = 16 << 10
	// buffers is how many bytes a connection holds beyond what is on the way, as
	// a socket's buffers do: the writer of more waits.
	buffers = 256 << 10
	// urgent is how long a write may be that never waits. TLS says goodbye while
	// yamux holds a lock, and virtual time does not pass while anybody waits for
	// a lock.
	urgent = 256
)

// flow carries bytes one way of a connection.
type flow struct {
	net      *Network
	from, to netip.Addr

	mu      sync.Mutex // guards all below; never held while waiting
	queue   []chunk
	size    int
	err     error         // why writing is over
	broken  error         // why reading is over at once, whatever is queued
	gone    bool          // the reader closed: a writer that can hear of it is reset
	changed chan struct{} // closed and replaced on every change
}

// chunk is bytes and when they are there. No bytes: the end.
type chunk struct {
	data []byte
	at   time.Time
	end  bool
}

func newFlow(n *Network, from, to netip.Addr) *flow {
	return &flow{net: n, from: from, to: to, changed: make(chan struct{})}
}

func (f *flow) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// write queues one segment, waiting for room only: the links' rate decides
// when it arrives, so room comes as fast as the links are.
func (f *flow) write(b []byte, d *deadline) error {
	for {
		select {
		case <-d.wait():
			return os.ErrDeadlineExceeded
		default:
		}
		full, err := f.put(b)
		if full == nil || err != nil {
			return err
		}
		if err := f.await(time.Time{}, full, d); err != nil {
			return err
		}
	}
}

// put queues b. When there is no room it returns a channel to wait on.
func (f *flow) put(b []byte) (full <-chan struct{}, err error) {
	deaf := f.net.severed(f.to, f.from)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return nil, f.err
	case f.gone && !deaf:
		return nil, syscall.ECONNRESET
	case f.size >= f.net.window && len(b) > urgent:
		return f.changed, nil
	}
	f.queue = append(f.queue, chunk{data: append([]byte(nil), b...), at: f.net.route(f.from, f.to, len(b))})
	f.size += len(b)
	f.notify()
	return nil, nil
}

// read takes what has arrived, waiting for the first byte.
func (f *flow) read(b []byte, d *deadline) (int, error) {
	for {
		select {
		case <-d.wait():
			return 0, os.ErrDeadlineExceeded
		default:
		}
		n, due, changed, err := f.take(b)
		if n > 0 || err != nil {
			return n, err
		}
		if err := f.await(due, changed, d); err != nil {
			return 0, err
		}
	}
}

// take returns what is there now, else when to look again.
func (f *flow) take(b []byte) (n int, due time.Time, changed <-chan struct{}, err error) {
	cut := f.net.severed(f.from, f.to)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.broken != nil:
		return 0, due, nil, f.broken
	case len(f.queue) == 0 || cut:
		return 0, due, f.changed, nil
	case f.queue[0].at.After(time.Now()):
		return 0, f.queue[0].at, f.changed, nil
	case f.queue[0].end:
		return 0, due, nil, io.EOF
	}
	c := &f.queue[0]
	n = copy(b, c.data)
	if c.data = c.data[n:]; len(c.data) == 0 {
		f.queue = f.queue[1:]
	}
	f.size -= n
	f.notify()
	return n, due, nil, nil
}

// await waits for a change, an instant or the deadline.
func (f *flow) await(due time.Time, changed <-chan struct{}, d *deadline) error {
	var timer <-chan time.Time
	if !due.IsZero() {
		t := time.NewTimer(time.Until(due))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
	case <-timer:
	case <-d.wait():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// finish ends writing after what is queued.
func (f *flow) finish(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.err = err
	at := time.Now().Add(f.net.latency)
	if n := len(f.queue); n > 0 && f.queue[n-1].at.After(at) {
		at = f.queue[n-1].at
	}
	f.queue = append(f.queue, chunk{at: at, end: true})
	f.notify()
}

// leave ends reading.
func (f *flow) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = net.ErrClosed
	}
	f.gone = true
	f.notify()
}

// abort ends both ends of the flow now.
func (f *flow) abort(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = err
	}
	if f.err == nil {
		f.err = err
	}
	f.queue, f.size = nil, 0
	f.notify()
}

// wake has both ends look again.
func (f *flow) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notify()
}

// conn is one end of a connection.
type conn struct {
	net           *Network
	local, remote netip.AddrPort
	in, out       *flow
	rd, wd        deadline
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := c.in.read(b, &c.rd)
	return n, c.wrap("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		part := b[n:min(n+segment, len(b))]
		if err := c.out.write(part, &c.wd); err != nil {
			return n, c.wrap("write", err)
		}
		n += len(part)
	}
	return n, nil
}

func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close ends the connection: the other end reads what is under way, then EOF.
func (c *conn) Close() error {
	c.out.finish(net.ErrClosed)
	c.in.leave()
	c.net.drop(c)
	return nil
}

func (c *conn) reset(err error) {
	c.out.abort(err)
	c.in.abort(err)
	c.net.drop(c)
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error {
	c.rd.set(t)
	c.wd.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.rd.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.wd.set(t)
	return nil
}

// SetKeepAlive and its like are asked of TCP connections.
func (c *conn) SetKeepAlive(bool) error                { return nil }
func (c *conn) SetKeepAlivePeriod(time.Duration) error { return nil }
func (c *conn) SetLinger(int) error                    { return nil }

// deadline is a point in time that can be moved while somebody waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // it fired, or is about to
	}
	d.timer = nil
	if d.done == nil || closed(d.done) {
		d.done = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(done) })
		return
	}
	close(done)
}

func (d *deadline) wait() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
