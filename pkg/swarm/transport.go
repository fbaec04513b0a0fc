package swarm

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Net is the network that a host's port is on: TCP, or one in memory in tests.
type Net interface {
	// Listen opens a port; port 0 lets the network choose. A port that is taken
	// is an error that wraps syscall.EADDRINUSE.
	Listen(at netip.AddrPort) (net.Listener, error)
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

const (
	connectTimeout = 5 * time.Second
	keepAlive      = 30 * time.Second
)

// tcp is the Net of production. It does not share ports (SO_REUSEPORT), or two
// agents could have one and get half of the connections each.
type tcp struct{}

func (tcp) Listen(at netip.AddrPort) (net.Listener, error) {
	c := net.ListenConfig{KeepAlive: keepAlive}
	return c.Listen(context.Background(), family(at), at.String())
}

// family keeps [::] from taking IPv4 as well, which would name its peers twice.
func family(at netip.AddrPort) string {
	if at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp6"
}

func (tcp) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive}
	c, err := d.DialContext(ctx, family(to), to.String())
	if err != nil {
		return nil, err
	}
	noLinger(c)
	return c, nil
}

// noLinger lets the end of a connection drop what is under way, and leave no
// TIME-WAIT behind.
func noLinger(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}

// port is libp2p's transport over a Net. The lanes share its port.
type port struct {
	net      Net
	upgrader transport.Upgrader
	limits   network.ResourceManager
	lanes    *lanes // gets the connections that begin with TLS
}

// Dial implements transport.Transport.
func (p *port) Dial(ctx context.Context, to ma.Multiaddr, id peer.ID) (transport.CapableConn, error) {
	c, scope, err := p.open(ctx, to, id)
	if err != nil {
		return nil, err
	}
	up, err := p.upgrader.Upgrade(ctx, p, c, network.DirOutbound, id, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return up, nil
}

// open dials within the limits. The caller ends the scope with the connection.
func (p *port) open(ctx context.Context, to ma.Multiaddr, id peer.ID) (*conn, network.ConnManagementScope, error) {
	scope, err := p.limits.OpenConnection(network.DirOutbound, true, to)
	if err != nil {
		return nil, nil, err
	}
	c, err := p.dial(ctx, to, id, scope)
	if err != nil {
		scope.Done()
		return nil, nil, err
	}
	return c, scope, nil
}

func (p *port) dial(ctx context.Context, to ma.Multiaddr, id peer.ID, scope network.ConnManagementScope) (*conn, error) {
	if err := scope.SetPeer(id); err != nil {
		return nil, err
	}
	at, err := addrPortOf(to)
	if err != nil {
		return nil, err
	}
	raw, err := p.net.Dial(ctx, at)
	if err != nil {
		return nil, err
	}
	return newConn(raw)
}

// Listen implements transport.Transport.
func (p *port) Listen(at ma.Multiaddr) (transport.Listener, error) {
	addr, err := addrPortOf(at)
	if err != nil {
		return nil, err
	}
	l, err := p.net.Listen(addr)
	if err != nil {
		return nil, err
	}
	ml, err := newListener(l)
	if err != nil {
		return nil, err
	}
	return p.upgrader.UpgradeGatedMaListener(p, newFork(p.upgrader.GateMaListener(ml), p.lanes.admit)), nil
}

// CanDial implements transport.Transport.
func (p *port) CanDial(a ma.Multiaddr) bool {
	_, err := addrPortOf(a)
	return err == nil
}

// Protocols implements transport.Transport.
func (p *port) Protocols() []int { return []int{ma.P_TCP} }

// Proxy implements transport.Transport.
func (p *port) Proxy() bool { return false }

func (p *port) String() string { return "TCP" }

// addrPortOf is the inverse of multiaddrOf.
func addrPortOf(a ma.Multiaddr) (netip.AddrPort, error) {
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %s: %w", a, err)
	}
	tcp, ok := na.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("address %s: want one of TCP", a)
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// conn is a connection of a Net in the form that libp2p takes. Unlike manet's
// own it keeps hold of the socket.
type conn struct {
	net.Conn
	local, remote ma.Multiaddr
	first         []byte // read already (peek)
}

func newConn(c net.Conn) (*conn, error) {
	local, err := manet.FromNetAddr(c.LocalAddr())
	if err == nil {
		var remote ma.Multiaddr
		if remote, err = manet.FromNetAddr(c.RemoteAddr()); err == nil {
			return &conn{Conn: c, local: local, remote: remote}, nil
		}
	}
	c.Close()
	return nil, err
}

// LocalMultiaddr implements manet.Conn.
func (c *conn) LocalMultiaddr() ma.Multiaddr { return c.local }

// RemoteMultiaddr implements manet.Conn.
func (c *conn) RemoteMultiaddr() ma.Multiaddr { return c.remote }

// NetConn returns the connection of the Net.
func (c *conn) NetConn() net.Conn { return c.Conn }

// listener is a listener of a Net in the form that libp2p takes.
type listener struct {
	net.Listener
	at ma.Multiaddr
}

func newListener(l net.Listener) (*listener, error) {
	at, err := manet.FromNetAddr(l.Addr())
	if err != nil {
		l.Close()
		return nil, err
	}
	return &listener{l, at}, nil
}

// Accept implements manet.Listener; what it returns is a *conn.
func (l *listener) Accept() (manet.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newConn(c)
}

// Multiaddr implements manet.Listener.
func (l *listener) Multiaddr() ma.Multiaddr { return l.at }
