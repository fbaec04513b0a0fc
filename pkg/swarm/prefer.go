package swarm

import (
	"sync"

	"p2pagent/internal/plan"
	"p2pagent/pkg/pieces"
)

// Prefer says that somebody here waits for a piece: it, and the ones behind it,
// are asked for first, of members and of upstream. It changes no other member's
// rights. The blob may be one that no job wants yet. The returned function ends
// it; it may be called twice.
func (n *Node) Prefer(b pieces.Blob, index int) (done func()) {
	p := plan.Piece{Blob: b, Index: index}
	n.post(func() {
		n.readers.Add(p)
		n.hurry(b)
	})
	return sync.OnceFunc(func() {
		n.post(func() {
			n.readers.Remove(p)
			n.hurry(b)
		})
	})
}

// hurry tells the planner of extents what readers need of a blob.
func (n *Node) hurry(b pieces.Blob) {
	for _, t := range n.tasksOf(b) {
		n.hurryTask(t)
	}
}

func (n *Node) hurryTask(t *extentTask) {
	lead, soon := n.readers.Lead(t.extent)
	n.seats.SetLead(t.key, lead, soon)
	t.dirty = t.dirty || t.behind != nil
}
