package plan

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"p2pagent/pkg/pieces"
)

// SwapOptions set the limits of Swap; zero fields get the defaults.
type SwapOptions struct {
	Budget  int64         // bytes asked for at once, over all members: 32 MiB
	PerPeer int           // pieces asked of one member at once, at most: 4
	Grace   time.Duration // longest that a fresh piece is left to its first taker: 2 s
	Late    time.Duration // a request older than this may be duplicated: 3 s
	Seed    uint64        // of the order in which equally rare pieces are asked for
}

// Swap picks the pieces to ask of other members.
//
// Rarest first; ties are broken by an order of this member's own, because
// members that start together and break ties alike all ask for the same piece
// (measured: three to six copies out of one source). A piece that only one
// member holds is left for a moment to one taker, the wanter with the highest
// score: distinct first copies leave the seat, and the takers pass them on, so
// no member sends much more than it gets.
type Swap struct {
	self  Peer
	opt   SwapOptions
	rng   *rand.Rand
	peers map[Peer]*neighbour
	blobs map[pieces.Blob]*wantedBlob
	open  map[Piece]*item // wanted, not held, offered by somebody or asked for
	spent int64           // bytes asked for now
}

type neighbour struct {
	wants map[pieces.Blob]bool
	holds map[pieces.Blob]*pieces.Set
	asked map[Piece]bool
	rate  float64 // bytes a second of one request, smoothed; 0 unknown
	rest  time.Time
}

type wantedBlob struct{ held *pieces.Set }

type item struct {
	holders []Peer
	order   uint64
	fresh   time.Time // when the first holder came
	asked   map[Peer]time.Time
	taker   Peer // first taker while there is one holder, "" not looked up yet
}

// Request is a decision: ask peer for the piece.
type Request struct {
	Peer  Peer
	Piece Piece
	Again bool // another request for the piece is still open
}

// NewSwap returns an empty planner for the member self.
func NewSwap(self Peer, o SwapOptions) *Swap {
	o.Budget = cmp.Or(o.Budget, 32<<20)
	o.PerPeer = cmp.Or(o.PerPeer, 4)
	o.Grace = cmp.Or(o.Grace, 2*time.Second)
	o.Late = cmp.Or(o.Late, 3*time.Second)
	return &Swap{
		self: self, opt: o, rng: rand.New(rand.NewPCG(o.Seed, Score(self, nil))),
		peers: map[Peer]*neighbour{}, blobs: map[pieces.Blob]*wantedBlob{}, open: map[Piece]*item{},
	}
}

// Want starts to ask for the pieces of b that are not in held.
func (s *Swap) Want(now time.Time, b pieces.Blob, held *pieces.Set) {
	if s.blobs[b] != nil {
		return
	}
	s.blobs[b] = &wantedBlob{held: held.Clone()}
	for p, n := range s.peers {
		if set := n.holds[b]; set != nil {
			for i := range set.All() {
				s.addHolder(now, p, Piece{b, i})
			}
		}
	}
}

// Drop stops asking for b; requests under way may still be answered.
func (s *Swap) Drop(b pieces.Blob) {
	delete(s.blobs, b)
	for piece := range s.open {
		if piece.Blob == b {
			s.forget(piece)
		}
	}
}

func (s *Swap) forget(piece Piece) {
	it := s.open[piece]
	if it == nil {
		return
	}
	for p := range it.asked {
		s.settle(p, piece)
	}
	delete(s.open, piece)
}

// Up introduces a neighbour.
func (s *Swap) Up(p Peer) {
	if s.peers[p] == nil {
		s.peers[p] = &neighbour{wants: map[pieces.Blob]bool{}, holds: map[pieces.Blob]*pieces.Set{}, asked: map[Piece]bool{}}
	}
}

// Down forgets a neighbour; what was asked of it can be asked of others.
func (s *Swap) Down(p Peer) {
	n := s.peers[p]
	if n == nil {
		return
	}
	for b := range n.holds {
		s.Withdraw(p, b)
	}
	for piece := range n.asked {
		s.settle(p, piece)
	}
	delete(s.peers, p)
}

// Wants notes that a neighbour wants b (it may be the first taker of a piece).
func (s *Swap) Wants(p Peer, b pieces.Blob, wants bool) {
	n := s.peers[p]
	switch {
	case n == nil:
	case wants:
		n.wants[b] = true
	default:
		delete(n.wants, b)
	}
}

// Offer notes that p holds a piece and that its proof is known here.
func (s *Swap) Offer(now time.Time, p Peer, piece Piece) {
	n := s.peers[p]
	if n == nil {
		return
	}
	set := n.holds[piece.Blob]
	if set == nil {
		set = pieces.NewSet(piece.Blob.Pieces())
		n.holds[piece.Blob] = set
	}
	if set.Add(piece.Index) {
		s.addHolder(now, p, piece)
	}
}

