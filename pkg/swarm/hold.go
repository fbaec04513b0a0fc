package swarm

import (
	"math/rand/v2"
	"time"

	"p2pagent/internal/wire"
)

const (
	// maxHold is the longest wait that is believed: the Hub's windows are five
	// minutes long.
	maxHold = 10 * time.Minute
	// holdSpread is by how much at most those who heard of a wait wait longer, so
	// that whoever was told comes back first, alone, and tells them when it is told
	// to wait again.
	holdSpread = 2 * time.Second
)

// Hold tells all members that the Hub asked this one to wait: it limits by
// address, so what one was told concerns all. Neighbours hear of it at once,
// those that are none by gossip.
func (n *Node) Hold(bucket string, wait time.Duration) {
	m := &wire.Hold{Bucket: bucket, Millis: wait.Milliseconds()}
	n.post(func() {
		for _, l := range n.links {
			l.send(m)
		}
		if len(n.members) > len(n.links) {
			n.broadcast(wire.Gossip{Hold: m})
		}
	})
}

func (n *Node) heardHold(m *wire.Hold) {
	wait := time.Duration(min(m.Millis, maxHold.Milliseconds())) * time.Millisecond
	if n.cfg.OnHold != nil && wait > 0 {
		n.cfg.OnHold(m.Bucket, wait+rand.N(1+min(wait/2, holdSpread)))
	}
}
