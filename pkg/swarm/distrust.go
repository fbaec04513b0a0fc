package swarm

import (
	"errors"
	"fmt"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/pkg/pieces"
)

// badPiece bans a member that sent bytes which do not match their statement:
// it had the same statement and did not check, or lies.
func (n *Node) badPiece(r plan.Request, err error) {
	if errors.Is(err, errUnfit) {
		n.unfit(r)
		return
	}
	n.swap.Failed(time.Now(), r.Peer, r.Piece, 0)
	if lie, ok := errors.AsType[*pieces.FalseStatementError](err); ok {
		n.count.Refused++
		n.falseStatement(lie.Statement)
		return
	}
	if errors.Is(err, errUnstated) {
		// What can't be proved is not asked for again before it is offered again, or
		// else by somebody's seat.
		n.swap.Lacks(r.Peer, r.Piece)
		n.touch(r.Piece.Blob, r.Piece.Index)
		return
	}
	if !errors.Is(err, pieces.ErrDigest) {
		return
	}
	n.count.Refused++
	n.ban(r.Peer, fmt.Sprintf("sent a bad piece %d of %s", r.Piece.Index, r.Piece.Blob))
}

// falseStatement bans the maker of a statement that contradicts itself. Whoever
// relayed it, and the piece, is innocent; the piece is offered by nobody until
// somebody cuts it again.
func (n *Node) falseStatement(st pieces.Statement) {
	n.proofs.drop(st.Blob, func(o pieces.Statement) bool { return o == st })
	piece := plan.Piece{Blob: st.Blob, Index: st.Index}
	for _, l := range n.links {
		n.swap.Lacks(l.peer, piece)
	}
	n.touch(st.Blob, st.Index)
	n.banMaker(st)
}

// banMaker bans the member that made a false statement.
func (n *Node) banMaker(st pieces.Statement) {
	if id, err := PeerOf(st.Maker); err == nil {
		n.ban(peerKey(id), fmt.Sprintf("made a false statement on piece %d of %s", st.Index, st.Blob))
	}
}

// ban takes nothing from the member any more: no pieces, no records, no claims.
func (n *Node) ban(p plan.Peer, reason string) {
	if n.bans.Banned(time.Now(), p) {
		return
	}
	ban := n.bans.Add(time.Now(), p, reason)
	n.count.Bans++
	n.log.Warn("member banned", "peer", peerID(p), "name", n.nameOf(p), "reason", reason, "until", ban.Until)
	n.swap.Down(p)
	n.swap.Up(p)
	if l := n.links[p]; l != nil {
		for b := range l.wants {
			n.swap.Wants(p, b, true)
		}
	}
	n.seats.Gone(p)
	for _, t := range n.extents {
		t.dirty = true
	}
}

func (n *Node) nameOf(p plan.Peer) string {
	if l := n.links[p]; l != nil && l.name != "" {
		return l.name
	}
	if m := n.members[p]; m != nil {
		return m.facts.Name
	}
	return ""
}

// distrust deals with a blob whose pieces all match their statements while the
// whole does not match the digest: at least one maker lied, or upstream sent
// wrong bytes. From here on only pieces that this member cuts itself count for
// the blob; what the other makers said is kept aside, and whoever's statement
// differs from what upstream then sends is the liar. A second mismatch, with
// pieces of this member's own alone, is upstream's fault.
func (n *Node) distrust(s *blobState, cause error) {
	s.whole = false
	s.retries++
	self := n.cfg.Signer.Maker()
	foreign := func(st pieces.Statement) bool { return st.Maker != self }
	if s.own || s.retries > 2 || !n.anyEligible(s) {
		n.failAll(s, fmt.Errorf("blob %s: %w", s.blob, cause))
		return
	}
	n.log.Warn("whole blob does not match its digest, fetching it upstream again", "blob", s.blob, "err", cause)
	s.own, s.suspect = true, map[int]pieces.Statement{}
	for _, st := range n.cfg.Store.Statements(s.blob) {
		s.suspect[st.Index] = st
	}
	drop := foreign
	if !n.hasForeign(s, foreign) {
		drop = func(pieces.Statement) bool { return true } // all cut here: upstream or the disk is wrong
	}
	n.startOver(s, drop)
}

func (n *Node) hasForeign(s *blobState, foreign func(pieces.Statement) bool) bool {
	for _, st := range s.suspect {
		if foreign(st) {
			return true
		}
	}
	return false
}

func (n *Node) anyEligible(s *blobState) bool {
	for j := range s.jobs {
		if n.eligible(j) {
			return true
		}
	}
	return false
}

func (n *Node) startOver(s *blobState, drop func(pieces.Statement) bool) {
	if err := n.cfg.Store.Forget(s.blob, drop); err != nil {
		n.failAll(s, fmt.Errorf("forget pieces of %s: %w", s.blob, err))
		return
	}
	n.proofs.drop(s.blob, drop)
	for _, l := range n.links {
		n.swap.Withdraw(l.peer, s.blob)
	}
	for i, st := range s.suspect {
		if drop(st) {
			s.held.Remove(i)
			n.swap.Lost(time.Now(), plan.Piece{Blob: s.blob, Index: i})
		}
	}
	for _, t := range s.tasks {
		t.dirty = true
	}
}

// blame compares a piece cut here with what its former maker had said of it.
func (n *Node) blame(s *blobState, st pieces.Statement) {
	before, ok := s.suspect[st.Index]
	if !ok || before.ID == st.ID || before.Maker == st.Maker {
		return
	}
	if st.Maker == n.cfg.Signer.Maker() {
		n.banMaker(before)
	}
}
