package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Key names a task: the fetching of an extent, or of a record.
type Key [32]byte

// Claim states as members announce them.
type ClaimState uint8

const (
	Asking   ClaimState = iota + 1 // may I fetch this? answer with an ack
	Fetching                       // I am fetching it; carries progress
	Released                       // I stopped, finished or not
)

func (s ClaimState) String() string {
	return [...]string{"none", "asking", "fetching", "released"}[s]
}

// SeatOptions set the limits of Seats; zero fields get the defaults.
type SeatOptions struct {
	Fetchers int           // members that fetch upstream for one group: 8
	Patience time.Duration // a claim without progress for so long may be taken over: 15 s
	AckWait  time.Duration // how long a silent neighbour can hold up a claim: 1 s
	CoolDown time.Duration // how long a member stays away from a task it failed at: 5 s
}

// Seats decides which tasks this member does for the whole swarm. A task is
// claimed by asking every rival (a member that wants the same and could do it)
// and waiting for the answers: of two that ask at once the one with the higher
// score wins, on every member's view alike, so no task is done twice.
//
// For each task the rivals are ranked by Score; the first starts. A member with
// none of its own left takes unclaimed ones, and takes over a claimed one when
// the claimant is gone or has made no progress for Patience.
type Seats struct {
	self  Peer
	opt   SeatOptions
	tasks map[Key]*task
	order []*task
}

type task struct {
	key    Key
	group  Key
	rivals map[Peer]bool
	claims map[Peer]*claim
	wanted bool // added and not removed: this member wants it done
	needed bool // something of it is still held by nobody

	state  ClaimState // of this member: 0, Asking or Fetching
	since  time.Time  // of state
	moved  time.Time  // last own progress
	bytes  int64      // own progress
	await  map[Peer]bool
	retry  time.Time // not again before
	seized bool      // asking in order to take over

	ranked bool   // place and score are up to date with rivals
	place  int    // see Seats.rank
	score  uint64 // of this member
}

type claim struct {
	state    ClaimState
	progress int64
	moved    time.Time
}

// NewSeats returns an empty planner for the member self.
func NewSeats(self Peer, o SeatOptions) *Seats {
	o.Fetchers = cmp.Or(o.Fetchers, 8)
	o.Patience = cmp.Or(o.Patience, 15*time.Second)
	o.AckWait = cmp.Or(o.AckWait, time.Second)
	o.CoolDown = cmp.Or(o.CoolDown, 5*time.Second)
	return &Seats{self: self, opt: o, tasks: map[Key]*task{}}
}

// Add introduces a task that this member wants done. Tasks of one group share
// the limit on fetchers. Adding it again changes nothing. Tasks are preferred in
// the order they were added.
func (s *Seats) Add(key, group Key) {
	t := s.task(key)
	if t.wanted {
		return
	}
	t.group, t.wanted, t.needed, t.ranked = group, true, true, false
	s.order = append(s.order, t)
}

// task finds or makes the entry for key: claims are remembered even before this
// member wants the task itself.
func (s *Seats) task(key Key) *task {
	t := s.tasks[key]
	if t == nil {
		t = &task{key: key, rivals: map[Peer]bool{}, claims: map[Peer]*claim{}, await: map[Peer]bool{}}
		s.tasks[key] = t
	}
	return t
}

// Remove forgets that this member wants the task.
func (s *Seats) Remove(key Key) {
	t := s.tasks[key]
	if t == nil {
		return
	}
	t.wanted, t.needed, t.state = false, false, 0
	s.order = slices.DeleteFunc(s.order, func(o *task) bool { return o == t })
	s.tidy(t)
}

func (s *Seats) tidy(t *task) {
	if !t.wanted && t.state == 0 && len(t.claims) == 0 {
		delete(s.tasks, t.key)
	}
}

// SetNeeded says whether the task still has something to fetch that nobody holds.
func (s *Seats) SetNeeded(key Key, needed bool) {
	if t := s.tasks[key]; t != nil {
		t.needed = needed
	}
}

// SetRival says whether p wants the task and could do it too.
func (s *Seats) SetRival(key Key, p Peer, rival bool) {
	t := s.tasks[key]
	if t == nil {
		return
	}
	if t.rivals[p] == rival {
		return
	}
	t.ranked = false
	if rival {
		t.rivals[p] = true
		return
	}
	delete(t.rivals, p)
	delete(t.await, p)
}

// Gone forgets a member: its claims are free at once.
func (s *Seats) Gone(p Peer) {
	for _, t := range s.tasks {
		t.ranked = t.ranked && !t.rivals[p]
		delete(t.rivals, p)
		delete(t.await, p)
		delete(t.claims, p)
		s.tidy(t)
	}
}

