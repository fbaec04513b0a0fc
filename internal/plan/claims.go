package plan

import (
	"maps"
	"slices"
	"time"
)

// Heard takes in a claim announced by another member.
//
// For Asking it tells what to answer (deny) and whether this member must give
// up its own claim on the task (yield):
//  1. this member fetches it and moves: deny;
//  2. it fetches it without progress for Patience: yield;
//  3. both ask: the higher score wins;
//  4. a third member fetches it and moves, or asks and has the higher score:
//     deny, for the two may not know of each other;
//  5. otherwise: agree.
//
// Fetching and Released need no answer, but Fetching makes this member yield
// when it only asks, when it made no progress for Patience, or when both fetch,
// as after a partition, and the other got further. Progress only grows, so the two never both yield; progress that
// differs by a few pieces counts as the same, and the score decides, for news of
// it is old when it comes.
func (s *Seats) Heard(now time.Time, p Peer, key Key, state ClaimState, progress int64) (deny, yield bool) {
	s.wake(now)
	if s.tasks[key] == nil && (state == Released || len(s.tasks)-len(s.order) >= maxForeign) {
		return false, false
	}
	t := s.task(key)
	defer s.tidy(t)
	switch {
	case state == Released:
		delete(t.claims, p)
		delete(t.echo, p)
		return false, false
	case s.keeps(now, t, p, state, progress):
		return state == Asking, false
	case t.state != 0:
		s.drop(t)
		t.retry = now.Add(denied) // what it fetches has to stop first
		yield = true
	case state == Asking && s.claimed(now, t, p):
		return true, false
	}
	t.note(now, p, state, progress)
	return false, yield
}

// keeps tells whether this member's own claim on t outlives the one it heard of.
func (s *Seats) keeps(now time.Time, t *task, p Peer, state ClaimState, progress int64) bool {
	switch {
	case t.state == Fetching && !s.moves(now, t):
		return false
	case t.state == Fetching && state == Fetching:
		return t.echoes(p, progress) || s.further(t, p, progress)
	case t.state == Fetching:
		return true
	case t.state == Asking && state == Asking:
		return s.before(s.self, p, t.key)
	}
	return false
}

// moves tells whether this member's own fetching of t gets on.
func (s *Seats) moves(now time.Time, t *task) bool {
	return t.state == Fetching && now.Sub(t.moved) < s.opt.Patience
}

// Moving tells whether this member fetches the task and gets on. Only then may it
// announce that it is fetching: who hears it may yield, while a member that does
// not get on yields to everybody.
func (s *Seats) Moving(now time.Time, key Key) bool {
	t := s.tasks[key]
	return t != nil && s.moves(now, t)
}

// echoes tells whether a claim is the one that was taken over from p, and not a
// newer one. A member that was stopped tells the last of its progress when it
// goes on, then it hears who took over and yields. When it tells more and more,
// its fetching goes on, and who got further counts.
func (t *task) echoes(p Peer, progress int64) bool {
	e := t.echo[p]
	if e == nil {
		return false
	}
	if progress > e.progress {
		e.progress, e.grown = progress, e.grown+1
	}
	return e.grown < 2
}

// alike is how much progress may differ and still count as the same.
const alike = 8 << 20

func (s *Seats) further(t *task, p Peer, progress int64) bool {
	own, other := t.bytes/alike, progress/alike
	return own > other || (own == other && s.before(s.self, p, t.key))
}

// claimed tells whether the claim of a third member stands against p's.
func (s *Seats) claimed(now time.Time, t *task, p Peer) bool {
	for q, c := range t.claims {
		if q != p && !s.stale(now, c) && (c.state == Fetching || s.before(q, p, t.key)) {
			return true
		}
	}
	return false
}

// stale tells whether a claim may be taken over.
func (s *Seats) stale(now time.Time, c *claim) bool {
	return now.Sub(c.moved) >= s.lasts(c)
}

func (s *Seats) lasts(c *claim) time.Duration {
	if c.state == Asking {
		return s.askingLasts()
	}
	return s.opt.Patience
}

// askingLasts: who asks has its answers in AckWait, and goes on or gives up.
func (s *Seats) askingLasts() time.Duration { return min(5*s.opt.AckWait, s.opt.Patience) }

func (t *task) note(now time.Time, p Peer, state ClaimState, progress int64) {
	c := t.claims[p]
	if c == nil {
		c = &claim{moved: now}
		t.claims[p] = c
	}
	if progress > c.progress {
		t.brought(now)
	}
	if progress > c.progress || state != c.state {
		c.moved = now
	}
	c.state, c.progress = state, max(progress, c.progress)
}

// brought notes that fetching in t's group works.
func (t *task) brought(now time.Time) {
	if t.group != nil {
		t.group.gain = now
	}
}

