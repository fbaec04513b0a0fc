package plan

import (
	"cmp"
	"fmt"
	"maps"
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
	names := [...]string{"none", "asking", "fetching", "released"}
	return names[min(int(s), len(names)-1)]
}

// SeatOptions set the limits of Seats; zero fields get the defaults.
type SeatOptions struct {
	Fetchers int           // members that fetch upstream for one group: 8
	Patience time.Duration // a claim without progress for so long may be taken over: 13 s, which with news once a second is within 15 s
	AckWait  time.Duration // how long a silent neighbour can hold up a claim: 1 s
	CoolDown time.Duration // how long a member stays away from a task it failed at: 5 s
}

// Seats decides which tasks this member does for the whole swarm. A task is
// claimed by asking the rivals (members that want the same and could do it) that
// have a seat, and waiting for the answers: of two that ask at once the one with
// the higher score wins, on every member's view alike, so no task is done twice.
//
// For each task the rivals are ranked by Score; the first starts. A member with
// none of its own left takes unclaimed ones, and takes over a claimed one when
// the claimant is gone or has made no progress for Patience. Members without a
// seat do nothing, unless those with a seat bring nothing for twice Patience.
//
// This file keeps what is known, claims.go deals with claims, rank.go decides
// what to claim.
type Seats struct {
	self   Peer
	opt    SeatOptions
	tasks  map[Key]*task
	groups map[Key]*group
	order  []*task   // those added, in this order
	mine   []*task   // those asked for or fetched by this member
	seen   time.Time // last time that anything was done here
}

type group struct {
	key   Key
	tasks int       // added
	own   uint64    // score of this member
	gain  time.Time // when anybody's fetching last brought anything
}

// maxForeign bounds the tasks that are known only because others claim them.
const maxForeign = 1 << 14

type task struct {
	key    Key
	group  *group          // nil: not added
	after  Key             // the task that is better done first, or zero
	rivals map[Peer]uint64 // with their score for the group
	claims map[Peer]*claim
	needed bool
	lead   int // of a reader, calm without one

	state ClaimState // of this member: 0, Asking or Fetching
	since time.Time  // of state, later after a pause
	asked time.Time
	moved time.Time // last own progress
	bytes int64     // own progress
	await map[Peer]bool
	owed  map[Peer]debt  // answers to earlier questions on their way
	seize bool           // asking in order to take over
	echo  map[Peer]*echo // those it was taken from
	retry time.Time      // not again before
	alone bool           // the last rival has gone

	ranked bool   // what follows is up to date with rivals
	seats  []Peer // rivals that have a seat
	circle []Peer // rivals to ask
	place  int    // see Seats.rank
	score  uint64 // of this member
}

// claim is another member's.
type claim struct {
	state    ClaimState
	progress int64
	moved    time.Time
}

type debt struct {
	answers int
	asked   time.Time
}

// echo is what may still come from a claimant that was silent when its task was
// taken over: first the progress it had made before, then the end of its claim.
type echo struct {
	progress int64
	grown    int
}

// NewSeats returns an empty planner for the member self.
func NewSeats(self Peer, o SeatOptions) *Seats {
	o.Fetchers = cmp.Or(o.Fetchers, 8)
	o.Patience = cmp.Or(o.Patience, 13*time.Second)
	o.AckWait = cmp.Or(o.AckWait, time.Second)
	o.CoolDown = cmp.Or(o.CoolDown, 5*time.Second)
	return &Seats{self: self, opt: o, tasks: map[Key]*task{}, groups: map[Key]*group{}}
}

// Add introduces a task that this member wants done. Tasks of one group share
// the limit on fetchers. Adding it again changes nothing. Tasks are preferred in
// the order they were added, but one whose predecessor (after, zero for none) is
// still needed comes behind those that are not waiting for any.
func (s *Seats) Add(key, group, after Key) {
	t := s.task(key)
	if t.group != nil {
		return
	}
	t.group, t.after = s.join(group), after
	t.needed, t.ranked, t.score = true, false, Score(s.self, key[:])
	for p := range t.rivals {
		t.rivals[p] = Score(p, group[:])
	}
	s.order = append(s.order, t)
}

