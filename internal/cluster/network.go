package cluster

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Network is a network in memory. Machines on it are IP addresses; they need
// not be announced. The zero Network is not usable: NewNetwork.
type Network struct {
	latency time.Duration
	window  int // bytes that a connection holds one way

	mu        sync.Mutex // guards all below
	listeners map[netip.AddrPort]*listener
	packets   map[netip.AddrPort]func(from netip.AddrPort, b []byte)
	cut       map[[2]netip.Addr]bool // directed: packets from [0] to [1] vanish
	shapes    map[netip.Addr]*shape
	conns     map[*conn]bool
	dead      map[netip.Addr]bool
	ports     uint16
	healed    chan struct{} // closed and replaced when a link heals
	carried   map[netip.Addr]int64
}

// shape is the bandwidth of one machine's link.
type shape struct{ up, down pipe }

// fastest is the rate that one connection can reach whatever the latency.
const fastest = 125_000_000

// pipe says how fast bytes go one way and when it is free for the next.
type pipe struct {
	rate int64 // bytes a second, 0 for no limit
	free time.Time
}

// take reserves the pipe for n bytes from t on and returns when the last one is
// through.
func (p *pipe) take(t time.Time, n int) time.Time {
	if p.rate <= 0 {
		return t
	}
	if p.free.Before(t) {
		p.free = t
	}
	p.free = p.free.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	return p.free
}

// NewNetwork returns a network whose links all have the given one-way latency.
func NewNetwork(latency time.Duration) *Network {
	return &Network{
		latency: latency, window: buffers + int(2*latency.Seconds()*fastest), listeners: map[netip.AddrPort]*listener{},
		packets: map[netip.AddrPort]func(netip.AddrPort, []byte){},
		cut:     map[[2]netip.Addr]bool{}, shapes: map[netip.Addr]*shape{}, conns: map[*conn]bool{}, dead: map[netip.Addr]bool{},
		ports: 32768, healed: make(chan struct{}), carried: map[netip.Addr]int64{},
	}
}

// Shape limits a machine's link, in bytes a second each way; 0 is no limit.
func (n *Network) Shape(ip netip.Addr, up, down int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shapes[ip] = &shape{up: pipe{rate: up}, down: pipe{rate: down}}
}

// Cut makes everything from a to b vanish, without a word to either. What was
// written on streams is kept, as TCP would, until Heal.
func (n *Network) Cut(a, b netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]netip.Addr{a, b}] = true
}

// Heal ends Cut.
func (n *Network) Heal(a, b netip.Addr) {
	n.mu.Lock()
	delete(n.cut, [2]netip.Addr{a, b})
	close(n.healed)
	n.healed = make(chan struct{})
	ends := n.ends(a)
	n.mu.Unlock()
	for _, c := range ends {
		c.in.wake()
		c.out.wake()
	}
}

// ends returns the connection ends that a machine has a part in. n.mu is held.
func (n *Network) ends(ip netip.Addr) []*conn {
	var out []*conn
	for c := range n.conns {
		if c.local.Addr() == ip || c.remote.Addr() == ip {
			out = append(out, c)
		}
	}
	return out
}

// Kill resets every connection of a machine and closes its ports, as the kernel
// does for a process that dies. What still runs on it hears and says nothing
// until Revive.
func (n *Network) Kill(ip netip.Addr) {
	n.mu.Lock()
	n.dead[ip] = true
	ends := n.ends(ip)
	for at, l := range n.listeners {
		if at.Addr() == ip {
			delete(n.listeners, at)
			l.end()
		}
	}
	for at := range n.packets {
		if at.Addr() == ip {
			delete(n.packets, at)
		}
	}
	n.mu.Unlock()
	for _, c := range ends {
		c.reset(syscall.ECONNRESET)
	}
}

// Revive lets a machine that was killed open ports and connections again.
func (n *Network) Revive(ip netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.dead, ip)
}

// Carried returns how many bytes of streams the machine sent.
func (n *Network) Carried(ip netip.Addr) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.carried[ip]
}