// drop ends this member's claim.
func (s *Seats) drop(t *task) {
	t.state, t.seize = 0, false
	clear(t.await)
	clear(t.echo)
	s.mine = slices.DeleteFunc(s.mine, func(o *task) bool { return o == t })
}

// before tells whether a comes before b for the key.
func (s *Seats) before(a, b Peer, key Key) bool {
	return ahead(Score(a, key[:]), a, Score(b, key[:]), b)
}

func ahead(score uint64, p Peer, other uint64, q Peer) bool {
	return score > other || (score == other && p > q)
}

// ask begins to claim t. Every member asked owes an answer; one that comes late
// must not be taken for the answer to a later question.
//
// It is enough to ask those that have a seat in this member's view, and a few
// more: of two that both think they have one, the lower always asks the higher.
func (s *Seats) ask(now time.Time, t *task) Ask {
	a := Ask{Key: t.key, Takeover: len(t.claims) > 0}
	t.state, t.since, t.asked, t.moved, t.bytes, t.seize = Asking, now, now, now, 0, a.Takeover
	s.mine = append(s.mine, t)
	a.To = append(a.To, t.circle...)
	if s.rank(t) < 0 {
		a.To = slices.Collect(maps.Keys(t.rivals)) // others without a seat may ask as well
	}
	a.To = slices.AppendSeq(a.To, maps.Keys(t.claims))
	slices.Sort(a.To)
	a.To = slices.Compact(a.To)
	for _, p := range a.To {
		d := t.owed[p]
		if now.Sub(d.asked) >= s.opt.Patience {
			d.answers = 0 // they will not come any more
		}
		t.owed[p] = debt{d.answers + 1, now}
		if t.claims[p] == nil {
			t.await[p] = true // a claimant that is taken over from is told, but not waited for
		}
	}
	return a
}

// denied is how long a member leaves a task alone that another denied it.
const denied = 500 * time.Millisecond

// Acked takes in a rival's answer. A denial ends the asking.
func (s *Seats) Acked(now time.Time, p Peer, key Key, deny bool) {
	s.wake(now)
	t := s.tasks[key]
	if t == nil {
		return
	}
	d := t.owed[p]
	d.answers = max(0, d.answers-1)
	if t.owed[p] = d; d.answers == 0 {
		delete(t.owed, p)
	}
	switch {
	case t.state != Asking:
	case deny:
		s.drop(t)
		t.retry = now.Add(denied)
	case d.answers == 0:
		delete(t.await, p)
	}
}

// Ready returns the asked-for tasks that may start now: every rival agreed, or
// was silent for AckWait. They count as Fetching from here on. Consent that is
// old, because this member was stopped, is worth nothing: it has to ask again.
func (s *Seats) Ready(now time.Time) []Key {
	s.wake(now)
	var out []Key
	for _, t := range slices.Clone(s.mine) {
		switch {
		case t.state != Asking:
			continue
		case now.Sub(t.asked) >= s.askingLasts()-s.opt.AckWait:
			s.drop(t)
			continue
		case len(t.await) > 0 && now.Sub(t.since) < s.opt.AckWait:
			continue
		}
		if t.seize {
			t.seizeFrom()
		}
		t.state, t.since, t.moved, t.seize = Fetching, now, now, false
		out = append(out, t.key)
	}
	return out
}

func (t *task) seizeFrom() {
	for p, c := range t.claims {
		if c.state == Fetching {
			t.echo[p] = &echo{progress: c.progress}
		}
	}
	clear(t.claims)
}

// Moved notes progress of this member's own fetching, in bytes since it began.
func (s *Seats) Moved(now time.Time, key Key, progress int64) {
	if t := s.tasks[key]; t != nil && progress > t.bytes {
		t.moved, t.bytes = now, progress
		t.brought(now)
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

// wake notices that this member itself was stopped for a while: nothing was heard
// in that time, so the silence of others means nothing.
func (s *Seats) wake(now time.Time) {
	gap := now.Sub(s.seen)
	if !s.seen.IsZero() && gap >= s.pause() {
		for _, g := range s.groups {
			if !g.gain.IsZero() {
				g.gain = g.gain.Add(gap)
			}
		}
		for _, t := range s.tasks {
			if t.state == Asking {
				t.since = now
			}
			for _, c := range t.claims {
				c.moved = c.moved.Add(gap)
			}
		}
	}
	s.seen = now
}

// pause is how long this planner is never left alone by a process that runs:
// every second, and more often while it asks (see Wake).
func (s *Seats) pause() time.Duration {
	for _, t := range s.mine {
		if t.state == Asking {
			return s.opt.AckWait / 2
		}
	}
	return max(2*s.opt.AckWait, 2*time.Second)
}