// Heard takes in a claim announced by another member.
//
// For Asking it tells what to answer (deny) and whether this member must give
// up its own claim on the task (yield):
//  1. this member fetches it and moves: deny;
//  2. it fetches it without progress for Patience: yield;
//  3. both ask: the higher score wins;
//  4. otherwise: agree.
//
// Fetching and Released need no answer, but Fetching makes this member yield when
// it only asks, when it made no progress for Patience (it was stopped, and
// another took over meanwhile), or when both fetch, as after a partition, and the
// other got further. Progress only grows, so the two never both yield.
func (s *Seats) Heard(now time.Time, p Peer, key Key, state ClaimState, progress int64) (deny, yield bool) {
	t := s.task(key)
	defer s.tidy(t)
	if state == Released {
		delete(t.claims, p)
		return false, false
	}
	if s.keeps(now, t, p, state, progress) {
		return state == Asking, false
	}
	if t.state != 0 {
		s.drop(t)
		yield = true
	}
	t.note(now, p, state, progress)
	return false, yield
}

// keeps tells whether this member's own claim on t outlives the one it heard of.
func (s *Seats) keeps(now time.Time, t *task, p Peer, state ClaimState, progress int64) bool {
	switch {
	case t.state == Fetching && now.Sub(t.moved) >= s.opt.Patience:
		return false
	case t.state == Fetching && state == Fetching:
		return t.bytes > progress || (t.bytes == progress && s.before(s.self, p, t.key))
	case t.state == Fetching:
		return true
	case t.state == Asking && state == Asking:
		return s.before(s.self, p, t.key)
	}
	return false
}

func (t *task) note(now time.Time, p Peer, state ClaimState, progress int64) {
	c := t.claims[p]
	if c == nil {
		c = &claim{moved: now}
		t.claims[p] = c
	}
	if progress > c.progress || state != c.state {
		c.moved = now
	}
	c.state, c.progress = state, max(progress, c.progress)
}

func (s *Seats) drop(t *task) {
	t.state, t.seized = 0, false
	clear(t.await)
}

// before tells whether a comes before b for the key.
func (s *Seats) before(a, b Peer, key Key) bool {
	sa, sb := Score(a, key[:]), Score(b, key[:])
	return sa > sb || (sa == sb && a > b)
}

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
	var out []Ask
	for _, class := range []func(time.Time, *task) bool{s.ours, s.unclaimed, s.stale} {
		for _, t := range s.preferred(now, class) {
			if len(out) >= free {
				return out
			}
			out = append(out, s.ask(now, t))
		}
	}
	return out
}

// Claim is Next for one task alone; ok tells whether it is to be asked for now.
func (s *Seats) Claim(now time.Time, key Key) (a Ask, ok bool) {
	t := s.tasks[key]
	if t == nil || !s.open(now, t) || (len(t.claims) > 0 && !s.stale(now, t)) {
		return Ask{}, false
	}
	return s.ask(now, t), true
}

// open tells whether this member may claim the task at all now.
func (s *Seats) open(now time.Time, t *task) bool {
	return t.needed && t.state == 0 && !now.Before(t.retry) && s.rank(t) >= 0
}

// preferred lists the open tasks of a class. Own ones come in the order of the
// files; others by this member's score, so that members that run out of work at
// the same time reach for different tasks.
func (s *Seats) preferred(now time.Time, class func(time.Time, *task) bool) []*task {
	var out []*task
	for _, t := range s.order {
		if s.open(now, t) && class(now, t) {
			out = append(out, t)
		}
	}
	slices.SortStableFunc(out, func(a, b *task) int {
		ra, rb := min(s.rank(a), 1), min(s.rank(b), 1)
		if ra != rb || ra == 0 {
			return cmp.Compare(ra, rb)
		}
		return cmp.Compare(b.score, a.score)
	})
	return out
}

func (s *Seats) ours(now time.Time, t *task) bool      { return len(t.claims) == 0 && s.rank(t) == 0 }
func (s *Seats) unclaimed(now time.Time, t *task) bool { return len(t.claims) == 0 }

func (s *Seats) stale(now time.Time, t *task) bool {
	for _, c := range t.claims {
		if now.Sub(c.moved) < s.opt.Patience {
			return false
		}
	}
	return len(t.claims) > 0
}

// rank returns this member's place among the fetchers of the task's group, 0
// first, or -1 when others fill all the seats.
func (s *Seats) rank(t *task) int {
	if !t.ranked {
		t.place, t.score, t.ranked = s.findPlace(t), Score(s.self, t.key[:]), true
	}
	return t.place
}

func (s *Seats) findPlace(t *task) int {
	ahead, rank := 0, 0
	for p := range t.rivals {
		if s.before(p, s.self, t.group) {
			ahead++
		}
	}
	if ahead >= s.opt.Fetchers {
		return -1
	}
	for p := range t.rivals {
		if s.before(p, s.self, t.key) && s.seated(t, p) {
			rank++
		}
	}
	return rank
}