// severed reports whether the link is cut.
func (n *Network) severed(from, to netip.Addr) bool {
	cut, _ := n.outage(from, to)
	return cut
}

// outage reports whether the link is cut, and a channel that is closed when
// that may have ended.
func (n *Network) outage(from, to netip.Addr) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[[2]netip.Addr{from, to}], n.healed
}

// route reserves the links for size bytes and returns when they are there.
func (n *Network) route(from, to netip.Addr, size int) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.carried[from] += int64(size)
	at := time.Now()
	if s := n.shapes[from]; s != nil {
		at = s.up.take(at, size)
	}
	at = at.Add(n.latency)
	if s := n.shapes[to]; s != nil {
		at = s.down.take(at, size)
	}
	return at
}

// Listen opens a port. Port 0 chooses one.
func (n *Network) Listen(at netip.AddrPort) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.port())
	}
	if n.dead[at.Addr()] {
		return nil, fmt.Errorf("listen on %s: %w", at, syscall.ENETDOWN)
	}
	if n.listeners[at] != nil {
		return nil, fmt.Errorf("listen on %s: %w", at, syscall.EADDRINUSE)
	}
	l := &listener{net: n, at: at, queue: make(chan *conn, 256), done: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

func (n *Network) port() uint16 {
	n.ports++
	if n.ports < 32768 {
		n.ports = 32768
	}
	return n.ports
}

// Dial connects a machine to a port. On a cut link it waits for ctx, as TCP
// does; where nobody listens it is refused.
func (n *Network) Dial(ctx context.Context, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	local := netip.AddrPortFrom(from, n.port())
	n.mu.Unlock()
	if err := n.handshake(ctx, from, to.Addr()); err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[to]
	if l == nil || n.dead[from] {
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	near, far := n.pair(local, to)
	select {
	case l.queue <- far:
		return near, nil
	default:
		return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
}

// handshake waits one round trip over links that are not cut.
func (n *Network) handshake(ctx context.Context, a, b netip.Addr) error {
	for _, way := range [][2]netip.Addr{{a, b}, {b, a}} {
		for cut, healed := n.outage(way[0], way[1]); cut; cut, healed = n.outage(way[0], way[1]) {
			select {
			case <-healed:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := sleep(ctx, time.Until(n.route(way[0], way[1], 0))); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pair makes the two ends of a connection. n.mu is held.
func (n *Network) pair(local, remote netip.AddrPort) (near, far *conn) {
	there, back := newFlow(n, local.Addr(), remote.Addr()), newFlow(n, remote.Addr(), local.Addr())
	near = &conn{net: n, local: local, remote: remote, out: there, in: back}
	far = &conn{net: n, local: remote, remote: local, out: back, in: there}
	n.conns[near], n.conns[far] = true, true
	return near, far
}

func (n *Network) drop(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// Packet sends a datagram; like UDP it says nothing when it is lost.
func (n *Network) Packet(from, to netip.AddrPort, b []byte) {
	if n.severed(from.Addr(), to.Addr()) {
		return
	}
	data := append([]byte(nil), b...)
	time.AfterFunc(time.Until(n.route(from.Addr(), to.Addr(), len(b))), func() {
		n.mu.Lock()
		take, dead := n.packets[to], n.dead[from.Addr()]
		n.mu.Unlock()
		if take != nil && !dead {
			take(from, data)
		}
	})
}

// Packets has datagrams to a port handed to take, which must not block. Nil
// closes the port.
func (n *Network) Packets(at netip.AddrPort, take func(from netip.AddrPort, b []byte)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if take == nil {
		delete(n.packets, at)
		return
	}
	n.packets[at] = take
}

type listener struct {
	net   *Network
	at    netip.AddrPort
	queue chan *conn
	done  chan struct{}
	once  sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	if l.net.listeners[l.at] == l {
		delete(l.net.listeners, l.at)
	}
	l.net.mu.Unlock()
	l.end()
	return nil
}

func (l *listener) end() {
	l.once.Do(func() {
		close(l.done)
		for {
			select {
			case c := <-l.queue:
				go c.reset(syscall.ECONNRESET)
			default:
				return
			}
		}
	})
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
