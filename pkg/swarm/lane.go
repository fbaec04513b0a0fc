package swarm

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	ic "github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"p2pagent/internal/sockopt"
	"p2pagent/internal/wire"
)

// lane carries requests for pieces one way and pieces the other: a connection
// of its own or, where that can't be made, a stream of the connection that two
// neighbours have anyway. One goroutine reads and writes; Reset and the
// deadlines may be called from any.
type lane interface {
	Read(b []byte) (int, error)
	Write(b []byte) (int, error)
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
	Reset() error
}

const (
	// laneTimeout bounds connecting and the handshake, each.
	laneTimeout = 5 * time.Second
	// laneQueue is how long a lane waits for a Node to serve it.
	laneQueue = 10 * time.Second
)

// tlsLane is a TLS 1.3 connection with the certificates of libp2p and no muxer:
// half the cost of a stream (docs/design/piece-transport.md).
type tlsLane struct {
	*tls.Conn
	peer    peer.ID
	socket  *socket
	scope   network.ConnManagementScope
	once    sync.Once
	inClear func([]byte) // HostOptions.Clear

	batching bool
}

// Write sends b in as few calls as the kernel takes it.
func (l *tlsLane) Write(b []byte) (int, error) {
	if l.inClear != nil {
		l.inClear(b)
	}
	l.socket.gather(len(b))
	n, err := l.Conn.Write(b)
	return n, errors.Join(err, l.socket.flush())
}

// batch lets the kernel gather bytes before it wakes the reader.
func (l *tlsLane) batch(on bool) {
	if on != l.batching {
		l.batching = on
		sockopt.Batch(l.socket, on)
	}
}

// Reset ends the lane without waiting for what is under way.
func (l *tlsLane) Reset() error { return l.end(l.socket.Conn.Close) }

// Close ends the lane with TLS's goodbye.
func (l *tlsLane) Close() error { return l.end(l.Conn.Close) }

func (l *tlsLane) end(close func() error) (err error) {
	l.once.Do(func() {
		err = close()
		l.scope.Done()
	})
	return err
}

// lanes makes and admits the tlsLanes of a host.
type lanes struct {
	identity *libp2ptls.Identity
	gater    *Gater // nil admits everybody
	port     *port
	arrived  chan *tlsLane // those that others opened
	inClear  func([]byte)  // HostOptions.Clear
}

func newLanes(key ic.PrivKey, gater *Gater, inClear func([]byte)) (*lanes, error) {
	identity, err := libp2ptls.NewIdentity(key)
	if err != nil {
		return nil, fmt.Errorf("TLS identity: %w", err)
	}
	return &lanes{identity: identity, gater: gater, arrived: make(chan *tlsLane), inClear: inClear}, nil
}

// dial opens a lane to p at the first of addrs that answers.
func (ls *lanes) dial(ctx context.Context, p peer.ID, addrs []netip.AddrPort) (*tlsLane, error) {
	if ls.gater != nil && !ls.gater.InterceptPeerDial(p) {
		return nil, fmt.Errorf("open lane to %s: it may not be dialled", p)
	}
	err := errors.New("no address")
	for _, at := range addrs {
		var l *tlsLane
		if l, err = ls.dialAt(ctx, p, at); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("open lane to %s: %w", p, err)
}

func (ls *lanes) dialAt(ctx context.Context, p peer.ID, at netip.AddrPort) (*tlsLane, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, laneTimeout, fmt.Errorf("%s: no answer in %v", at, laneTimeout))
	defer cancel()
	to, err := multiaddrOf(at.String())
	if err != nil {
		return nil, err
	}
	c, scope, err := ls.port.open(ctx, to, p)
	if err != nil {
		return nil, err
	}
	l, err := ls.handshake(ctx, c, scope, p, tls.Client)
	if err != nil {
		drop(c, scope)
		return nil, err
	}
	return l, nil
}

// admit makes a lane of a connection that another member opened and waits until
// a Node takes it.
func (ls *lanes) admit(ctx context.Context, c *conn, scope network.ConnManagementScope) {
	l, err := ls.receive(ctx, c, scope)
	if err != nil {
		drop(c, scope)
		return
	}
	wait := time.NewTimer(laneQueue)
	defer wait.Stop()
	select {
	case ls.arrived <- l:
	case <-wait.C:
		l.Reset()
	case <-ctx.Done():
		l.Reset()
	}
}

// receive asks, once the handshake has said who it is, the gater and the limits.
func (ls *lanes) receive(ctx context.Context, c *conn, scope network.ConnManagementScope) (*tlsLane, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, laneTimeout, errors.New("no TLS handshake in time"))
	defer cancel()
	l, err := ls.handshake(ctx, c, scope, "", tls.Server)
	if err != nil {
		return nil, err
	}
	if ls.gater != nil && !ls.gater.InterceptSecured(network.DirInbound, l.peer, c) {
		return nil, errNotAdmitted
	}
	return l, scope.SetPeer(l.peer)
}

// handshake runs TLS over c. An empty p lets anybody be at the other end.
func (ls *lanes) handshake(ctx context.Context, c *conn, scope network.ConnManagementScope, p peer.ID, side func(net.Conn, *tls.Config) *tls.Conn) (*tlsLane, error) {
	config, key := ls.identity.ConfigForPeer(p)
	config.NextProtos = []string{wire.PieceProtocol}
	config.DynamicRecordSizingDisabled = true // whole records from the first byte on
	s := &socket{Conn: c}
	t := side(s, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if got := t.ConnectionState().NegotiatedProtocol; got != wire.PieceProtocol {
		return nil, fmt.Errorf("protocol %q, want %q", got, wire.PieceProtocol)
	}
	id, err := peer.IDFromPublicKey(<-key)
	if err != nil {
		return nil, err
	}
	return &tlsLane{Conn: t, peer: id, socket: s, scope: scope, inClear: ls.inClear}, nil
}

// socket is what TLS writes its records to: between gather and flush they are
// gathered, since each would be a call to the kernel.
type socket struct {
	net.Conn
	out *[]byte // nil: written at once
}

// NetConn returns what sockopt.Batch is to be applied to.
func (s *socket) NetConn() net.Conn { return s.Conn }

// gathered holds the records of a write of ioStep.
var gathered = sync.Pool{New: func() any { b := make([]byte, 0, ioStep+ioStep/16); return &b }}

// gather prepares for a write of n bytes. Short ones are one record anyway.
func (s *socket) gather(n int) {
	if n > 16<<10 {
		s.out = gathered.Get().(*[]byte)
	}
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	if s.out == nil {
		return s.Conn.Write(b)
	}
	*s.out = append(*s.out, b...)
	return len(b), nil
}

func (s *socket) flush() error {
	out := s.out
	if out == nil {
		return nil
	}
	s.out = nil
	_, err := s.Conn.Write(*out)
	*out = (*out)[:0]
	gathered.Put(out)
	return err
}
