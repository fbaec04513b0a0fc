package plan

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func (w *world) fault(format string, args ...any) {
	w.log(format, args...)
	w.faults = append(w.faults, fmt.Sprintf(format, args...))
}

// close ends a link at both ends; a stopped member notices when it goes on.
func (w *world) close(l *wire, again time.Duration) {
	if !l.up {
		return
	}
	l.up, l.since, l.held = false, w.now, nil
	a, b := l.ends[0], l.ends[1]
	gone := func(x, y *actor) {
		x.do(func() {
			x.seats.Gone(y.name)
			delete(x.seen, y)
		})
	}
	gone(a, b)
	gone(b, a)
	w.connect(a, b, again)
}

// kill ends a member; its peers notice at once or when it has been silent.
func (w *world) kill(a *actor, noticed time.Duration) {
	w.fault("%s dies, noticed after %v", a.name, noticed)
	a.alive = false
	for _, t := range a.works {
		t.over = true
	}
	for _, b := range a.neighbours() {
		w.at(noticed, func() { w.close(a.wires[b], 0) })
	}
}

// pause stops a member (SIGSTOP). Its neighbours close their links when it has
// been silent for too long.
func (w *world) pause(a *actor, d time.Duration) {
	if !a.alive || w.now.Before(a.paused) {
		return
	}
	w.fault("%s stops for %v", a.name, d)
	a.paused = w.now.Add(d)
	if d > deafAfter {
		for _, b := range a.neighbours() {
			w.at(deafAfter, func() { w.close(a.wires[b], d-deafAfter+time.Second) })
		}
	}
	w.at(d, func() {
		w.log("%s goes on", a.name)
		a.woke = w.now
		inbox := a.inbox
		a.inbox = nil
		for _, f := range inbox {
			a.do(f)
		}
		a.do(func() {})
	})
}

// partition cuts all links between two halves for a while.
func (w *world) partition(d time.Duration) {
	w.fault("partition for %v", d)
	side := map[*actor]bool{}
	for _, a := range w.members {
		side[a] = w.rand.IntN(2) == 0
	}
	for _, a := range w.members {
		for _, b := range a.neighbours() {
			if l := a.wires[b]; side[a] && !side[b] && !l.cut {
				w.sever(l, d)
			}
		}
	}
}

// sever has a link let nothing through for a while, unnoticed until it has been
// silent for too long.
func (w *world) sever(l *wire, d time.Duration) {
	l.cut = true
	if d > deafAfter {
		w.at(deafAfter, func() { w.close(l, d-deafAfter+w.random(time.Second)) })
	}
	w.at(d, func() {
		l.cut, l.whole = false, w.now
		held := l.held
		l.held = nil
		for _, f := range held {
			f()
		}
	})
}

// check looks whether another member fetches what a has just made progress with.
// Only a link between the two that was lost explains that, and only until some
// seconds after they hear each other again; and not when a third one with a seat
// hears both. A member that is stopped for less than it takes to be thought dead
// explains nothing.
func (w *world) check(a *actor, k Key) {
	const settle = 5 * time.Second
	for _, b := range w.members {
		t := b.works[k]
		if b == a || !b.alive || t == nil || w.now.Before(b.paused) || w.now.Sub(t.moved) > time.Second {
			continue
		}
		begin := t.began
		if a.works[k].began.Before(begin) {
			begin = a.works[k].began
		}
		if hears := a.wires[b].hears(w.now); hears > settle || hears > w.now.Sub(begin)+time.Second {
			panic(fmt.Sprintf("%s and %s both fetch %x, with a link between them for %v", a.name, b.name, k[:1], hears))
		}
		w.thirds(a, b, k)
	}
}

// hears returns for how long messages have been getting through.
func (l *wire) hears(now time.Time) time.Duration {
	if l == nil || !l.up || l.cut {
		return 0
	}
	return min(now.Sub(l.since), now.Sub(l.whole))
}

// thirds complains when a and b, of whom the later one must have asked c, fetch
// the same although c heard both all the time.
func (w *world) thirds(a, b *actor, k Key) {
	if b.works[k].began.Before(a.works[k].began) {
		a, b = b, a
	}
	if b.works[k].began.Sub(a.works[k].began) < 2*time.Second {
		return // they asked at the same time
	}
	for _, p := range b.seats.Seated(k) {
		c := w.named(p)
		if c == a || c == b || !c.alive || w.now.Sub(c.woke) < 30*time.Second || w.now.Before(c.paused) {
			continue
		}
		long := w.now.Sub(a.works[k].began) + time.Second
		if a.wires[c].hears(w.now) > long && b.wires[c].hears(w.now) > long && w.now.Sub(a.woke) > long && w.now.Sub(b.woke) > long {
			panic(fmt.Sprintf("%s and %s both fetch %x, and %s heard both", a.name, b.name, k[:1], c.name))
		}
	}
}

// yielded looks whether anybody is left who fetches what a has just yielded.
func (w *world) yielded(a, to *actor, k Key) {
	for _, b := range w.members {
		if t := b.works[k]; b.held[k] || (b != a && t != nil && b.alive) {
			return
		}
	}
	if !to.alive || w.now.Before(to.paused) || w.now.Sub(to.failed) < time.Second {
		return
	}
	panic(fmt.Sprintf("%s yielded %x to %s, and now nobody fetches it", a.name, k[:1], to.name))
}