// seated tells whether rival p is one of the group's fetchers.
func (s *Seats) seated(t *task, p Peer) bool {
	if len(t.rivals) < s.opt.Fetchers {
		return true
	}
	ahead := 0
	for q := range t.rivals {
		if q != p && s.before(q, p, t.group) {
			ahead++
		}
	}
	if s.before(s.self, p, t.group) {
		ahead++
	}
	return ahead < s.opt.Fetchers
}

func (s *Seats) ask(now time.Time, t *task) Ask {
	a := Ask{Key: t.key, Takeover: len(t.claims) > 0}
	t.state, t.since, t.moved, t.bytes, t.seized = Asking, now, now, 0, a.Takeover
	for p := range t.rivals {
		if c := t.claims[p]; c != nil && now.Sub(c.moved) >= s.opt.Patience {
			continue // told, but its silence is not waited for
		}
		t.await[p] = true
	}
	for p := range t.rivals {
		a.To = append(a.To, p)
	}
	slices.Sort(a.To)
	return a
}

// Acked takes in a rival's answer. A denial ends the asking; the denier's claim
// is remembered.
func (s *Seats) Acked(now time.Time, p Peer, key Key, deny bool) {
	t := s.tasks[key]
	if t == nil || t.state != Asking {
		return
	}
	if deny {
		s.drop(t)
		t.note(now, p, Asking, 0)
		return
	}
	delete(t.await, p)
}

// Ready returns the asked-for tasks that may start now: every rival agreed, or
// was silent for AckWait. They count as Fetching from here on.
func (s *Seats) Ready(now time.Time) []Key {
	var out []Key
	for _, t := range s.order {
		if t.state != Asking || (len(t.await) > 0 && now.Sub(t.since) < s.opt.AckWait) {
			continue
		}
		if t.seized {
			clear(t.claims)
		}
		t.state, t.since, t.moved, t.seized = Fetching, now, now, false
		out = append(out, t.key)
	}
	return out
}

// Moved notes progress of this member's own fetching, in bytes since it began.
func (s *Seats) Moved(now time.Time, key Key, progress int64) {
	if t := s.tasks[key]; t != nil && progress > t.bytes {
		t.moved, t.bytes = now, progress
	}
}

// Finished ends this member's claim. After a failure it stays away from the task
// for CoolDown, so that another member can try.
func (s *Seats) Finished(now time.Time, key Key, failed bool) {
	t := s.tasks[key]
	if t == nil {
		return
	}
	s.drop(t)
	if failed {
		t.retry = now.Add(s.opt.CoolDown)
	}
}

// Own returns the tasks that this member asks for or fetches, for a neighbour
// that has just come and must know them.
func (s *Seats) Own() map[Key]ClaimState {
	out := map[Key]ClaimState{}
	for k, t := range s.tasks {
		if t.state != 0 {
			out[k] = t.state
		}
	}
	return out
}

// Claimants returns who claims the task now, this member not counted.
func (s *Seats) Claimants(key Key) []Peer {
	var out []Peer
	if t := s.tasks[key]; t != nil {
		for p := range t.claims {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// Fetchers counts the members, this one included, that fetch something now.
func (s *Seats) Fetchers() int {
	busy := map[Peer]bool{}
	for _, t := range s.tasks {
		if t.state == Fetching {
			busy[s.self] = true
		}
		for p, c := range t.claims {
			if c.state == Fetching {
				busy[p] = true
			}
		}
	}
	return len(busy)
}

// OpenAll counts the tasks that any member, this one included, fetches now.
func (s *Seats) OpenAll() int {
	n := 0
	for _, t := range s.tasks {
		if t.state == Fetching {
			n++
		}
		for _, c := range t.claims {
			if c.state == Fetching {
				n++
			}
		}
	}
	return n
}

// Open counts this member's claims, asked for or fetching.
func (s *Seats) Open() int {
	n := 0
	for _, t := range s.order {
		if t.state != 0 {
			n++
		}
	}
	return n
}

// Wake returns when Ready or Next may have something new without any event, or
// the zero time.
func (s *Seats) Wake(now time.Time) time.Time {
	var at time.Time
	for _, t := range s.order {
		switch {
		case t.state == Asking:
			at = earlier(at, t.since.Add(s.opt.AckWait))
		case t.needed && t.state == 0 && now.Before(t.retry):
			at = earlier(at, t.retry)
		case t.needed && t.state == 0:
			for _, c := range t.claims {
				at = earlier(at, c.moved.Add(s.opt.Patience))
			}
		}
	}
	return at
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// Describe returns what is known of a task, for a log or a failed test.
func (s *Seats) Describe(key Key) string {
	t := s.tasks[key]
	if t == nil {
		return "unknown"
	}
	return fmt.Sprintf("state %s needed %v rank %d rivals %d awaited %d claims %d", t.state, t.needed, s.rank(t), len(t.rivals), len(t.await), len(t.claims))
}
