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
	Grace   time.Duration // longest that a fresh piece is left to those whose turn it is: 2 s
	Late    time.Duration // a request older than this may be duplicated: 3 s
	Seed    uint64        // of the order in which equally rare pieces are asked for
	Readers *Readers      // whose pieces come first; nil for none
}

// Swap picks the pieces to ask of other members.
//
// What a reader waits for comes first (Readers), then the rarest; ties are broken by an order of this member's own, because
// members that start together and break ties alike all ask for the same piece
// (measured: three to six copies out of one source).
//
// No member shall send much more than it gets. Two rules see to that. A piece
// spreads in waves: while one member holds it one other may ask for it, then as
// many as hold it, in an order that all members compute alike; distinct first
// copies leave the seat, and the takers pass them on. And each member estimates
// from the offers that it sees what the others have sent, and spares those that
// have sent more than their part. Both rules only delay a request, by Late at
// most.
//
// This file keeps what the decisions are based on; choose.go makes them.
type Swap struct {
	self  Peer
	opt   SwapOptions
	rng   *rand.Rand
	peers map[Peer]*neighbour
	near  []*neighbour // the same, in the order of arrival
	blobs map[pieces.Blob]*wanted
	open  []*item // wanted, not held, held by some neighbour or asked for
	spent int64   // bytes asked for now

	// As of the last call of Next.
	takers int     // members that want something, this one included
	usual  float64 // rate to expect of a neighbour
	queue  queue
}

// neighbour is a member that pieces are asked of.
type neighbour struct {
	name  Peer
	blobs map[pieces.Blob]*share
	wants int  // blobs that it wants
	gives bool // it has offered something
	asked map[Piece]bool
	rate  float64 // bytes a second, smoothed; 0 unknown
	rest  time.Time

	// What it has sent, as far as this member can tell, in bytes.
	duty  float64 // first copies: it was the first to hold the piece
	drawn float64 // others, reckoned from what this member asked of it

	room  int  // requests that it may get now; as of the last Next
	heavy bool // it has sent more than its part; as of the last Next
}

// share is what a neighbour holds and wants of one blob.
type share struct {
	of    *neighbour
	wants bool
	holds *pieces.Set // nil: nothing
	turn  uint64      // seed of its turns
}

// wanted is a blob that this member wants.
type wanted struct {
	blob   pieces.Blob
	held   *pieces.Set
	items  []*item // by index; nil: no neighbour ever held the piece
	shares []*share
	turn   uint64
}

// item is a piece of a wanted blob.
type item struct {
	piece   Piece
	of      *wanted
	holders []*neighbour
	asked   []inquiry
	order   uint64
	since   time.Time // when the last holder came
	ahead   int       // wanters whose turn comes before this member's; -1: count again
	at      int       // index in Swap.open, -1: not open
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
	o.Readers = cmp.Or(o.Readers, NewReaders())
	return &Swap{
		self: self, opt: o, rng: rand.New(rand.NewPCG(o.Seed, Score(self, nil))),
		peers: map[Peer]*neighbour{}, blobs: map[pieces.Blob]*wanted{},
	}
}

// Limit changes the budget. What is asked for already stays.
func (s *Swap) Limit(budget int64) { s.opt.Budget = budget }

// Want starts to ask for the pieces of b that are not in held.
func (s *Swap) Want(now time.Time, b pieces.Blob, held *pieces.Set) {
	if s.blobs[b] != nil {
		return
	}
	w := &wanted{blob: b, held: held.Clone(), items: make([]*item, b.Pieces()), turn: Score(s.self, b.Digest.Bytes())}
	s.blobs[b] = w
	for _, n := range s.near {
		sh := n.blobs[b]
		if sh == nil {
			continue
		}
		w.shares = append(w.shares, sh)
		for i := range all(sh.holds) {
			s.addHolder(now, w, i, sh.of)
		}
	}
}

func all(set *pieces.Set) func(func(int) bool) {
	if set == nil {
		return func(func(int) bool) {}
	}
	return set.All()
}

// Drop stops asking for b; requests under way may still be answered.
func (s *Swap) Drop(b pieces.Blob) {
	w := s.blobs[b]
	if w == nil {
		return
	}
	for _, it := range w.items {
		if it != nil {
			s.settleAll(it)
			s.shut(it)
		}
	}
	delete(s.blobs, b)
}

// Up introduces a neighbour.
func (s *Swap) Up(p Peer) {
	if s.peers[p] == nil {
		n := &neighbour{name: p, blobs: map[pieces.Blob]*share{}, asked: map[Piece]bool{}}
		s.peers[p] = n
		s.near = append(s.near, n)
	}
}

// Down forgets a neighbour; what was asked of it can be asked of others.
func (s *Swap) Down(p Peer) {
	n := s.peers[p]
	if n == nil {
		return
	}
	for b, sh := range n.blobs {
		s.Withdraw(p, b)
		if w := s.blobs[b]; w != nil {
			w.shares = slices.DeleteFunc(w.shares, func(o *share) bool { return o == sh })
			w.recount()
		}
	}
	for piece := range n.asked {
		s.settle(n, piece)
	}
	delete(s.peers, p)
	s.near = slices.DeleteFunc(s.near, func(o *neighbour) bool { return o == n })
}

// share returns the entry of a neighbour for b, made when it is new.
func (s *Swap) share(n *neighbour, b pieces.Blob) *share {
	sh := n.blobs[b]
	if sh == nil {
		sh = &share{of: n, turn: Score(n.name, b.Digest.Bytes())}
		n.blobs[b] = sh
		if w := s.blobs[b]; w != nil {
			w.shares = append(w.shares, sh)
		}
	}
	return sh
}

