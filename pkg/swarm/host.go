package swarm

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/transport"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	muxer "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2pswarm "github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-yamux/v5"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// HostOptions says who the host is and where it listens.
type HostOptions struct {
	// Identity is this member's key, from LoadIdentity.
	Identity ed25519.PrivateKey
	// Listen is the swarm port's address: ip:port, :port (all IPv4 addresses)
	// or a TCP multiaddr. Port 0 lets the kernel choose.
	Listen string
	// Advertise is the ip:port addresses that others are told to dial. Empty:
	// what the host finds on its interfaces.
	Advertise []string
	// Gater decides who may connect; nil admits everybody. Whom it admits keeps
	// getting in when strangers use up the limits.
	Gater *Gater
	// Members is for how many members the limits are sized (default 1024).
	Members int
	// Software is what the host calls itself to other members.
	Software string
	// Net stands in for TCP (tests).
	Net Net
	// Clear is told what is written to other members, before it is encrypted (tests).
	Clear func([]byte)

	mux *yamux.Config // stands in for muxing (benchmarks)
}

// Host is a libp2p host whose port takes lanes as well.
type Host struct {
	host.Host
	lanes *lanes
}

// NewHost returns a host that listens: TCP, TLS 1.3 before Noise, yamux,
// and nothing that a closed swarm has no use for (relays, NAT traversal,
// address discovery, ping). Unlike other constructors it opens its port and
// starts libp2p's goroutines; Close ends them. A port that is taken is an error
// that wraps syscall.EADDRINUSE and names the address.
func NewHost(o HostOptions) (*Host, error) {
	listen, err := listenAddr(o.Listen)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	key, err := hostKey(o.Identity)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	ls, err := newLanes(key, o.Gater, o.Clear)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	opts, err := hostOptions(o, key, ls)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("new host: %w", err)
	}
	// Not through libp2p's own option: that one turns the cause into a string.
	if err := h.Network().(interface{ AddListenAddr(ma.Multiaddr) error }).AddListenAddr(listen); err != nil {
		h.Close()
		return nil, fmt.Errorf("new host: %w", listenError(listen, err))
	}
	return &Host{h, ls}, nil
}

func listenError(listen ma.Multiaddr, err error) error {
	_, hostport, _ := manet.DialArgs(listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s: %w: another process (an agent that still runs?) has this port; stop it or choose another swarm port", hostport, syscall.EADDRINUSE)
	}
	return fmt.Errorf("listen on %s: %w", hostport, err)
}

func listenAddr(s string) (ma.Multiaddr, error) {
	if strings.HasPrefix(s, "/") {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", s, err)
		}
		return a, nil
	}
	if strings.HasPrefix(s, ":") {
		s = "0.0.0.0" + s
	}
	return multiaddrOf(s)
}

// multiaddrOf turns ip:port into /ip4|ip6/IP/tcp/PORT.
func multiaddrOf(addr string) (ma.Multiaddr, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q: want ip:port: %w", addr, err)
	}
	return manet.FromNetAddr(net.TCPAddrFromAddrPort(ap))
}

func multiaddrsOf(addrs []string) ([]ma.Multiaddr, error) {
	out := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		m, err := multiaddrOf(a)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func hostOptions(o HostOptions, key crypto.PrivKey, ls *lanes) ([]libp2p.Option, error) {
	limits, err := newLimits(o.Members)
	if err != nil {
		return nil, err
	}
	advertise, err := multiaddrsOf(o.Advertise)
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.UserAgent(o.Software),
		libp2p.Security(libp2ptls.ID, libp2ptls.New), libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(muxer.ID, clearMuxer(o)),
		libp2p.ResourceManager(limits), libp2p.ConnectionManager(connmgr.NullConnMgr{}),
		libp2p.DisableRelay(), libp2p.Ping(false), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.ForceReachabilityPrivate(), libp2p.WithDialTimeout(5 * time.Second),
		libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.Transport(func(u transport.Upgrader, limits network.ResourceManager) *port {
			ls.port = &port{net: cmp.Or[Net](o.Net, tcp{}), upgrader: u, limits: limits, lanes: ls}
			return ls.port
		}),
	}
	if o.Gater != nil {
		o.Gater.trust(rcmgr.GetAllowlist(limits))
		opts = append(opts, libp2p.ConnectionGater(o.Gater))
	}
	if len(advertise) > 0 {
		opts = append(opts, libp2p.AddrsFactory(func([]ma.Multiaddr) []ma.Multiaddr { return advertise }))
	}
	return opts, nil
}

