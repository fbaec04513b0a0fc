package swarm

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// tlsHandshake is the first byte of a TLS connection: the type of its first
	// record (RFC 8446, section 5.1). libp2p begins with a length (multistream).
	tlsHandshake = 0x16
	// forkPatience is how long a connection may take to send its first byte. How
	// many wait at once is bounded by the limits on strangers.
	forkPatience = 5 * time.Second
)

// fork splits the connections of one port by their first byte: those of libp2p
// come out of Accept, TLS is handed to pieces. It ends with Close.
type fork struct {
	transport.GatedMaListener
	pieces func(context.Context, *conn, network.ConnManagementScope)

	swarm chan forked
	ctx   context.Context // ends with the listener
	end   context.CancelFunc
	once  sync.Once
	work  sync.WaitGroup
}

// forked is what Accept returns.
type forked struct {
	conn  manet.Conn
	scope network.ConnManagementScope
	err   error
}

// newFork starts to accept at once.
func newFork(l transport.GatedMaListener, pieces func(context.Context, *conn, network.ConnManagementScope)) *fork {
	f := &fork{GatedMaListener: l, pieces: pieces, swarm: make(chan forked)}
	f.ctx, f.end = context.WithCancel(context.Background())
	f.work.Go(f.run)
	return f
}

func (f *fork) run() {
	defer f.end()
	for {
		c, scope, err := f.GatedMaListener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // libp2p waits a little, or closes the listener
			f.give(forked{err: err})
			continue
		}
		f.work.Go(func() { f.route(c.(*conn), scope) })
	}
}

// route finds out what a connection is and passes it on.
func (f *fork) route(c *conn, scope network.ConnManagementScope) {
	noLinger(c.Conn)
	stop := context.AfterFunc(f.ctx, func() { c.Close() })
	first, err := c.peek(forkPatience)
	stop()
	switch {
	case err != nil:
		drop(c, scope)
	case first == tlsHandshake:
		f.pieces(f.ctx, c, scope)
	case !f.give(forked{conn: c, scope: scope}):
		drop(c, scope)
	}
}

func (f *fork) give(x forked) bool {
	select {
	case f.swarm <- x:
		return true
	case <-f.ctx.Done():
		return false
	}
}

func drop(c io.Closer, scope network.ConnManagementScope) {
	c.Close()
	scope.Done()
}

// Accept implements transport.GatedMaListener.
func (f *fork) Accept() (manet.Conn, network.ConnManagementScope, error) {
	select {
	case c := <-f.swarm:
		return c.conn, c.scope, c.err
	case <-f.ctx.Done():
		return nil, nil, net.ErrClosed
	}
}

// Close implements transport.GatedMaListener. libp2p calls it twice.
func (f *fork) Close() error {
	var err error
	f.once.Do(func() {
		f.end()
		err = f.GatedMaListener.Close()
	})
	f.work.Wait()
	return err
}

// peek reads the first byte and puts it back.
func (c *conn) peek(patience time.Duration) (byte, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	defer c.SetReadDeadline(time.Time{})
	first := make([]byte, 1)
	if _, err := io.ReadFull(c.Conn, first); err != nil {
		return 0, err
	}
	c.first = first
	return first[0], nil
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
