package swarm

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// gaterPatience is how long an inbound stranger is held before it is
	// refused. A member that has just joined knows us up to a second before
	// gossip tells us its proof; without patience its first dial fails and
	// libp2p does not dial again for five seconds.
	gaterPatience = 3 * time.Second
	// gaterWaiting bounds the strangers that are held at one time.
	gaterWaiting = 64
	// gaterAdmitted bounds the proofs remembered. Members come and go under the
	// same peer id; ids themselves are as many as machines.
	gaterAdmitted = 16 << 10
	// gaterBans bounds the list of bans.
	gaterBans = 4 << 10
)

var (
	errNotAdmitted = errors.New("holds no proof of this swarm's key")
	errBanned      = errors.New("banned")
)

// Gater is libp2p's connection gater of a closed swarm: it lets through only
// peers that were admitted (their proof is known) and are not banned. A refused
// peer gets the TLS handshake and nothing else: no stream, no frame of ours.
//
// Its methods may be called from any goroutine.
type Gater struct {
	open     bool
	patience time.Duration

	mu       sync.Mutex                 // guards all below
	admitted map[peer.ID][]ma.Multiaddr // and where they were seen
	banned   map[peer.ID]time.Time
	waiting  int
	changed  chan struct{} // closed and replaced when admitted or banned changes
	refused  RefusedConns
	allow    *rcmgr.Allowlist // of the host that this gater guards, nil before
}

// RefusedConns counts connections that a Gater refused.
type RefusedConns struct {
	Count  int64
	Last   peer.ID   // the last one that was refused
	Addr   string    // where it came from or was to be reached
	At     time.Time // when
	Reason string
}

// NewGater returns a gater for the swarm of key. With the zero Key it admits
// everybody who is not banned.
func NewGater(key Key) *Gater {
	return &Gater{open: key.IsZero(), patience: gaterPatience, admitted: map[peer.ID][]ma.Multiaddr{}, banned: map[peer.ID]time.Time{}, changed: make(chan struct{})}
}

// Admit lets p through from now on: its proof was checked. Its IP addresses, if
// known, are let through even when strangers use up the host's limits; they
// replace those given before.
func (g *Gater) Admit(p peer.ID, ips ...netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	old, known := g.admitted[p]
	if !known && len(g.admitted) >= gaterAdmitted {
		for other := range g.admitted {
			g.expel(other) // gossip admits it again if it is alive
			break
		}
	}
	places := placesOf(p, ips)
	if known && slices.EqualFunc(old, places, ma.Multiaddr.Equal) {
		return
	}
	g.expel(p)
	g.admitted[p] = places
	g.enlist(places)
	g.wake()
}

func placesOf(p peer.ID, ips []netip.Addr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, ip := range ips {
		if m, err := manet.FromIP(ip.AsSlice()); err == nil {
			out = append(out, m.Encapsulate(ma.StringCast("/p2p/"+p.String())))
		}
	}
	return out
}

// Revoke refuses p from now on. Open connections are not closed: the caller
// decides that.
func (g *Gater) Revoke(p peer.ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.expel(p)
}

// expel forgets p. g.mu is held.
func (g *Gater) expel(p peer.ID) {
	if g.allow != nil {
		for _, m := range g.admitted[p] {
			g.allow.Remove(m)
		}
	}
	delete(g.admitted, p)
}

// enlist puts addresses on the host's list. g.mu is held.
func (g *Gater) enlist(places []ma.Multiaddr) {
	if g.allow != nil {
		for _, m := range places {
			g.allow.Add(m)
		}
	}
}

// trust names the list of a host on which admitted peers are to be.
func (g *Gater) trust(l *rcmgr.Allowlist) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.allow = l
	for _, places := range g.admitted {
		g.enlist(places)
	}
}

// Ban refuses p until the given instant, admitted or not; an instant in the
// past lifts the ban. Open connections are not closed.
func (g *Gater) Ban(p peer.ID, until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(g.banned, func(_ peer.ID, t time.Time) bool { return !t.After(now) })
	delete(g.banned, p)
	if until.After(now) {
		if len(g.banned) >= gaterBans {
			delete(g.banned, g.soonest())
		}
		g.banned[p] = until
	}
	g.wake()
}

// soonest returns the peer whose ban ends first.
func (g *Gater) soonest() peer.ID {
	all := slices.Collect(maps.Keys(g.banned))
	return slices.MinFunc(all, func(a, b peer.ID) int { return g.banned[a].Compare(g.banned[b]) })
}

// Banned returns a copy of the bans in force.
func (g *Gater) Banned() map[peer.ID]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	out := maps.Clone(g.banned)
	maps.DeleteFunc(out, func(_ peer.ID, t time.Time) bool { return !t.After(now) })
	return out
}

// Refused returns how many connections were refused, and the last one.
func (g *Gater) Refused() RefusedConns {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}

// wake lets those who wait look again. g.mu is held.
func (g *Gater) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// verdict says why p is refused, nil when it is not. The channel is closed when
// the answer may have changed.
func (g *Gater) verdict(p peer.ID) (changed <-chan struct{}, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until, ok := g.banned[p]; ok && until.After(time.Now()) {
		return g.changed, errBanned
	}
	if _, ok := g.admitted[p]; !ok && !g.open {
		return g.changed, errNotAdmitted
	}
	return nil, nil
}

// await is verdict with patience for a peer that gossip may be about to admit.
func (g *Gater) await(p peer.ID) error {
	changed, err := g.verdict(p)
	if err != errNotAdmitted || !g.enter() {
		return err
	}
	defer g.leave()
	ctx, cancel := context.WithTimeoutCause(context.Background(), g.patience, errNotAdmitted)
	defer cancel()
	for err == errNotAdmitted {
		select {
		case <-changed:
			changed, err = g.verdict(p)
		case <-ctx.Done():
			return err
		}
	}
	return err
}

func (g *Gater) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting >= gaterWaiting || g.patience <= 0 {
		return false
	}
	g.waiting++
	return true
}

func (g *Gater) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

// answer counts a refusal and turns it into libp2p's answer.
func (g *Gater) answer(p peer.ID, addr string, err error) bool {
	if err == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused = RefusedConns{Count: g.refused.Count + 1, Last: p, Addr: addr, At: time.Now(), Reason: err.Error()}
	return false
}

// InterceptPeerDial refuses to dial whom we would not let in. A dial that we
// never make is not counted as refused.
func (g *Gater) InterceptPeerDial(p peer.ID) bool {
	_, err := g.verdict(p)
	return err == nil
}

// InterceptAddrDial allows every address of a peer that may be dialled.
func (g *Gater) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }

// InterceptAccept allows: who it is comes out in the handshake.
func (g *Gater) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured decides once the handshake has proved who p is. libp2p asks
// from a goroutine of this connection alone, so waiting holds up nobody else.
func (g *Gater) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	if dir == network.DirInbound {
		return g.answer(p, c.RemoteMultiaddr().String(), g.await(p))
	}
	_, err := g.verdict(p)
	return g.answer(p, c.RemoteMultiaddr().String(), err)
}

// InterceptUpgraded looks a last time, before any stream can be opened: a ban
// may have come during the handshake.
func (g *Gater) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	_, err := g.verdict(c.RemotePeer())
	return g.answer(c.RemotePeer(), c.RemoteMultiaddr().String(), err), 0
}
