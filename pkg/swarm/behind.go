package swarm

import (
	"slices"

	"p2pagent/pkg/pieces"
)

// behind is pieces of a wanted blob that an extent is fetched after: whoever has
// them has bytes of the extent.
type behind struct {
	blob *blobState
	span pieces.Span
}

// setBehind asks the job's upstream what the extent is better fetched after. What
// this member does not want will not come, and is not waited for.
func (n *Node) setBehind(t *extentTask, up Upstream) {
	orders, ok := up.(interface {
		Behind(e pieces.Extent) []pieces.Span
	})
	if !ok || t.behind != nil {
		return
	}
	for _, span := range orders.Behind(t.extent) {
		if s := n.blobs[span.Blob]; s != nil && !s.held.Full() {
			t.behind = append(t.behind, behind{s, span})
			s.ahead = append(s.ahead, t)
		}
	}
}

// waits tells whether pieces that the extent is fetched after are still to come
// here. A reader that needs the extent does not wait.
func (n *Node) waits(t *extentTask) bool {
	if _, soon := n.readers.Lead(t.extent); soon {
		return false
	}
	for _, b := range t.behind {
		if n.blobs[b.blob.blob] != b.blob {
			continue // nobody here wants it any more
		}
		for i := b.span.First; i < b.span.First+b.span.Count; i++ {
			if !b.blob.held.Has(i) {
				return true
			}
		}
	}
	return false
}

// came has the extents looked at again that wait for a piece.
func (s *blobState) came(index int) {
	for _, t := range s.ahead {
		t.dirty = t.dirty || slices.ContainsFunc(t.behind, func(b behind) bool {
			return b.blob == s && b.span.First <= index && index < b.span.First+b.span.Count
		})
	}
}

// release has all of them looked at again: the blob is not wanted any more.
func (s *blobState) release() {
	for _, t := range s.ahead {
		t.dirty = true
	}
}