// muxing is yamux tuned for pieces of 4 MiB and more between machines of one
// network, by BenchmarkPieces: best of five on two cores, CPU of both ends.
//
//	message  64 KiB 1.4 s/GB, 16 KiB 1.7, 256 KiB 1.9
//	read buffer  none 1.4, 4 KiB 1.8, 32 KiB 1.7 (TLS has one already)
//	window  256 KiB growing to 4 MiB: as fast as starting at 1 MiB
//
// Writes of 256 KiB cost 1.4 s/GB, of 64 KiB 1.9, of 1 MiB 1.6.
func muxing() *yamux.Config {
	c := yamux.DefaultConfig()
	c.LogOutput = io.Discard
	c.ReadBufSize = 0
	c.MaxMessageSize = 64 << 10
	// A control stream holds 256 KiB at most, one for pieces grows to 4 MiB: at
	// 1 ms that carries 4 GB/s, at 50 ms 80 MB/s a stream, and a reader that
	// stops costs no more than that.
	c.InitialStreamWindowSize = 256 << 10
	c.MaxStreamWindowSize = 4 << 20
	// The resource manager limits streams.
	c.MaxIncomingStreams = math.MaxUint32
	// Notice a silent peer that owes us nothing: 5 s idle, 10 s for the answer.
	c.KeepAliveInterval = 5 * time.Second
	c.ConnectionWriteTimeout = 10 * time.Second
	return c
}

// clearMuxer returns the muxer; it is what is above the encryption.
func clearMuxer(o HostOptions) network.Multiplexer {
	m := (*muxer.Transport)(cmp.Or(o.mux, muxing()))
	if o.Clear == nil {
		return m
	}
	return tappedMuxer{m, o.Clear}
}

type tappedMuxer struct {
	network.Multiplexer
	inClear func([]byte)
}

// NewConn implements network.Multiplexer.
func (m tappedMuxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	return m.Multiplexer.NewConn(tappedConn{c, m.inClear}, server, scope)
}

type tappedConn struct {
	net.Conn
	inClear func([]byte)
}

// Write implements net.Conn.
func (c tappedConn) Write(b []byte) (int, error) {
	c.inClear(b)
	return c.Conn.Write(b)
}

// Multiaddrs returns where to dial the member, best first.
func (f Facts) Multiaddrs() []ma.Multiaddr {
	addrs, _ := multiaddrsOf(f.Addrs) // checked when decoded
	return addrs
}

// Info returns whom to dial and where.
func (f Facts) Info() peer.AddrInfo { return peer.AddrInfo{ID: f.Peer, Addrs: f.Multiaddrs()} }

// Connect makes sure that h has a connection to the member, dialling what its
// facts say now. It forgets libp2p's own back-off: when to try again is the
// caller's decision.
func Connect(ctx context.Context, h host.Host, f Facts) error {
	info := f.Info()
	if h.Network().Connectedness(info.ID) == network.Connected {
		return nil
	}
	if s, ok := h.Network().(*libp2pswarm.Swarm); ok {
		s.Backoff().Clear(info.ID)
	}
	h.Peerstore().ClearAddrs(info.ID)
	h.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	if err := h.Connect(ctx, info); err != nil {
		return fmt.Errorf("connect to %s (%s): %w", f.Name, f.Peer, err)
	}
	return nil
}