func (s *Swap) addHolder(now time.Time, p Peer, piece Piece) {
	w := s.blobs[piece.Blob]
	if w == nil || w.held.Has(piece.Index) {
		return
	}
	it := s.open[piece]
	if it == nil {
		it = &item{order: s.rng.Uint64(), fresh: now, asked: map[Peer]time.Time{}}
		s.open[piece] = it
	}
	if !slices.Contains(it.holders, p) {
		it.holders = append(it.holders, p)
	}
}

// Withdraw notes that p no longer holds any piece of b.
func (s *Swap) Withdraw(p Peer, b pieces.Blob) {
	n := s.peers[p]
	if n == nil || n.holds[b] == nil {
		return
	}
	for i := range n.holds[b].All() {
		s.dropHolder(p, Piece{b, i})
	}
	delete(n.holds, b)
}

func (s *Swap) dropHolder(p Peer, piece Piece) {
	it := s.open[piece]
	if it == nil {
		return
	}
	it.holders = slices.DeleteFunc(it.holders, func(h Peer) bool { return h == p })
	if len(it.holders) == 0 && len(it.asked) == 0 {
		delete(s.open, piece)
	}
}

// Lacks notes that p turned out not to hold one piece.
func (s *Swap) Lacks(p Peer, piece Piece) {
	if n := s.peers[p]; n != nil && n.holds[piece.Blob] != nil {
		n.holds[piece.Blob].Remove(piece.Index)
	}
	s.dropHolder(p, piece)
}

// Held notes that the piece is stored here, however it came, and returns the
// members whose open requests for it should be cancelled.
func (s *Swap) Held(piece Piece) []Peer {
	if w := s.blobs[piece.Blob]; w != nil {
		w.held.Add(piece.Index)
	}
	it := s.open[piece]
	if it == nil {
		return nil
	}
	var cancel []Peer
	for p := range it.asked {
		cancel = append(cancel, p)
	}
	slices.Sort(cancel)
	s.forget(piece)
	return cancel
}

// Lost notes that a piece thought to be held is not.
func (s *Swap) Lost(now time.Time, piece Piece) {
	w := s.blobs[piece.Blob]
	if w == nil || !w.held.Remove(piece.Index) {
		return
	}
	for p, n := range s.peers {
		if set := n.holds[piece.Blob]; set != nil && set.Has(piece.Index) {
			s.addHolder(now, p, piece)
		}
	}
}

// HeldBySomeone tells whether a neighbour holds the piece.
func (s *Swap) HeldBySomeone(piece Piece) bool {
	for _, n := range s.peers {
		if set := n.holds[piece.Blob]; set != nil && set.Has(piece.Index) {
			return true
		}
	}
	return false
}

// Holds tells whether p holds any piece of b.
func (s *Swap) Holds(p Peer, b pieces.Blob) bool {
	n := s.peers[p]
	return n != nil && n.holds[b] != nil && n.holds[b].Count() > 0
}

// Next decides what to ask for now.
func (s *Swap) Next(now time.Time) []Request {
	if s.spent >= s.opt.Budget || len(s.open) == 0 {
		return nil
	}
	var out []Request
	for _, c := range s.candidates(now) {
		if s.spent+c.piece.Size() > s.opt.Budget && s.spent > 0 {
			break
		}
		p, ok := s.source(now, c.it)
		if !ok {
			continue
		}
		out = append(out, Request{Peer: p, Piece: c.piece, Again: len(c.it.asked) > 0})
		s.ask(now, p, c.piece, c.it)
	}
	return out
}

type candidate struct {
	piece Piece
	it    *item
	class int // 0 first taker, 1 anyone, 2 a duplicate
}

func (s *Swap) candidates(now time.Time) []candidate {
	var out []candidate
	idle := true // nothing is left but what is asked for already
	for piece, it := range s.open {
		if len(it.holders) == 0 {
			continue
		}
		class, ok := s.class(now, piece, it)
		if ok {
			out = append(out, candidate{piece, it, class})
		}
		idle = idle && len(it.asked) > 0
	}
	out = slices.DeleteFunc(out, func(c candidate) bool { return c.class == 2 && !idle && !s.late(now, c.it) })
	slices.SortFunc(out, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(len(a.it.holders), len(b.it.holders)), cmp.Compare(a.it.order, b.it.order))
	})
	return out
}