// run lets things happen until all live members hold everything.
func (w *world) run(limit time.Duration) {
	end := w.now.Add(limit)
	for {
		if w.done() {
			return
		}
		if len(w.events) == 0 || w.now.After(end) {
			panic(w.missing())
		}
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
	}
}

func (w *world) done() bool {
	if w.now.Sub(epoch) < 21*time.Second {
		return false // not all have joined
	}
	for _, a := range w.members {
		if w.now.Before(a.paused) || (a.alive && len(a.held) < len(w.tasks)) {
			return false
		}
	}
	return true
}

func (w *world) missing() string {
	var b strings.Builder
	fmt.Fprintf(&b, "not done after %v\n", w.now.Sub(epoch))
	for _, a := range w.members {
		fmt.Fprintf(&b, "%s alive %v holds %d of %d\n", a.name, a.alive, len(a.held), len(w.tasks))
		for _, k := range w.tasks {
			if !a.held[k] && a.alive {
				fmt.Fprintf(&b, "  %x: %s, claimed by %v\n", k[:1], a.seats.Describe(k), a.seats.Claimants(k))
			}
		}
	}
	return b.String()
}

// newWorld makes a fleet whose members start within a short time.
func newWorld(seed uint64, calm bool) *world {
	r := rand.New(rand.NewPCG(seed, 11))
	w := &world{rand: r, now: epoch, calm: calm, fetches: map[Key]int{}, opt: SeatOptions{Fetchers: 1 + r.IntN(8)}}
	for i := range 1 + r.IntN(12) {
		w.tasks = append(w.tasks, Key{byte(i + 1)})
	}
	for i := range 2 + r.IntN(14) {
		a := w.actor(i)
		w.members = append(w.members, a)
		late := 300 * time.Millisecond
		if r.IntN(8) == 0 {
			late = 20 * time.Second
		}
		w.at(w.random(late), func() { w.join(a) })
	}
	return w
}

// trouble plans faults for the first minute.
func (w *world) trouble() {
	for range w.rand.IntN(5) {
		a := w.members[w.rand.IntN(len(w.members))]
		b := w.members[w.rand.IntN(len(w.members))]
		at, d := w.random(40*time.Second), w.random(30*time.Second)
		switch w.rand.IntN(5) {
		case 0:
			noticed := w.random(20 * time.Millisecond)
			if w.rand.IntN(2) == 0 {
				noticed = deafAfter
			}
			w.at(at, func() {
				if w.spare() && a.alive {
					w.kill(a, noticed)
				}
			})
		case 1:
			w.at(at, func() { w.pause(a, d) })
		case 2:
			w.at(at, func() { w.partition(d) })
		case 3:
			w.at(at, func() {
				if l := a.wires[b]; l != nil && !l.cut {
					w.fault("%s and %s don't hear each other for %v", a.name, b.name, d)
					w.sever(l, d)
				}
			})
		case 4:
			a.deaf = a != w.members[0]
		}
	}
}

// spare tells whether a member more may die: one that reaches upstream must stay.
func (w *world) spare() bool {
	good := 0
	for _, a := range w.members {
		if a.alive && !a.deaf {
			good++
		}
	}
	return good > 2
}

var (
	seatSeed   = flag.Uint64("seats.seed", 0, "run this one random world and print what happens")
	seatWorlds = flag.Uint64("seats.worlds", 100, "how many random worlds to run")
)

// oddWorlds are those that found a defect: a member that goes on with consent
// from before it was stopped (5772), one that fetches although it does not get on
// and still makes others yield (61, 5303), one that asks nobody for a takeover
// (1577), one that fetches alone because it was cut off (5303).
var oddWorlds = []uint64{61, 1577, 5303, 5772}

func runWorld(t *testing.T, seed uint64, calm bool) (w *world) {
	t.Helper()
	w = newWorld(seed, calm)
	defer func() {
		if p := recover(); p != nil {
			if *seatSeed != 0 {
				t.Log(strings.Join(w.trace, "\n"))
			}
			t.Fatalf("world %d, %d members, %d tasks, %d fetchers, faults %q:\n%v", seed, len(w.members), len(w.tasks), w.opt.Fetchers, w.faults, p)
		}
	}()
	if !calm {
		w.trouble()
	}
	w.run(10 * time.Minute)
	return w
}

// Without faults every task is fetched once, whatever the delays.
func TestSeatsFetchEachTaskOnce(t *testing.T) {
	for seed := range *seatWorlds {
		w := runWorld(t, seed+1, true)
		for k, n := range w.fetches {
			if n != 1 {
				t.Errorf("world %d: task %x was fetched %d times", seed+1, k[:1], n)
			}
		}
		if len(w.fetches) != len(w.tasks) {
			t.Errorf("world %d: %d of %d tasks fetched", seed+1, len(w.fetches), len(w.tasks))
		}
	}
}

// With members that die, stop and lose their links, no two that hear each other
// go on with the same task, and everything is fetched in the end.
func TestSeatsSurviveFaults(t *testing.T) {
	if *seatSeed != 0 {
		runWorld(t, *seatSeed, false)
		return
	}
	for _, seed := range oddWorlds {
		runWorld(t, seed, false)
	}
	for seed := range *seatWorlds {
		runWorld(t, seed+1, false)
	}
}
