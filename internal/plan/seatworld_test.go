package plan

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// world is members that pass messages as those of pkg/swarm do: links keep their
// order, a link that is silent for too long is closed and opened again later, and
// every member runs its own Seats. Time is virtual and jumps from event to event.
type world struct {
	rand    *rand.Rand
	now     time.Time
	events  events
	seq     int
	members []*actor
	tasks   []Key
	opt     SeatOptions
	calm    bool // no fault at all
	faults  []string
	trace   []string
	fetches map[Key]int
}

const (
	deafAfter  = 12 * time.Second
	tellEvery  = time.Second
	taskBytes  = 64 << 20
	worstDelay = 200 * time.Millisecond
)

type event struct {
	at  time.Time
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || (e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func (w *world) at(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.events, event{w.now.Add(d), w.seq, do})
}

func (w *world) random(most time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(most) + 1))
}

func (w *world) log(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%7.3f ", w.now.Sub(epoch).Seconds())+fmt.Sprintf(format, args...))
}

var epoch = time.Unix(1_700_000_000, 0)

// wire is one link; both ends see it open and close at about the same time.
type wire struct {
	ends  [2]*actor
	up    bool
	cut   bool         // nothing gets through, nobody knows
	since time.Time    // of up or of its end
	whole time.Time    // when a cut ended
	last  [2]time.Time // arrival of the last message to each end
	held  []func()     // what was sent since it was cut
}

type actor struct {
	w     *world
	name  Peer
	seats *Seats
	wires map[*actor]*wire
	alive bool
	deaf  bool // its upstream never answers

	notices time.Duration // how long it takes it to notice a stalled stream
	failed  time.Time
	slots   int

	paused time.Time // until then
	woke   time.Time
	inbox  []func()
	timer  int // of the step that is due

	held  map[Key]bool
	seen  map[*actor]map[Key]bool // what the neighbours hold
	works map[Key]*work
}

type work struct {
	began    time.Time
	moved    time.Time
	told     time.Time
	progress int64
	stuck    bool
	over     bool
}

func (w *world) actor(i int) *actor {
	a := &actor{w: w, name: Peer(fmt.Sprintf("m%02d", i)), wires: map[*actor]*wire{}, slots: 1 + w.rand.IntN(3), notices: 16 * time.Second,
		held: map[Key]bool{}, seen: map[*actor]map[Key]bool{}, works: map[Key]*work{}}
	if w.rand.IntN(3) == 0 {
		a.notices = time.Minute
	}
	a.seats = NewSeats(a.name, w.opt)
	return a
}

// join starts a: it meets everybody, then goes to work.
func (w *world) join(a *actor) {
	a.alive = true
	w.log("%s joins", a.name)
	for _, b := range w.members {
		if b != a && b.alive {
			w.connect(a, b, w.random(200*time.Millisecond))
		}
	}
	w.at(500*time.Millisecond, func() {
		a.do(func() {
			for _, k := range w.tasks {
				a.seats.Add(k, Key{'g'}, Key{})
				for b, l := range a.wires {
					a.seats.SetRival(k, b.name, l.up)
				}
			}
		})
	})
}

func (w *world) connect(a, b *actor, after time.Duration) {
	w.at(after, func() {
		l := a.wires[b]
		if !a.alive || !b.alive || (l != nil && l.up) {
			return
		}
		if l == nil {
			l = &wire{ends: [2]*actor{a, b}}
			a.wires[b], b.wires[a] = l, l
		}
		if l.cut || w.now.Before(a.paused) || w.now.Before(b.paused) {
			w.connect(a, b, time.Second)
			return
		}
		l.up, l.since, l.held = true, w.now, nil
		a.do(func() { a.greet(b) })
		b.do(func() { b.greet(a) })
	})
}

// greet tells a new neighbour what this member wants, holds and claims.
func (a *actor) greet(b *actor) {
	have := maps.Clone(a.held)
	a.send(b, func() {
		b.seen[a] = have
		for _, k := range slices.SortedFunc(maps.Keys(have), compareKeys) {
			b.copy(a, k)
		}
		for _, k := range b.w.tasks {
			b.seats.SetRival(k, a.name, true)
		}
	})
	for k, state := range a.seats.Own() {
		a.send(b, a.claim(b, k, state))
	}
}

// claim is the message that announces a's claim to b.
func (a *actor) claim(b *actor, k Key, state ClaimState) func() {
	var progress int64
	if t := a.works[k]; t != nil {
		progress = t.progress
	}
	return func() { b.heard(a, k, state, progress) }
}

// send delivers in order, later.
func (a *actor) send(b *actor, message func()) {
	l := a.wires[b]
	if l == nil || !l.up {
		return
	}
	born := l.since
	deliver := func() {
		if l.up && l.since.Equal(born) && b.alive {
			b.do(message)
		}
	}
	if l.cut {
		l.held = append(l.held, deliver)
		return
	}
	to := 0
	if l.ends[1] == b {
		to = 1
	}
	at := a.w.now.Add(a.w.random(worstDelay))
	if at.Before(l.last[to]) {
		at = l.last[to]
	}
	l.last[to] = at
	a.w.at(at.Sub(a.w.now), func() {
		if l.cut {
			l.held = append(l.held, deliver)
			return
		}
		deliver()
	})
}

// do runs an event in a's loop, after its pause if it is stopped.
func (a *actor) do(f func()) {
	switch {
	case !a.alive:
	case a.w.now.Before(a.paused):
		a.inbox = append(a.inbox, f)
	default:
		f()
		a.step()
	}
}

