package swarm

import (
	"time"

	"p2pagent/internal/plan"
)

// round is a question put to every neighbour. What is decided afterwards takes
// all their answers into account; a member that asks the same question at the
// same time is among those answered, so two can't both think they are alone.
type round struct {
	await map[plan.Peer]bool
	began time.Time
	then  func()
	send  func(*link, uint64)
	seq   uint64
}

const (
	// roundWait bounds how long a silent neighbour, or one whose stream is not open
	// yet, can hold up a decision.
	roundWait = 2 * time.Second
	// roundMost bounds it for one that is in the middle of its answer. All it holds of
	// a large model are thousands of statements, each with a signature to check.
	roundMost = time.Minute
)

// startRound sends the question to the neighbours, now or as soon as their stream
// opens, and runs then when all have answered.
func (n *Node) startRound(then func(), send func(*link, uint64)) {
	n.seq++
	r := &round{await: map[plan.Peer]bool{}, began: time.Now(), then: then, send: send, seq: n.seq}
	n.rounds[r.seq] = r
	for _, l := range n.links {
		r.await[l.peer] = true
		send(l, r.seq)
	}
	for _, m := range n.neighbours() {
		if n.links[m.peer] == nil && !m.unreachable() {
			r.await[m.peer] = true
		}
	}
}

// joinRounds puts the open questions to a neighbour that has just come.
func (n *Node) joinRounds(l *link) {
	for _, r := range n.rounds {
		r.await[l.peer] = true
		r.send(l, r.seq)
	}
}

func (n *Node) acked(l *link, seq uint64) {
	if r := n.rounds[seq]; r != nil && n.links[l.peer] == l {
		delete(r.await, l.peer)
	}
}

// due is when the round goes on without those who have not answered.
func (n *Node) due(r *round) time.Time {
	heard := r.began.UnixNano()
	for p := range r.await {
		if l := n.links[p]; l != nil {
			heard = max(heard, l.offered.Load())
		}
	}
	return time.Unix(0, min(heard+int64(roundWait), r.began.Add(roundMost).UnixNano()))
}

func (n *Node) finishRounds(now time.Time) {
	for seq, r := range n.rounds {
		for p := range r.await {
			if m := n.members[p]; n.links[p] == nil && (m == nil || m.unreachable()) {
				delete(r.await, p)
			}
		}
		if len(r.await) == 0 || !now.Before(n.due(r)) {
			delete(n.rounds, seq)
			r.then()
		}
	}
}
