package swarm

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
)

// member is what the node knows of a member of the swarm, neighbour or not.
type member struct {
	peer  plan.Peer
	facts Facts
	since time.Time
	dials int // attempts without success since the last link
	next  time.Time
	busy  bool // a dial is under way
	fault error
}

// MemberUp tells the node of a live member and where it listens.
func (n *Node) MemberUp(f Facts) {
	n.post(func() { n.memberUp(f) })
}

// MemberDown tells the node that a member left or died.
func (n *Node) MemberDown(id peer.ID) {
	n.post(func() {
		p := peerKey(id)
		delete(n.members, p)
		delete(n.extra, p)
		if l := n.links[p]; l != nil && l.silence(time.Now()) > pingEvery*2 {
			l.close(errors.New("left the swarm"))
		}
	})
}

func (n *Node) memberUp(f Facts) {
	p := peerKey(f.Peer)
	if p == n.self {
		return
	}
	m := n.members[p]
	if m == nil {
		m = &member{peer: p, since: time.Now()}
		n.members[p] = m
	}
	m.facts = f
	m.next, m.dials = time.Time{}, 0
}

// tend keeps the streams to the neighbours up.
func (n *Node) tend(now time.Time) {
	n.dropRecords(now)
	n.taker.trim(now)
	for _, l := range n.links {
		if l.silence(now) > deafAfter {
			l.close(errDeaf)
		} else if now.Sub(l.spoke) >= pingEvery {
			l.spoke = now
			l.send(&wire.Ping{})
		}
	}
	for _, m := range n.neighbours() {
		if n.links[m.peer] == nil && !m.busy && !now.Before(m.next) && n.dials(now, m) {
			m.busy = true
			n.tasks.Go(func() error { n.dial(m); return nil })
		}
	}
}

// dials tells whether it is up to this member to open the stream: of two the one
// with the lower id does, so that one stream comes of it; the other steps in
// after a while, for when only it can reach its peer.
func (n *Node) dials(now time.Time, m *member) bool {
	return n.self < m.peer || now.Sub(m.since) > 3*time.Second
}

// neighbours returns the members to keep a stream with: all in a small swarm;
// in a large one those with the highest score for the pair, a choice that both
// ends make alike.
func (n *Node) neighbours() []*member {
	out := make([]*member, 0, len(n.members))
	for _, m := range n.members {
		out = append(out, m)
	}
	if len(out) <= n.cfg.Neighbours {
		return out
	}
	slices.SortFunc(out, func(a, b *member) int {
		return cmp.Compare(pairScore(n.self, b.peer), pairScore(n.self, a.peer))
	})
	near := out[:n.cfg.Neighbours]
	for _, m := range out[n.cfg.Neighbours:] {
		if n.extra[m.peer] {
			near = append(near, m)
		}
	}
	return near
}

func pairScore(a, b plan.Peer) uint64 {
	return plan.Score(min(a, b), []byte(max(a, b)))
}

// dialled notes that a dial or a hello came to nothing.
func (n *Node) dialled(p plan.Peer, err error) {
	m := n.members[p]
	if m == nil {
		return
	}
	m.busy, m.fault = false, err
	m.dials++
	m.next = time.Now().Add(min(100*time.Millisecond<<min(m.dials, 6), 5*time.Second))
}

// unreachable tells whether waiting for the member is pointless for now.
func (m *member) unreachable() bool { return m.dials >= 3 }

// linked makes a new stream the link with its peer and tells the peer what this
// member wants and does.
func (n *Node) linked(l *link) {
	if m := n.members[l.peer]; m != nil {
		m.busy, m.dials, m.fault = false, 0, nil
	}
	if old := n.links[l.peer]; old != nil {
		n.forget(old)
		old.close(errReplaced)
	}
	n.links[l.peer] = l
	l.spoke = time.Now()
	n.swap.Up(l.peer)
	n.log.Debug("neighbour", "peer", peerID(l.peer), "name", l.name)
	for j := range n.jobs {
		if j.ready {
			n.sendWants(l, j)
		}
	}
	for _, r := range n.records {
		if r.ready {
			n.sendAsk(l, r)
		}
	}
	n.joinRounds(l)
	n.sendClaims(l)
}

// unlinked forgets a link that ended.
func (n *Node) unlinked(l *link) {
	if n.links[l.peer] != l {
		return
	}
	if errors.Is(l.cause, errDeaf) {
		n.count.Deaf++
	}
	n.log.Debug("neighbour gone", "peer", peerID(l.peer), "name", l.name, "cause", l.cause)
	n.forget(l)
	n.taker.forget(l.peer)
	delete(n.links, l.peer)
	if m := n.members[l.peer]; m != nil {
		m.busy, m.since = false, time.Now()
		m.next = time.Now().Add(200 * time.Millisecond)
	}
}

func (n *Node) forget(l *link) {
	n.swap.Down(l.peer)
	n.seats.Gone(l.peer)
	for _, r := range n.rounds {
		delete(r.await, l.peer)
	}
	for _, t := range n.extents {
		t.dirty = true
	}
}