// step is what the owner loop does after each event.
func (a *actor) step() {
	now := a.w.now
	for _, k := range a.w.tasks {
		a.seats.SetNeeded(k, !a.held[k] && !a.known(k))
	}
	for _, ask := range a.seats.Next(now, a.slots-a.seats.Open()) {
		a.w.log("%s asks for %x of %v", a.name, ask.Key[:1], ask.To)
		for _, p := range ask.To {
			if b := a.w.named(p); b != nil {
				a.send(b, a.claim(b, ask.Key, Asking))
			}
		}
	}
	for _, k := range a.seats.Ready(now) {
		a.start(k)
	}
	for _, k := range slices.SortedFunc(maps.Keys(a.works), compareKeys) {
		if t := a.works[k]; now.Sub(t.told) >= tellEvery && a.seats.Moving(now, k) {
			a.announce(k, Fetching)
		}
	}
	a.sleep()
}

func (a *actor) sleep() {
	a.timer++
	mine := a.timer
	nap := time.Second
	if at := a.seats.Wake(a.w.now); !at.IsZero() {
		nap = min(nap, max(at.Sub(a.w.now), time.Millisecond))
	}
	a.w.at(nap, func() {
		if a.timer == mine {
			a.do(func() {})
		}
	})
}

func (a *actor) known(k Key) bool {
	for b, l := range a.wires {
		if l.up && a.seen[b][k] {
			return true
		}
	}
	return false
}

func (w *world) named(p Peer) *actor {
	for _, a := range w.members {
		if a.name == p {
			return a
		}
	}
	return nil
}

func compareKeys(x, y Key) int { return slices.Compare(x[:], y[:]) }

// announce tells all neighbours about a claim.
func (a *actor) announce(k Key, state ClaimState) {
	if t := a.works[k]; t != nil {
		t.told = a.w.now
	}
	for _, b := range a.neighbours() {
		a.send(b, a.claim(b, k, state))
	}
}

func (a *actor) neighbours() []*actor {
	return slices.SortedFunc(maps.Keys(a.wires), func(x, y *actor) int {
		return slices.Compare([]byte(x.name), []byte(y.name))
	})
}

func (a *actor) heard(from *actor, k Key, state ClaimState, progress int64) {
	deny, yield := a.seats.Heard(a.w.now, from.name, k, state, progress)
	if yield {
		a.w.log("%s yields %x to %s (%s)", a.name, k[:1], from.name, state)
		both := state == Fetching && a.works[k] != nil
		a.abandon(k)
		a.announce(k, Released)
		if both {
			a.w.yielded(a, from, k)
		}
	}
	if state == Asking {
		a.send(from, func() { from.acked(a, k, deny) })
	}
}

func (a *actor) acked(from *actor, k Key, deny bool) {
	a.seats.Acked(a.w.now, from.name, k, deny)
	if deny && a.works[k] == nil {
		a.announce(k, Released)
	}
}

// abandon ends the work on k; its end is reported later, as by a goroutine.
func (a *actor) abandon(k Key) {
	t := a.works[k]
	if t == nil || t.over {
		return
	}
	t.over = true
	if t.stuck {
		a.failed = a.w.now
	}
	delete(a.works, k)
	a.w.at(a.w.random(5*time.Millisecond), func() {
		a.do(func() {
			a.seats.Finished(a.w.now, k, true)
			a.announce(k, Released)
		})
	})
}

func (a *actor) start(k Key) {
	if a.held[k] || a.known(k) {
		a.seats.Finished(a.w.now, k, false)
		a.announce(k, Released)
		return
	}
	a.w.log("%s fetches %x", a.name, k[:1])
	a.w.fetches[k]++
	t := &work{began: a.w.now, moved: a.w.now, stuck: a.deaf || (!a.w.calm && a.w.rand.IntN(20) == 0)}
	a.works[k] = t
	a.announce(k, Fetching)
	rate := taskBytes / 5 / (1 + a.w.rand.Int64N(20))
	a.w.at(200*time.Millisecond, func() { a.work(k, t, rate) })
}

// work makes progress until the task is done.
func (a *actor) work(k Key, t *work, rate int64) {
	a.do(func() {
		now := a.w.now
		switch {
		case t.over:
			return
		case t.stuck && now.Sub(t.began) > a.notices:
			a.w.log("%s fails at %x", a.name, k[:1])
			a.abandon(k)
			return
		case !t.stuck:
			t.progress += rate
			t.moved = now
			a.seats.Moved(now, k, t.progress)
			a.w.check(a, k)
		}
		if t.progress < taskBytes {
			a.w.at(200*time.Millisecond, func() { a.work(k, t, rate) })
			return
		}
		t.over = true
		delete(a.works, k)
		a.store(k)
		a.seats.Finished(now, k, false)
		a.announce(k, Released)
	})
}

// store has the task's bytes here; the neighbours hear of it and copy them.
func (a *actor) store(k Key) {
	if a.held[k] {
		return
	}
	a.held[k] = true
	a.w.log("%s holds %x", a.name, k[:1])
	for _, b := range a.neighbours() {
		a.send(b, func() {
			if b.seen[a] == nil {
				b.seen[a] = map[Key]bool{}
			}
			b.seen[a][k] = true
			b.copy(a, k)
		})
	}
}

// copy takes what a neighbour holds, as the piece streams do.
func (b *actor) copy(a *actor, k Key) {
	b.w.at(b.w.random(2*time.Second), func() {
		switch l := b.wires[a]; {
		case b.held[k] || !a.alive || !l.up:
		case l.cut || b.w.now.Before(a.paused):
			b.copy(a, k)
		default:
			b.do(func() { b.store(k) })
		}
	})
}
