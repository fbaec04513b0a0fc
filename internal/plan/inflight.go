package plan

import (
	"slices"
	"time"
)

type inquiry struct {
	of *neighbour
	at time.Time
}

// ask books a request. A first copy is the holder's duty and counted already; any
// other is one of many: the other takers draw like this member, in the mean.
func (s *Swap) ask(now time.Time, n *neighbour, it *item) {
	if len(it.holders) > 1 || s.ahead(it) > 0 {
		n.drawn += float64(it.piece.Size()) * float64(s.takers)
	}
	it.asked = append(it.asked, inquiry{n, now})
	n.asked[it.piece] = true
	n.room--
	s.spent += it.piece.Size()
}

// settle takes back what ask booked and tells whether there was anything.
func (s *Swap) settle(n *neighbour, piece Piece) bool {
	if n == nil || !n.asked[piece] {
		return false
	}
	delete(n.asked, piece)
	s.spent -= piece.Size()
	if it := s.item(piece); it != nil {
		it.asked = slices.DeleteFunc(it.asked, func(q inquiry) bool { return q.of == n })
		s.close(it)
	}
	return true
}

func (s *Swap) settleAll(it *item) {
	for len(it.asked) > 0 {
		s.settle(it.asked[0].of, it.piece)
	}
}

// Arrived notes that a request was answered with the piece's bytes.
func (s *Swap) Arrived(p Peer, piece Piece, took time.Duration) {
	n := s.peers[p]
	s.settle(n, piece)
	if n == nil || took <= 0 {
		return
	}
	rate := float64(piece.Size()) / took.Seconds() * float64(len(n.asked)+1)
	if n.rate == 0 {
		n.rate = rate
	}
	n.rate += 0.3 * (rate - n.rate)
}

// Failed notes that a request brought nothing. The member is left alone for rest
// and thought slower; a rest of zero says that it was not its fault.
func (s *Swap) Failed(now time.Time, p Peer, piece Piece, rest time.Duration) {
	n := s.peers[p]
	s.settle(n, piece)
	if n == nil || rest <= 0 {
		return
	}
	n.rest = now.Add(rest)
	n.rate /= 2
}

// Rate returns the smoothed rate of a neighbour in bytes a second, 0 if unknown.
func (s *Swap) Rate(p Peer) float64 {
	if n := s.peers[p]; n != nil {
		return n.rate
	}
	return 0
}

// Waiting tells whether anything is open that time alone may make askable.
func (s *Swap) Waiting() bool { return len(s.open) > 0 }
