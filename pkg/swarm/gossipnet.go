package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

// netTransport is memberlist's own, whose dials end with the member's Run.
type netTransport struct {
	*memberlist.NetTransport
	ctx        context.Context
	everywhere bool // bound to all addresses
}

func newNetTransport(ctx context.Context, o *MemberOptions, logger *log.Logger) (*netTransport, error) {
	bind := cmp.Or(o.Bind, "0.0.0.0")
	ip, err := netip.ParseAddr(bind)
	if err != nil {
		return nil, fmt.Errorf("gossip address %q: want an IP address", bind)
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{bind}, BindPort: o.Port, Logger: logger})
	if err != nil {
		return nil, gossipPortError(net.JoinHostPort(bind, strconv.Itoa(o.Port)), err)
	}
	return &netTransport{NetTransport: t, ctx: ctx, everywhere: ip.IsUnspecified()}, nil
}

// gossipPortError finds out whether the port is taken: memberlist's error is
// text only.
func gossipPortError(addr string, err error) error {
	if errors.Is(tryListen(addr), syscall.EADDRINUSE) {
		return fmt.Errorf("listen on %s (TCP and UDP): %w: another process (an agent that still runs?) has this port; stop it or choose another gossip port", addr, syscall.EADDRINUSE)
	}
	return fmt.Errorf("listen on %s (TCP and UDP): %w", addr, err)
}

func tryListen(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	defer l.Close()
	p, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return p.Close()
}

// FinalAdvertiseAddr finds the address when none was given. memberlist's own
// would take the first private one, be it a container bridge, and give up on a
// machine that has only public ones.
func (t *netTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	port = cmp.Or(port, t.GetAutoBindPort())
	if ip == "" && t.everywhere {
		addr, err := AdvertiseIP()
		if err != nil {
			return nil, 0, err
		}
		return addr.AsSlice(), port, nil
	}
	addr, _, err := t.NetTransport.FinalAdvertiseAddr(ip, port)
	return addr, port, err
}

// DialAddressTimeout dials for an exchange of state.
func (t *netTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return endWith(t.ctx, c), nil
}

// DialTimeout is DialAddressTimeout without a name.
func (t *netTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// endingConn is closed when a context ends.
type endingConn struct {
	net.Conn
	stop func() bool
}

func endWith(ctx context.Context, c net.Conn) net.Conn {
	return endingConn{c, context.AfterFunc(ctx, func() { c.Close() })}
}

// Close closes the connection and forgets the context.
func (c endingConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// AdvertiseIP returns the address that other machines most likely reach this
// one at: the source address of the default route, else the first that is up
// and not loopback. No packet is sent.
func AdvertiseIP() (netip.Addr, error) {
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", far); err == nil {
			ap, err := netip.ParseAddrPort(c.LocalAddr().String())
			c.Close()
			if err == nil && !ap.Addr().IsLoopback() && !ap.Addr().IsUnspecified() {
				return ap.Addr().Unmap(), nil
			}
		}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find own address: %w", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			return p.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("find own address: only loopback addresses here; say which one to advertise")
}