func (s *Seats) join(key Key) *group {
	g := s.groups[key]
	if g == nil {
		g = &group{key: key, own: Score(s.self, key[:])}
		s.groups[key] = g
	}
	g.tasks++
	return g
}

func (s *Seats) leave(g *group) {
	if g.tasks--; g.tasks == 0 {
		delete(s.groups, g.key)
	}
}

// task finds or makes the entry for key: claims are remembered even before this
// member wants the task itself.
func (s *Seats) task(key Key) *task {
	t := s.tasks[key]
	if t == nil {
		t = &task{key: key, lead: calm, rivals: map[Peer]uint64{}, claims: map[Peer]*claim{},
			await: map[Peer]bool{}, owed: map[Peer]debt{}, echo: map[Peer]*echo{}}
		s.tasks[key] = t
	}
	return t
}

// Remove forgets that this member wants the task.
func (s *Seats) Remove(key Key) {
	t := s.tasks[key]
	if t == nil || t.group == nil {
		return
	}
	s.drop(t)
	s.leave(t.group)
	t.group, t.needed = nil, false
	s.order = slices.DeleteFunc(s.order, func(o *task) bool { return o == t })
	s.tidy(t)
}

func (s *Seats) tidy(t *task) {
	if t.group == nil && len(t.claims) == 0 {
		delete(s.tasks, t.key)
	}
}

// SetNeeded says whether the task still has something to fetch that nobody holds.
func (s *Seats) SetNeeded(key Key, needed bool) {
	if t := s.tasks[key]; t != nil && t.group != nil {
		t.needed = needed
	}
}

// SetLead says how soon a reader needs something of the task (Readers.Lead);
// without soon none does.
func (s *Seats) SetLead(key Key, lead int, soon bool) {
	if t := s.tasks[key]; t != nil && t.group != nil {
		t.lead = calm
		if soon {
			t.lead = lead
		}
	}
}

// SetRival says whether p wants the task and could do it too. A member that does
// not, or no longer, has no claim either.
func (s *Seats) SetRival(key Key, p Peer, rival bool) {
	t := s.tasks[key]
	if t == nil {
		return
	}
	if _, was := t.rivals[p]; was == rival {
		return
	}
	if !rival {
		s.forget(t, p)
		return
	}
	t.rivals[p] = 0
	if t.group != nil {
		t.rivals[p] = Score(p, t.group.key[:])
		t.ranked = t.ranked && !t.ranks(s, p)
	}
}

// Gone forgets a member: its claims are free at once.
func (s *Seats) Gone(p Peer) {
	for _, t := range s.tasks {
		if _, rival := t.rivals[p]; rival && len(t.rivals) == 1 {
			t.alone = true
		}
		s.forget(t, p)
	}
}

func (s *Seats) forget(t *task, p Peer) {
	t.ranked = t.ranked && !slices.Contains(t.circle, p)
	delete(t.rivals, p)
	delete(t.await, p)
	delete(t.owed, p)
	delete(t.claims, p)
	delete(t.echo, p)
	s.tidy(t)
}

// Own returns the tasks that this member asks for or fetches, for a neighbour
// that has just come and must know them. Those that don't get on are left out
// (see Moving).
func (s *Seats) Own() map[Key]ClaimState {
	out := make(map[Key]ClaimState, len(s.mine))
	for _, t := range s.mine {
		if t.state == Asking || s.moves(s.seen, t) {
			out[t.key] = t.state
		}
	}
	return out
}

// Open counts this member's claims, asked for or fetching.
func (s *Seats) Open() int { return len(s.mine) }

// Claimants returns who claims the task now, this member not counted.
func (s *Seats) Claimants(key Key) []Peer {
	t := s.tasks[key]
	if t == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(t.claims))
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

// Describe returns what is known of a task, for a log or a failed test.
func (s *Seats) Describe(key Key) string {
	t := s.tasks[key]
	if t == nil || t.group == nil {
		return "unknown"
	}
	return fmt.Sprintf("state %s needed %v rank %d rivals %d awaited %d claims %d", t.state, t.needed, s.rank(t), len(t.rivals), len(t.await), len(t.claims))
}
