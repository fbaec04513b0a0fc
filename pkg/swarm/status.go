package swarm

import (
	"context"
	"slices"
	"strings"
	"time"

	"p2pagent/internal/plan"
)

// Status is a picture of the node at one moment.
type Status struct {
	Peer    string
	Members []MemberStatus
	Bans    []BanStatus
	Sending int // pieces that are being sent to members
	Counters
}

// MemberStatus is what this member knows of another.
type MemberStatus struct {
	Peer      string
	Name      string
	Neighbour bool          // a swarm stream is open
	Silent    time.Duration // since its last frame
	Rate      float64       // bytes a second of one piece request, 0 unknown
	In, Out   int64         // bytes of verified pieces from it, and sent to it
	Fault     string        // why there is no stream
}

// BanStatus tells whose word and pieces are not taken, and why.
type BanStatus struct {
	Peer, Name, Reason string
	Since, Until       time.Time
}

// Status asks the owner loop for the picture.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	err := n.call(ctx, func() { s = n.status(time.Now()) })
	return s, err
}

func (n *Node) status(now time.Time) Status {
	s := Status{Peer: n.cfg.Host.ID().String(), Sending: len(n.server.slots), Counters: n.counters()}
	peers := map[plan.Peer]bool{}
	for p := range n.members {
		peers[p] = true
	}
	for p := range n.links {
		peers[p] = true
	}
	for p := range peers {
		s.Members = append(s.Members, n.memberStatus(now, p))
	}
	slices.SortFunc(s.Members, func(a, b MemberStatus) int {
		return strings.Compare(a.Name+a.Peer, b.Name+b.Peer)
	})
	for _, b := range n.bans.List(now) {
		s.Bans = append(s.Bans, BanStatus{peerID(b.Peer).String(), n.nameOf(b.Peer), b.Reason, b.Since, b.Until})
	}
	return s
}

func (n *Node) memberStatus(now time.Time, p plan.Peer) MemberStatus {
	m := MemberStatus{Peer: peerID(p).String(), Name: n.nameOf(p), Rate: n.swap.Rate(p)}
	if l := n.links[p]; l != nil {
		m.Neighbour, m.Silent = true, l.silence(now)
	} else if known := n.members[p]; known != nil && known.fault != nil {
		m.Fault = known.fault.Error()
	}
	if t := n.stats[p]; t != nil {
		m.In, m.Out = t.In, t.Out
	}
	return m
}
