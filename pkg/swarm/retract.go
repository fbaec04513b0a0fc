package swarm

import (
	"slices"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// Doubt takes back this member's own statements on pieces of a blob: what upstream
// had sent is wrong, and was seen to be before the blob was whole. The pieces are
// dropped, here and at every neighbour that took them, and fetched anew. Of a blob
// that is whole nothing is dropped: its digest was right.
func (n *Node) Doubt(b pieces.Blob, indexes []int) {
	n.post(func() { n.takeBack(b, indexes) })
}

func (n *Node) takeBack(b pieces.Blob, indexes []int) {
	n.retract(b, n.cfg.Signer.Maker(), indexes)
	for batch := range slices.Chunk(indexes, wire.MaxStatements) {
		for _, l := range n.links {
			l.send(&wire.Retract{Blob: b, Indexes: batch})
		}
	}
}

// heardRetract believes a member about its own statements alone.
func (n *Node) heardRetract(l *link, m *wire.Retract) {
	if !n.current(l) {
		return
	}
	maker, err := MakerOf(peerID(l.peer))
	if err != nil {
		return
	}
	n.retract(m.Blob, maker, m.Indexes)
}

// retract drops what rests on the maker's statements about these pieces, and tells
// the neighbours what is still held.
func (n *Node) retract(b pieces.Blob, maker pieces.Maker, indexes []int) {
	s := n.blobs[b]
	if s == nil {
		return // not wanted here, or whole
	}
	gone := n.retire(s, maker, indexes)
	drop := func(st pieces.Statement) bool { return s.retired[st.Index][st.ID] }
	n.proofs.drop(b, drop)
	if len(gone) == 0 {
		return
	}
	n.log.Warn("pieces are wrong, dropping them", "blob", b, "pieces", len(gone))
	if err := n.cfg.Store.Forget(b, drop); err != nil {
		n.failAll(s, err)
		return
	}
	for _, i := range gone {
		s.held.Remove(i)
		n.swap.Lost(time.Now(), plan.Piece{Blob: b, Index: i})
		n.touch(b, i)
	}
	n.reoffer(b)
}

// retire notes the maker's statements as taken back and returns which pieces are
// held that they say the same of.
func (n *Node) retire(s *blobState, maker pieces.Maker, indexes []int) (gone []int) {
	about := make(map[int]bool, len(indexes))
	for _, i := range indexes {
		about[i] = true
		for _, o := range n.proofs.on(plan.Piece{Blob: s.blob, Index: i}) { // heard of, perhaps not held
			if o.Maker == maker {
				s.retire(o.Statement)
			}
		}
	}
	for i, st := range s.suspect {
		if st.Maker == maker && about[i] {
			delete(s.suspect, i) // who takes it back did not lie
		}
	}
	held := n.cfg.Store.Statements(s.blob)
	for _, st := range held {
		if st.Maker == maker && about[st.Index] {
			s.retire(st)
		}
	}
	for _, st := range held { // others may have made the same of what upstream sent
		if s.retired[st.Index][st.ID] {
			gone = append(gone, st.Index)
		}
	}
	return gone
}

// mostRetired bounds what one piece of a blob is remembered for.
const mostRetired = 8

func (s *blobState) retire(st pieces.Statement) {
	if s.retired == nil {
		s.retired = map[int]map[pieces.ID]bool{}
	}
	ids := s.retired[st.Index]
	if ids == nil {
		ids = map[pieces.ID]bool{}
		s.retired[st.Index] = ids
	}
	if len(ids) < mostRetired {
		ids[st.ID] = true
	}
}

// restate believes a statement again once its maker makes it anew: of the pieces
// that were in doubt most are right, and are cut again as they were.
func (s *blobState) restate(st pieces.Statement) { delete(s.retired[st.Index], st.ID) }

// tooLate drops a piece that was stored while its statement was taken back.
func (n *Node) tooLate(s *blobState, st pieces.Statement) {
	n.swap.Lost(time.Now(), plan.Piece{Blob: s.blob, Index: st.Index})
	if err := n.cfg.Store.Forget(s.blob, func(o pieces.Statement) bool { return o == st }); err != nil {
		n.failAll(s, err)
	}
}

// reoffer replaces what the neighbours know of the blob by what is here.
func (n *Node) reoffer(b pieces.Blob) {
	var wanting []*link
	for _, l := range n.links {
		delete(l.offers, b)
		l.send(&wire.Withdraw{Blob: b})
		if l.wants[b] {
			wanting = append(wanting, l)
		}
	}
	n.tasks.Go(func() error {
		for _, l := range wanting {
			if err := n.offerHeld(l, b); err != nil {
				return nil // the link is over
			}
		}
		return nil
	})
}
