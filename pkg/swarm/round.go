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
	until time.Time
	then  func()
	send  func(*link, uint64)
	seq   uint64
}

// roundWait bounds how long a silent neighbour, or one whose stream is not open
// yet, can hold up a decision.
const roundWait = 2 * time.Second

// startRound sends the question to the neighbours, now or as soon as their stream
// opens, and runs then when all have answered.
func (n *Node) startRound(then func(), send func(*link, uint64)) {
	n.seq++
	r := &round{await: map[plan.Peer]bool{}, until: time.Now().Add(roundWait), then: then, send: send, seq: n.seq}
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

func (n *Node) finishRounds(now time.Time) {
	for seq, r := range n.rounds {
		for p := range r.await {
			if m := n.members[p]; n.links[p] == nil && (m == nil || m.unreachable()) {
				delete(r.await, p)
			}
		}
		if len(r.await) == 0 || !now.Before(r.until) {
			delete(n.rounds, seq)
			r.then()
		}
	}
}
