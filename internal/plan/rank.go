package plan

import (
	"cmp"
	"slices"
	"time"
)

// Ask is a decision to claim a task: the rivals in To must be asked.
type Ask struct {
	Key      Key
	To       []Peer
	Takeover bool
}

// Next picks up to free tasks to claim now, in the order of preference: those
// where this member ranks first, other unclaimed ones, stale ones. Each must be
// asked for; with nobody to ask it can be started at once (see Ready).
func (s *Seats) Next(now time.Time, free int) []Ask {
	s.wake(now)
	if free <= 0 {
		return nil
	}
	var out []Ask
	for _, t := range s.preferred(now, free) {
		out = append(out, s.ask(now, t))
	}
	return out
}

// Claim is Next for one task alone; ok tells whether it is to be asked for now.
func (s *Seats) Claim(now time.Time, key Key) (a Ask, ok bool) {
	s.wake(now)
	t := s.tasks[key]
	if t == nil || !s.open(now, t) {
		return Ask{}, false
	}
	return s.ask(now, t), true
}

// lonely is how many times AckWait a member starts nothing after it has lost its
// last rival: it may be the one that was cut off, and find the others again.
const lonely = 3

// open tells whether this member may claim the task now.
func (s *Seats) open(now time.Time, t *task) bool {
	if t.alone {
		t.alone, t.retry = false, now.Add(lonely*s.opt.AckWait)
	}
	if !t.needed || t.state != 0 || now.Before(t.retry) {
		return false
	}
	for _, c := range t.claims {
		if !s.stale(now, c) {
			return false
		}
	}
	return s.rank(t) >= 0 || s.starved(now, t)
}

// starved tells whether nobody's fetching in the group has brought anything for
// so long that those without a seat must help: the seats may be taken by members
// that can't reach upstream.
func (s *Seats) starved(now time.Time, t *task) bool {
	if t.group.gain.IsZero() {
		t.group.gain = now
	}
	return now.Sub(t.group.gain) >= 2*s.opt.Patience
}

// preferred lists at most n open tasks, kind by kind. Of those that a reader needs
// the one needed soonest comes first, own ones come in the order of the files,
// others by this member's score, so that members that run out of work at the same
// time reach for different tasks.
func (s *Seats) preferred(now time.Time, n int) []*task {
	var of [kinds][]*task
	for _, t := range s.order {
		if len(of[own]) == n && t.lead == calm {
			continue
		}
		if s.open(now, t) {
			kind := s.kind(t)
			of[kind] = append(of[kind], t)
		}
	}
	slices.SortStableFunc(of[read], func(a, b *task) int { return cmp.Compare(a.lead, b.lead) })
	for _, others := range [][]*task{of[other], of[otherWaits], of[takeover]} {
		slices.SortStableFunc(others, func(a, b *task) int { return cmp.Compare(b.score, a.score) })
	}
	all := slices.Concat(of[:]...)
	return all[:min(n, len(all))]
}

// The kinds of open tasks, in the order of preference.
const (
	read       = iota // a reader here needs it, whoever ranks first for it and whatever it waits for
	own               // this member ranks first
	other             // another does
	ownWaits          // its predecessor is still to be done
	otherWaits        // the same, of another
	takeover          // claimed by a member that is gone or stalls
	kinds
)

func (s *Seats) kind(t *task) int {
	switch {
	case t.lead != calm:
		return read
	case len(t.claims) > 0:
		return takeover
	case t.place == 0 && !s.waits(t):
		return own
	case !s.waits(t):
		return other
	case t.place == 0:
		return ownWaits
	}
	return otherWaits
}

// waits tells whether the task before t is still to be done: what it brings (the
// state of a digest) would save work in this one.
func (s *Seats) waits(t *task) bool {
	before := s.tasks[t.after]
	return before != nil && before.needed
}

// rank returns this member's place among the fetchers of the task's group, 0
// first, or -1 when others fill all the seats.
func (s *Seats) rank(t *task) int {
	if !t.ranked {
		t.ranked = true
		s.seat(t)
	}
	return t.place
}

// witnesses is how many members are asked at least, seats or not: one that hears
// a claimant which this member does not hear will deny.
const witnesses = 4

// seat finds out which rivals have a seat, who is asked, and this member's place.
func (s *Seats) seat(t *task) {
	circle := t.best(max(s.opt.Fetchers, witnesses))
	own := slices.IndexFunc(circle, func(p Peer) bool { return ahead(t.group.own, s.self, t.rivals[p], p) })
	if own < 0 {
		own = len(circle)
	}
	t.circle, t.seats, t.place = circle, circle[:min(len(circle), s.opt.Fetchers)], -1
	if own >= s.opt.Fetchers {
		return
	}
	t.seats, t.place = circle[:min(len(circle), s.opt.Fetchers-1)], 0
	for _, p := range t.seats {
		if ahead(Score(p, t.key[:]), p, t.score, s.self) {
			t.place++
		}
	}
}

// best returns the first n rivals by their score for the group.
func (t *task) best(n int) []Peer {
	top := make([]Peer, 0, n+1)
	for p, score := range t.rivals {
		at, _ := slices.BinarySearchFunc(top, p, func(q, _ Peer) int {
			if ahead(t.rivals[q], q, score, p) {
				return -1
			}
			return 1
		})
		if at < n {
			top = slices.Insert(top[:min(len(top), n-1)], at, p)
		}
	}
	return top
}

// ranks tells whether a new rival changes what seat finds out.
func (t *task) ranks(s *Seats, p Peer) bool {
	if len(t.circle) < max(s.opt.Fetchers, witnesses) {
		return true
	}
	last := t.circle[len(t.circle)-1]
	return ahead(t.rivals[p], p, t.rivals[last], last)
}

// Seated returns the members that have a seat for the task, this one included:
// they must be able to ask each other.
func (s *Seats) Seated(key Key) []Peer {
	t := s.tasks[key]
	if t == nil || t.group == nil {
		return nil
	}
	var out []Peer
	if s.rank(t) >= 0 {
		out = append(out, s.self)
	}
	out = append(out, t.seats...)
	slices.Sort(out)
	return out
}

// Wake returns when Ready or Next may have something new without any event, or
// the zero time. While this member asks it is at most a quarter of AckWait away.
func (s *Seats) Wake(now time.Time) time.Time {
	s.wake(now)
	var at time.Time
	for _, t := range s.order {
		switch {
		case t.state == Asking:
			at = earlier(at, t.since.Add(s.opt.AckWait))
			at = earlier(at, now.Add(s.opt.AckWait/4))
		case !t.needed || t.state != 0:
		case now.Before(t.retry):
			at = earlier(at, t.retry)
		default:
			at = s.ripe(now, t, at)
		}
	}
	return at
}

// ripe returns the earlier of at and when t may be taken over.
func (s *Seats) ripe(now time.Time, t *task, at time.Time) time.Time {
	for _, c := range t.claims {
		at = earlier(at, c.moved.Add(s.lasts(c)))
	}
	if s.rank(t) < 0 && !s.starved(now, t) {
		at = earlier(at, t.group.gain.Add(2*s.opt.Patience))
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
