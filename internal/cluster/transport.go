package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// streams is a libp2p transport over a Network in the place of TCP.
type streams struct {
	net      *Network
	ip       netip.Addr
	upgrader transport.Upgrader
	limits   network.ResourceManager
}

// Streams returns a libp2p transport constructor for the machine ip.
func (n *Network) Streams(ip netip.Addr) any {
	return func(u transport.Upgrader, limits network.ResourceManager) *streams {
		return &streams{net: n, ip: ip, upgrader: u, limits: limits}
	}
}

func (s *streams) Dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := s.limits.OpenConnection(network.DirOutbound, true, raddr)
	if err != nil {
		return nil, err
	}
	c, err := s.dial(ctx, raddr, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return c, nil
}

func (s *streams) dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	to, err := addrPort(raddr)
	if err != nil {
		return nil, err
	}
	raw, err := s.net.Dial(ctx, s.ip, to)
	if err != nil {
		return nil, err
	}
	c, err := manet.WrapNetConn(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return s.upgrader.Upgrade(ctx, s, c, network.DirOutbound, p, scope)
}

func addrPort(a ma.Multiaddr) (netip.AddrPort, error) {
	na, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(na.String())
}

func (s *streams) Listen(laddr ma.Multiaddr) (transport.Listener, error) {
	at, err := addrPort(laddr)
	if err != nil {
		return nil, err
	}
	l, err := s.net.Listen(netip.AddrPortFrom(s.ip, at.Port()))
	if err != nil {
		return nil, err
	}
	ml, err := manet.WrapNetListener(l)
	if err != nil {
		return nil, err
	}
	return s.upgrader.UpgradeGatedMaListener(s, s.upgrader.GateMaListener(ml)), nil
}

func (s *streams) CanDial(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil
}

func (s *streams) Protocols() []int { return []int{ma.P_TCP} }
func (s *streams) Proxy() bool      { return false }
func (s *streams) String() string   { return "memory" }

// gossip is memberlist's transport over a Network.
type gossip struct {
	net      *Network
	at       netip.AddrPort
	listener net.Listener
	packets  chan *memberlist.Packet
	streams  chan net.Conn
	stop     chan struct{}
	done     chan struct{}
	once     sync.Once
}

// Gossip returns a memberlist transport that listens on at. Its goroutine ends
// with Shutdown.
func (n *Network) Gossip(at netip.AddrPort) (memberlist.Transport, error) {
	l, err := n.Listen(at)
	if err != nil {
		return nil, err
	}
	g := &gossip{net: n, at: at, listener: l, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn), stop: make(chan struct{}), done: make(chan struct{})}
	n.Packets(at, g.take)
	go g.accept()
	return g, nil
}

// take drops what nobody reads in time, as a socket does.
func (g *gossip) take(from netip.AddrPort, b []byte) {
	select {
	case g.packets <- &memberlist.Packet{Buf: b, From: net.UDPAddrFromAddrPort(from), Timestamp: time.Now()}:
	default:
	}
}

func (g *gossip) accept() {
	defer close(g.done)
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		select {
		case g.streams <- c:
		case <-g.stop:
			c.Close()
		}
	}
}

func (g *gossip) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return g.at.Addr().AsSlice(), int(g.at.Port()), nil
}

func (g *gossip) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("send packet: %w", err)
	}
	g.net.Packet(g.at, to, b)
	return time.Now(), nil
}

func (g *gossip) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	return g.net.Dial(ctx, g.at.Addr(), to)
}

func (g *gossip) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *gossip) StreamCh() <-chan net.Conn           { return g.streams }

func (g *gossip) Shutdown() error {
	g.once.Do(func() {
		g.net.Packets(g.at, nil)
		g.listener.Close()
		close(g.stop)
	})
	<-g.done
	return nil
}