// Wants notes that a neighbour wants b (it may come before us with a piece).
func (s *Swap) Wants(p Peer, b pieces.Blob, wants bool) {
	n := s.peers[p]
	if n == nil || (!wants && n.blobs[b] == nil) {
		return
	}
	sh := s.share(n, b)
	if sh.wants == wants {
		return
	}
	if sh.wants = wants; wants {
		n.wants++
	} else {
		n.wants--
	}
	if w := s.blobs[b]; w != nil {
		w.recount()
	}
}

// recount has the turns of all pieces counted again when they are needed.
func (w *wanted) recount() {
	for _, it := range w.items {
		if it != nil {
			it.ahead = -1
		}
	}
}

// Offer notes that p holds a piece and that its proof is known here.
func (s *Swap) Offer(now time.Time, p Peer, piece Piece) {
	n := s.peers[p]
	if n == nil {
		return
	}
	sh := s.share(n, piece.Blob)
	if sh.holds == nil {
		sh.holds = pieces.NewSet(piece.Blob.Pieces())
	}
	if !sh.holds.Add(piece.Index) {
		return
	}
	n.gives = true
	if w := s.blobs[piece.Blob]; w != nil {
		s.addHolder(now, w, piece.Index, n)
	}
}

func (s *Swap) addHolder(now time.Time, w *wanted, index int, n *neighbour) {
	it := w.items[index]
	if it == nil {
		it = &item{piece: Piece{w.blob, index}, of: w, order: s.rng.Uint64(), at: -1}
		w.items[index] = it
	}
	if len(it.holders) == 0 {
		n.duty += float64(it.piece.Size())
	}
	it.holders = append(it.holders, n)
	it.since, it.ahead = now, -1
	if !w.held.Has(index) {
		s.show(it)
	}
}

func (s *Swap) show(it *item) {
	if it.at < 0 {
		it.at = len(s.open)
		s.open = append(s.open, it)
	}
}

func (s *Swap) shut(it *item) {
	if it.at < 0 {
		return
	}
	last := s.open[len(s.open)-1]
	s.open[it.at], last.at = last, it.at
	s.open[len(s.open)-1] = nil
	s.open = s.open[:len(s.open)-1]
	it.at = -1
}

// Withdraw notes that p no longer holds any piece of b.
func (s *Swap) Withdraw(p Peer, b pieces.Blob) {
	n := s.peers[p]
	if n == nil || n.blobs[b] == nil || n.blobs[b].holds == nil {
		return
	}
	for i := range n.blobs[b].holds.All() {
		s.dropHolder(n, Piece{b, i})
	}
	n.blobs[b].holds = nil
}

func (s *Swap) dropHolder(n *neighbour, piece Piece) {
	it := s.item(piece)
	if it == nil {
		return
	}
	it.holders = slices.DeleteFunc(it.holders, func(h *neighbour) bool { return h == n })
	it.ahead = -1
	s.close(it)
}

// close takes an item out of those that are open when nobody can deliver it.
func (s *Swap) close(it *item) {
	if len(it.holders) == 0 && len(it.asked) == 0 {
		s.shut(it)
	}
}

func (s *Swap) item(piece Piece) *item {
	if w := s.blobs[piece.Blob]; w != nil {
		return w.items[piece.Index]
	}
	return nil
}

// Lacks notes that p turned out not to hold one piece.
func (s *Swap) Lacks(p Peer, piece Piece) {
	n := s.peers[p]
	if n == nil || n.blobs[piece.Blob] == nil || n.blobs[piece.Blob].holds == nil {
		return
	}
	if n.blobs[piece.Blob].holds.Remove(piece.Index) {
		s.dropHolder(n, piece)
	}
}

// Held notes that the piece is stored here, however it came, and returns the
// members whose open requests for it should be cancelled.
func (s *Swap) Held(piece Piece) []Peer {
	w := s.blobs[piece.Blob]
	if w == nil {
		return nil
	}
	w.held.Add(piece.Index)
	it := w.items[piece.Index]
	if it == nil {
		return nil
	}
	var cancel []Peer
	for _, q := range it.asked {
		cancel = append(cancel, q.of.name)
	}
	slices.Sort(cancel)
	s.settleAll(it)
	s.shut(it)
	return cancel
}

// Lost notes that a piece thought to be held is not.
func (s *Swap) Lost(now time.Time, piece Piece) {
	w := s.blobs[piece.Blob]
	if w == nil || !w.held.Remove(piece.Index) {
		return
	}
	if it := w.items[piece.Index]; it != nil && len(it.holders) > 0 {
		it.since = now
		s.show(it)
	}
}

// HeldBySomeone tells whether a neighbour holds the piece.
func (s *Swap) HeldBySomeone(piece Piece) bool {
	if w := s.blobs[piece.Blob]; w != nil {
		it := w.items[piece.Index]
		return it != nil && len(it.holders) > 0
	}
	for _, n := range s.near {
		if sh := n.blobs[piece.Blob]; sh != nil && sh.holds != nil && sh.holds.Has(piece.Index) {
			return true
		}
	}
	return false
}

// Holds tells whether p holds any piece of b.
func (s *Swap) Holds(p Peer, b pieces.Blob) bool {
	n := s.peers[p]
	return n != nil && n.blobs[b] != nil && n.blobs[b].holds != nil && n.blobs[b].holds.Count() > 0
}