// class tells how the piece may be asked for now, if at all.
func (s *Swap) class(now time.Time, piece Piece, it *item) (int, bool) {
	switch {
	case len(it.asked) > 1:
		return 0, false
	case len(it.asked) == 1:
		return 2, now.Sub(oldest(it)) >= s.patience(it)
	case len(it.holders) > 1 || now.Sub(it.fresh) >= s.grace(it.holders[0], piece):
		return 1, true
	default:
		if it.taker == "" {
			it.taker = s.firstTaker(piece, it.holders[0])
		}
		return 0, it.taker == s.self
	}
}

func oldest(it *item) time.Time {
	var at time.Time
	for _, t := range it.asked {
		at = earlier(at, t)
	}
	return at
}

// late tells whether a request is so old that it is worth a duplicate even while
// there are other pieces to ask for.
func (s *Swap) late(now time.Time, it *item) bool { return now.Sub(oldest(it)) >= s.opt.Late }

// patience is how long a request may take before a duplicate is worth it at the
// end: twice what the member's rate promises, at least 300 ms.
func (s *Swap) patience(it *item) time.Duration {
	longest := 300 * time.Millisecond
	for p := range it.asked {
		if n := s.peers[p]; n != nil && n.rate > 0 {
			longest = max(longest, 2*time.Duration(float64(pieces.MaxPieceSize)/4/n.rate*float64(time.Second)))
		}
	}
	return min(longest, s.opt.Late)
}

// grace is how long a fresh piece is left to its first taker: as long as two
// transfers take.
func (s *Swap) grace(holder Peer, piece Piece) time.Duration {
	n := s.peers[holder]
	if n == nil || n.rate == 0 {
		return min(500*time.Millisecond, s.opt.Grace)
	}
	two := time.Duration(2 * float64(piece.Size()) / n.rate * float64(time.Second))
	return min(max(two, 100*time.Millisecond), s.opt.Grace)
}

func (s *Swap) firstTaker(piece Piece, holder Peer) Peer {
	key := piece.key()
	best, top := s.self, Score(s.self, key)
	for p, n := range s.peers {
		if p == holder || !n.wants[piece.Blob] {
			continue
		}
		if sc := Score(p, key); sc > top || (sc == top && p > best) {
			best, top = p, sc
		}
	}
	return best
}

// source picks the holder that should deliver first, judged by what it has been
// asked for already and the rate it gave.
func (s *Swap) source(now time.Time, it *item) (Peer, bool) {
	var best Peer
	cost := 0.0
	for _, p := range it.holders {
		n := s.peers[p]
		if n == nil || now.Before(n.rest) || len(n.asked) >= s.window(n) {
			continue
		}
		if _, already := it.asked[p]; already {
			continue
		}
		c := float64(len(n.asked)+1) / max(n.rate, 1<<20) * (0.8 + 0.4*s.rng.Float64())
		if best == "" || c < cost {
			best, cost = p, c
		}
	}
	return best, best != ""
}

// window is how many pieces are asked of one member at once: enough to cover
// 200 ms at its measured rate, two while that is unknown.
func (s *Swap) window(n *neighbour) int {
	if n.rate == 0 {
		return min(2, s.opt.PerPeer)
	}
	return min(1+int(n.rate*0.2/(4<<20)), s.opt.PerPeer)
}

func (s *Swap) ask(now time.Time, p Peer, piece Piece, it *item) {
	it.asked[p] = now
	s.peers[p].asked[piece] = true
	s.spent += piece.Size()
}

// settle takes back what ask booked.
func (s *Swap) settle(p Peer, piece Piece) {
	n := s.peers[p]
	if n == nil || !n.asked[piece] {
		return
	}
	delete(n.asked, piece)
	s.spent -= piece.Size()
	if it := s.open[piece]; it != nil {
		delete(it.asked, p)
		if len(it.holders) == 0 && len(it.asked) == 0 {
			delete(s.open, piece)
		}
	}
}

// Arrived notes that a request was answered with the piece's bytes.
func (s *Swap) Arrived(p Peer, piece Piece, took time.Duration) {
	s.settle(p, piece)
	n := s.peers[p]
	if n == nil || took <= 0 {
		return
	}
	rate := float64(piece.Size()) / took.Seconds() * float64(len(n.asked)+1)
	if n.rate == 0 {
		n.rate = rate
	}
	n.rate += 0.3 * (rate - n.rate)
}

// Failed notes that a request brought nothing; the member is left alone for
// rest.
func (s *Swap) Failed(now time.Time, p Peer, piece Piece, rest time.Duration) {
	s.settle(p, piece)
	if n := s.peers[p]; n != nil {
		n.rest = now.Add(rest)
		n.rate /= 2
	}
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
