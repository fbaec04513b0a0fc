package cluster

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/pkg/swarm"
)

// Ports of every machine.
const (
	SwarmPort  = 4001
	GossipPort = 7946
)

// Options says what the machine room is like. The zero value is an open swarm
// on links of half a millisecond without limits.
type Options struct {
	Key      swarm.Key
	KeyOf    func(index int) swarm.Key // overrides Key
	Latency  time.Duration             // one way, default 0.5 ms
	Up, Down int64                     // bytes a second of each machine's link, 0 for no limit
	Software string
	Host     func(index int, o *swarm.HostOptions) // last word on a host's options
}

// Cluster is a number of machines on one network.
type Cluster struct {
	Net   *Network
	Nodes []*Node
	t     testing.TB
	opts  Options
}

// Node is the parts of one member, not yet wired.
type Node struct {
	Index    int
	Name     string // n00, n01, ...
	IP       netip.Addr
	Dir      string // empty, on the real disk
	Key      swarm.Key
	Identity ed25519.PrivateKey
	Peer     peer.ID
	Gater    *swarm.Gater
	Host     *swarm.Host
	Gossip   memberlist.Transport
}

// New builds n machines. Hosts and gossip transports are closed when the test
// ends, if they are not by then.
func New(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	if o.Latency == 0 {
		o.Latency = 500 * time.Microsecond
	}
	c := &Cluster{Net: NewNetwork(o.Latency), t: t, opts: o}
	for range n {
		c.Add()
	}
	return c
}

// Add builds one more machine.
func (c *Cluster) Add() *Node {
	c.t.Helper()
	i := len(c.Nodes)
	n := &Node{
		Index: i, Name: fmt.Sprintf("n%02d", i), IP: netip.AddrFrom4([4]byte{10, 0, byte((i + 1) >> 8), byte(i + 1)}),
		Dir: c.t.TempDir(), Key: c.opts.Key,
	}
	if c.opts.KeyOf != nil {
		n.Key = c.opts.KeyOf(i)
	}
	c.Net.Shape(n.IP, c.opts.Up, c.opts.Down)
	if err := n.identify(); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Start(n); err != nil {
		c.t.Fatal(err)
	}
	c.Nodes = append(c.Nodes, n)
	return n
}

func (n *Node) identify() error {
	state := filepath.Join(n.Dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		return err
	}
	dir, err := os.OpenRoot(state)
	if err != nil {
		return err
	}
	defer dir.Close()
	if n.Identity, err = swarm.LoadIdentity(dir); err != nil {
		return err
	}
	maker := [ed25519.PublicKeySize]byte(n.Identity.Public().(ed25519.PublicKey))
	n.Peer, err = swarm.PeerOf(maker)
	return err
}

// Start gives a machine a new gater, host and gossip transport: the first time,
// and after Kill.
func (c *Cluster) Start(n *Node) (err error) {
	c.Net.Revive(n.IP)
	n.Gater = swarm.NewGater(n.Key)
	o := swarm.HostOptions{
		Identity: n.Identity, Listen: n.SwarmAddr(), Advertise: []string{n.SwarmAddr()},
		Gater: n.Gater, Software: c.opts.Software, Net: c.Net.At(n.IP),
	}
	if c.opts.Host != nil {
		c.opts.Host(n.Index, &o)
	}
	if n.Host, err = swarm.NewHost(o); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	host := n.Host
	c.t.Cleanup(func() { host.Close() })
	if n.Gossip, err = c.Net.Gossip(netip.AddrPortFrom(n.IP, GossipPort)); err != nil {
		return fmt.Errorf("start %s: %w", n.Name, err)
	}
	gossip := n.Gossip
	c.t.Cleanup(func() { gossip.Shutdown() })
	return nil
}

// SwarmAddr returns the ip:port of the machine's host.
func (n *Node) SwarmAddr() string { return netip.AddrPortFrom(n.IP, SwarmPort).String() }

// GossipAddr returns the ip:port of the machine's gossip, as for Join.
func (n *Node) GossipAddr() string { return netip.AddrPortFrom(n.IP, GossipPort).String() }

// MemberOptions returns options that make the machine a member; hooks, labels
// and the like are the test's.
func (n *Node) MemberOptions(join ...string) swarm.MemberOptions {
	return swarm.MemberOptions{
		Key: n.Key, Port: GossipPort, Join: join, Transport: n.Gossip, Gater: n.Gater,
		Facts: swarm.Facts{Peer: n.Peer, Name: n.Name, Addrs: []string{n.SwarmAddr()}, Free: 1 << 40, Upstream: true},
	}
}

// Cut makes everything between two machines vanish silently, both ways.
func (c *Cluster) Cut(a, b *Node) {
	c.Net.Cut(a.IP, b.IP)
	c.Net.Cut(b.IP, a.IP)
}

// Heal ends Cut.
func (c *Cluster) Heal(a, b *Node) {
	c.Net.Heal(a.IP, b.IP)
	c.Net.Heal(b.IP, a.IP)
}

// Isolate cuts a machine off from all others.
func (c *Cluster) Isolate(n *Node) { c.others(n, c.Cut) }

// Reconnect ends Isolate.
func (c *Cluster) Reconnect(n *Node) { c.others(n, c.Heal) }

func (c *Cluster) others(n *Node, do func(a, b *Node)) {
	for _, o := range c.Nodes {
		if o != n {
			do(n, o)
		}
	}
}

// Kill ends the machine's connections and ports as the death of its process
// does. What ran on it is deaf and dumb from then on, but its goroutines are
// the test's to end, before Start gives the machine new parts.
func (c *Cluster) Kill(n *Node) { c.Net.Kill(n.IP) }
