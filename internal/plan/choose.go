package plan

import (
	"cmp"
	"time"
)

// Next decides what to ask for now.
func (s *Swap) Next(now time.Time) []Request {
	if s.spent >= s.opt.Budget || len(s.open) == 0 || !s.survey(now) {
		return nil
	}
	var out []Request
	for s.gather(now); len(s.queue) > 0; {
		it := s.queue.pop().it
		if s.spent+it.piece.Size() > s.opt.Budget && s.spent > 0 {
			break
		}
		n := s.source(now, it)
		if n == nil {
			continue
		}
		out = append(out, Request{Peer: n.name, Piece: it.piece, Again: len(it.asked) > 0})
		s.ask(now, n, it)
	}
	return out
}

// survey looks at the neighbours: how many requests each may get, what rate to
// expect of those that have not shown one, and who has sent more than its part.
// It tells whether any may get a request.
func (s *Swap) survey(now time.Time) bool {
	some, load, givers, rate, rated := false, 0.0, 0, 0.0, 0
	s.takers = 1
	for _, n := range s.near {
		if n.wants > 0 {
			s.takers++
		}
		n.room = 0
		if !now.Before(n.rest) {
			n.room = max(0, s.window(n)-len(n.asked))
		}
		some = some || n.room > 0
		if n.gives {
			load += n.load()
			givers++
		}
		if n.rate > 0 {
			rate += n.rate
			rated++
		}
	}
	s.usual = max(rate/float64(max(rated, 1)), 1<<20)
	s.weigh(load / float64(max(givers, 1)))
	return some
}

// weigh marks the neighbours that have sent more than their part. What was drawn
// is known to the nearest request only: one less is the benefit of the doubt.
func (s *Swap) weigh(part float64) {
	doubt := float64(s.takers) * (4 << 20)
	for _, n := range s.near {
		n.heavy = n.duty+max(0, n.drawn-doubt) > part
	}
}

// load estimates what a neighbour has sent to the members in sight.
func (n *neighbour) load() float64 { return n.duty + n.drawn }

// window is how many pieces are asked of one member at once: enough to cover
// 200 ms at its measured rate, two while that is unknown.
func (s *Swap) window(n *neighbour) int {
	if n.rate == 0 {
		return min(2, s.opt.PerPeer)
	}
	return min(1+int(n.rate*0.2/(4<<20)), s.opt.PerPeer)
}

// class says what a request for a piece would be. Those of a lower class are made
// first.
type class uint8

const (
	first     class = iota // a distinct first copy: one member holds the piece, it is our turn
	spread                 // several hold it
	scarce                 // one holds it, and those whose turn it was did not come
	duplicate              // asked for already
)

type candidate struct {
	it    *item
	class class
	lead  int // of a reader; see Readers
}

// before: what is read next, then rarest first within a class, ties in this
// member's own order.
func (c candidate) before(d candidate) bool {
	return cmp.Or(cmp.Compare(c.lead, d.lead), cmp.Compare(c.class, d.class),
		cmp.Compare(len(c.it.holders), len(d.it.holders)),
		cmp.Compare(c.it.order, d.it.order)) < 0
}

// gather fills the queue with what may be asked for now. A piece is asked for
// twice when nothing else is left, when the first request is very late, or when a
// reader waits for it and it is late.
func (s *Swap) gather(now time.Time) {
	s.queue = s.queue[:0]
	idle := true
	for _, it := range s.open {
		idle = idle && (len(it.asked) > 0 || len(it.holders) == 0)
		if !it.available() {
			continue
		}
		if class, ok := s.classify(now, it); ok {
			s.queue = append(s.queue, candidate{it, class, s.opt.Readers.lead(it.piece)})
		}
	}
	kept := s.queue[:0]
	for _, c := range s.queue {
		if c.class != duplicate || idle || c.lead == 0 || s.late(now, c.it) {
			kept = append(kept, c)
		}
	}
	s.queue = kept
	s.queue.order()
}

// available tells whether a holder may get a request now.
func (it *item) available() bool {
	for _, n := range it.holders {
		if n.room > 0 {
			return true
		}
	}
	return false
}

