package swarm

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// Gossip reaches every member, but carries little: what this member holds of the
// blobs it works on, once a second at most, and only when that changed. In a
// swarm with more members than a node keeps streams with it tells whom else to
// ask, and that the Hub asked to wait; no content is believed because of it.

const (
	// summaryEvery is the least time between two summaries of one member. In a
	// swarm it grows with the number of members: gossip carries about two
	// messages of this size a second for all of them.
	summaryEvery = time.Second
	// extraLinks bounds the streams opened because of hints, for one job.
	extraLinks = 8
	// seekWait is how long the answers to a Seek are waited for: gossip reaches
	// 50 members in 0.5 to 0.7 s, twice, and the answers are spread over 0.3 s.
	seekWait = 2500 * time.Millisecond
)

// hints are the members that said they hold pieces of a blob, and how many.
type hints map[pieces.Blob]map[plan.Peer]int

func (h hints) note(p plan.Peer, b pieces.Blob, count int) {
	if h[b] == nil {
		h[b] = map[plan.Peer]int{}
	}
	h[b][p] = count
}

// summarise broadcasts what this member holds of its jobs' blobs.
func (n *Node) summarise(now time.Time) {
	if len(n.blobs) == 0 || now.Sub(n.summed) < summaryEvery*time.Duration(max(1, len(n.members)/2)) {
		return
	}
	held := 0
	for _, s := range n.blobs {
		held += s.held.Count()
	}
	if held == n.summedAt {
		return
	}
	n.summed, n.summedAt = now, held
	var sets []heldSet
	for b, s := range n.blobs {
		sets = append(sets, heldSet{b, s.held})
	}
	n.broadcastSummary(sets)
}

type heldSet struct {
	blob pieces.Blob
	held *pieces.Set
}

// broadcastSummary sends as many rows as fit, the largest blobs first: for those
// knowing whom to ask is worth most.
func (n *Node) broadcastSummary(sets []heldSet) {
	slices.SortFunc(sets, func(a, b heldSet) int { return cmp.Compare(b.blob.Size, a.blob.Size) })
	msg := wire.Summary{Peer: []byte(n.self)}
	size := 64
	for _, s := range sets {
		runs, err := s.held.MarshalBinary()
		if err != nil || s.held.Count() == 0 || size+len(runs)+48 > wire.MaxGossip || len(msg.Rows) == wire.MaxSummaryRows {
			continue
		}
		size += len(runs) + 48
		msg.Rows = append(msg.Rows, wire.SummaryRow{Blob: s.blob, Runs: runs})
	}
	if len(msg.Rows) > 0 {
		n.broadcast(wire.Gossip{Summary: &msg})
	}
}

func (n *Node) broadcast(g wire.Gossip) {
	g.Nonce = rand.Uint64()
	raw, err := wire.EncodeGossip(g)
	if err == nil {
		err = n.cfg.Members.Broadcast(raw)
	}
	if err != nil {
		n.log.Debug("broadcast", "err", err)
	}
}

// Message takes in what another member broadcast.
func (n *Node) Message(raw []byte) {
	g, err := wire.DecodeGossip(raw)
	if err != nil {
		n.log.Debug("gossip", "err", err)
		return
	}
	switch {
	case g.Summary != nil:
		n.post(func() { n.heardSummary(g.Summary) })
	case g.Seek != nil:
		n.heardSeek(g.Seek)
	case g.Hold != nil:
		n.heardHold(g.Hold)
	}
}

func (n *Node) heardSummary(m *wire.Summary) {
	p := plan.Peer(m.Peer)
	if n.members[p] == nil {
		return
	}
	for _, row := range m.Rows {
		if n.blobs[row.Blob] == nil {
			continue
		}
		if set, err := pieces.ParseSet(row.Blob.Pieces(), row.Runs); err == nil {
			n.hints.note(p, row.Blob, set.Count())
		}
	}
}

// heardSeek answers with a summary, after a pause of random length: a blob that
// all hold does not need all to say so at once.
func (n *Node) heardSeek(m *wire.Seek) {
	var sets []heldSet
	for _, b := range m.Blobs[:min(len(m.Blobs), wire.MaxSummaryRows)] {
		if held := n.cfg.Store.Held(b); held != nil && held.Count() > 0 {
			sets = append(sets, heldSet{b, held})
		}
	}
	if len(sets) == 0 || plan.Peer(m.Peer) == n.self {
		return
	}
	n.post(func() {
		n.later = append(n.later, delayed{time.Now().Add(time.Duration(rand.Int64N(int64(seekWait / 8)))), func() { n.broadcastSummary(sets) }})
	})
}

// delayed is something the owner loop does at a later time.
type delayed struct {
	at time.Time
	do func()
}

func (n *Node) runDelayed(now time.Time) {
	due := n.later
	n.later = nil
	for _, d := range due {
		if now.Before(d.at) {
			n.later = append(n.later, d)
		} else {
			d.do()
		}
	}
}

// survey finds out what the swarm holds of the job's blobs and who else works on
// them, then runs then. In a swarm with more members than neighbours those that
// are none are asked by gossip first, and some that hold pieces become
// neighbours.
func (n *Node) survey(j *job, then func()) {
	ask := func(l *link, seq uint64) { n.sendWantsSeq(l, j, seq) }
	if len(n.members) <= n.cfg.Neighbours {
		n.startRound(then, ask)
		return
	}
	n.seek(j)
	n.later = append(n.later, delayed{time.Now().Add(seekWait), func() {
		n.dialHinted(j)
		n.startRound(then, ask)
	}})
}

func (n *Node) seek(j *job) {
	missing := slices.SortedFunc(maps.Keys(j.left), func(a, b pieces.Blob) int { return cmp.Compare(b.Size, a.Size) })
	const fit = 16 // 48 bytes each
	n.broadcast(wire.Gossip{Seek: &wire.Seek{Peer: []byte(n.self), Blobs: missing[:min(len(missing), fit)]}})
}

// dialHinted opens streams to members that are no neighbours and hold most of
// what the job misses.
func (n *Node) dialHinted(j *job) {
	total := map[plan.Peer]int{}
	for b := range j.left {
		for p, count := range n.hints[b] {
			if n.links[p] == nil && n.members[p] != nil {
				total[p] += count
			}
		}
	}
	best := slices.SortedFunc(maps.Keys(total), func(a, b plan.Peer) int {
		return cmp.Or(cmp.Compare(total[b], total[a]), cmp.Compare(pairScore(n.self, b), pairScore(n.self, a)))
	})
	for _, p := range best[:min(len(best), extraLinks)] {
		n.extra[p] = true
	}
}
