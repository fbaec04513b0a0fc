package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"p2pagent/pkg/swarm"
)

// machine is a Network as one of its machines sees it.
type machine struct {
	net *Network
	ip  netip.Addr
}

// At returns the network as the machine ip sees it, whatever address it is told
// to listen on.
func (n *Network) At(ip netip.Addr) swarm.Net { return machine{n, ip} }

func (m machine) Listen(at netip.AddrPort) (net.Listener, error) {
	return m.net.Listen(netip.AddrPortFrom(m.ip, at.Port()))
}

func (m machine) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return m.net.Dial(ctx, m.ip, to)
}

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