// classify tells how the piece may be asked for now, if at all.
func (s *Swap) classify(now time.Time, it *item) (class, bool) {
	switch {
	case len(it.asked) > 1:
		return 0, false
	case len(it.asked) == 1:
		return duplicate, now.Sub(it.asked[0].at) >= s.patience(it)
	}
	ahead, givers := s.ahead(it), it.givers()
	switch {
	case ahead >= max(givers, 1)<<s.waves(now, it, givers == 0) && now.Sub(it.since) < s.opt.Late:
		return 0, false
	case len(it.holders) > 1:
		return spread, true
	case ahead == 0:
		return first, true
	}
	return scarce, true
}

// givers counts the holders that have not sent more than their part.
func (it *item) givers() int {
	n := 0
	for _, h := range it.holders {
		if !h.heavy {
			n++
		}
	}
	return n
}

// waves counts the times that something should have come of the piece since the
// last holder came: each time twice as many may ask for it, for members that the
// others don't see, or see in vain, must not stop it. Where only members that
// have sent more than their part hold it, it is worth waiting for others longer.
func (s *Swap) waves(now time.Time, it *item, heavy bool) int {
	wave := s.grace(it) / 2
	if heavy {
		wave = s.opt.Late / 2
	}
	return int(min(now.Sub(it.since)/wave, 20))
}

// ahead counts the neighbours that want the piece, don't hold it, and whose turn
// comes before this member's.
func (s *Swap) ahead(it *item) int {
	if it.ahead >= 0 {
		return it.ahead
	}
	it.ahead = 0
	own := mix(it.of.turn, it.piece.Index)
	for _, sh := range it.of.shares {
		if sh.wants && (sh.holds == nil || !sh.holds.Has(it.piece.Index)) && mix(sh.turn, it.piece.Index) > own {
			it.ahead++
		}
	}
	return it.ahead
}

// mix gives the turns at a piece (the finaliser of SplitMix64, Steele et al.
// 2014): all members compute the same, with another order for each piece.
func mix(seed uint64, index int) uint64 {
	x := seed + uint64(index)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// grace is how long a piece is left to those whose turn it is: as long as two
// transfers take.
func (s *Swap) grace(it *item) time.Duration {
	best := 0.0
	for _, n := range it.holders {
		best = max(best, n.rate)
	}
	if best == 0 {
		return min(500*time.Millisecond, s.opt.Grace)
	}
	return min(max(seconds(2*float64(it.piece.Size())/best), 100*time.Millisecond), s.opt.Grace)
}

// patience is how long a request may take before a duplicate is worth it at the
// end: twice what the member's rate promises, at least 300 ms, at most Late.
func (s *Swap) patience(it *item) time.Duration {
	return min(max(2*it.promised(), 300*time.Millisecond), s.opt.Late)
}

// late tells whether a request is so old that it is worth a duplicate even while
// there are other pieces to ask for.
func (s *Swap) late(now time.Time, it *item) bool {
	return now.Sub(it.asked[0].at) >= max(s.opt.Late, 3*it.promised())
}

// promised is how long the first request for the piece should take.
func (it *item) promised() time.Duration {
	n := it.asked[0].of
	if n.rate == 0 {
		return 0
	}
	return seconds(float64(len(n.asked)) * float64(it.piece.Size()) / n.rate)
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 3600) * float64(time.Second))
}

// source picks the holder to ask: one that should deliver soon, judged by what it
// has been asked for already and the rate it gave, and that has sent little. A
// holder that has sent more than its part is left alone while others hold the
// piece too and it is new.
func (s *Swap) source(now time.Time, it *item) *neighbour {
	var best *neighbour
	cost := 0.0
	spare := it.givers() > 0 && now.Sub(it.since) < s.opt.Late
	for _, n := range it.holders {
		if n.room <= 0 || n.asked[it.piece] || (spare && n.heavy) {
			continue
		}
		wait := float64(len(n.asked)+1) / cmp.Or(n.rate, s.usual)
		c := wait * (2*n.duty + n.drawn + 16<<20) * (0.8 + 0.4*s.rng.Float64())
		if best == nil || c < cost {
			best, cost = n, c
		}
	}
	return best
}

// queue is the candidates as a binary heap, the first one on top. Most calls of
// Next take a few of thousands: sorting them all would be most of its cost.
type queue []candidate

func (q queue) order() {
	for i := len(q)/2 - 1; i >= 0; i-- {
		q.sink(i)
	}
}

func (q *queue) pop() candidate {
	old := *q
	top, last := old[0], len(old)-1
	old[0], old[last] = old[last], candidate{}
	*q = old[:last]
	q.sink(0)
	return top
}

func (q queue) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(q) {
			return
		}
		if child+1 < len(q) && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(q[i]) {
			return
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
}
