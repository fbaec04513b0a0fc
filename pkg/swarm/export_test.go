package swarm

import (
	"context"
	"fmt"
)

// IdleLanes counts the lanes that are kept for another request.
func (n *Node) IdleLanes() (count int) {
	n.taker.mu.Lock()
	defer n.taker.mu.Unlock()
	for _, list := range n.taker.idle {
		count += len(list)
	}
	return count
}

// Claimed counts the claims of others that the node takes for standing.
func (n *Node) Claimed(ctx context.Context) (links, seats int) {
	n.call(ctx, func() {
		for _, l := range n.links {
			links += len(l.claimed)
		}
		seats = n.seats.OpenAll()
	})
	return links, seats
}

// Dump shows the owner loop's view of its tasks, for a test that failed.
func (n *Node) Dump(ctx context.Context) (out string) {
	n.call(ctx, func() {
		for k, t := range n.extents {
			out += fmt.Sprintf("extent %x added %v dirty %v fetching %v needs %d claimed by %d\n", k[:3], t.added, t.dirty, t.cancel != nil, len(n.needs(t)), len(n.seats.Claimants(k)))
		}
		out += fmt.Sprint("allowed ", n.allowed(), " open ", n.openExtents())
	})
	return out
}
