package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"p2pagent/pkg/pieces"
)

// machine is one member of the simulated fleet. It uses Swap, Seats and Pace the
// way pkg/swarm does, for one blob.
type machine struct {
	lab      *lab
	name     Peer
	link     ends
	joins    time.Duration // when it starts
	upstream bool          // may fetch from the Hub

	swap  *Swap
	seats *Seats
	pace  *Pace
	held  *pieces.Set
	near  []*machine // neighbours
	tasks map[Key]*extent

	out      []Piece // to be offered
	asked    map[Request]*flow
	waiting  []waiter // for an upload slot
	serving  int
	gave     map[int]time.Time
	due      bool
	stepped  time.Time
	paced    time.Time
	got      float64 // from the Hub
	gotAt    [4]float64
	finished time.Time
	alive    bool
}

// extent is a task as a machine sees it.
type extent struct {
	key         Key
	first, last int
	dirty       bool
	flow        *flow
	need        []int
	into        float64 // bytes of the first needed piece
	progress    float64
	told        time.Time
}

// lab is a fleet with its Hub.
type lab struct {
	*network
	hub      ends
	blob     pieces.Blob
	machines []*machine
	byName   map[Peer]*machine
	extents  []extent
	group    Key
	rand     *rand.Rand
	hubBytes float64
	hubDone  time.Time
	left     int
	calls    int // of Next
	busy     int
}

var slots = 8 // pieces that a machine sends at once

func newLab(s scenario) *lab {
	const mbit = 1e6 / 8
	l := &lab{
		network: newNetwork(s.step), rand: rand.New(rand.NewPCG(s.seed, 7)),
		byName: map[Peer]*machine{}, group: Key{'g'},
		hub: ends{up: s.hub * mbit}, blob: pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1}), Size: int64(s.pieces) * 4 << 20},
	}
	for _, e := range pieces.Extents([]pieces.Blob{l.blob}, int64(s.extent)*4<<20) {
		first := e.Spans[0].First
		l.extents = append(l.extents, extent{key: Key(e.Key()), first: first, last: first + e.Spans[0].Count})
	}
	for i := range s.members {
		m := &machine{
			lab: l, name: Peer(fmt.Sprintf("member-%04d-%08x", i, l.rand.Uint32())), link: ends{up: s.node * mbit, down: s.node * mbit},
			upstream: true, held: pieces.NewSet(s.pieces), tasks: map[Key]*extent{}, asked: map[Request]*flow{}, gave: map[int]time.Time{},
		}
		m.swap = NewSwap(m.name, SwapOptions{Budget: simBudget << 20, Seed: Score(m.name, []byte("order"))})
		m.seats = NewSeats(m.name, SeatOptions{Fetchers: s.fetchers})
		m.pace = NewPace(8)
		l.machines = append(l.machines, m)
		l.byName[m.name] = m
	}
	if s.shape != nil {
		s.shape(l)
	}
	l.connect(s)
	l.left = len(l.machines)
	return l
}

// connect chooses neighbours: all in a small fleet; in a large one 48 each, the
// pairs with the highest score first, and the seats know each other.
func (l *lab) connect(s scenario) {
	const most = 48
	near := map[[2]*machine]bool{}
	pair := func(a, b *machine) {
		if a != b && !near[[2]*machine{a, b}] && len(a.near) < most && len(b.near) < most {
			near[[2]*machine{a, b}], near[[2]*machine{b, a}] = true, true
			a.near, b.near = append(a.near, b), append(b.near, a)
		}
	}
	for i, a := range l.seated(s) {
		for _, b := range l.seated(s)[:i] {
			pair(a, b)
		}
	}
	type couple struct {
		a, b  *machine
		score uint64
	}
	var all []couple
	for i, a := range l.machines {
		for _, b := range l.machines[:i] {
			all = append(all, couple{a, b, l.rand.Uint64()})
		}
	}
	slices.SortFunc(all, func(x, y couple) int { return cmp.Compare(y.score, x.score) })
	for _, c := range all {
		pair(c.a, c.b)
	}
}

// seated returns the members that come first for the group, twice as many as
// there are seats.
func (l *lab) seated(s scenario) []*machine {
	var all []*machine
	for _, m := range l.machines {
		if m.upstream {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *machine) int {
		if Score(a.name, l.group[:]) > Score(b.name, l.group[:]) {
			return -1
		}
		return 1
	})
	return all[:min(len(all), 16)]
}

// join makes m part of the fleet: neighbours hear what it wants and tell what
// they hold.
func (m *machine) join(seated []*machine) {
	m.alive = true
	m.swap.Want(m.lab.now, m.lab.blob, m.held)
	for _, o := range m.near {
		if o.alive {
			m.meet(o)
			o.meet(m)
		}
	}
	for i := range m.lab.extents {
		t := m.lab.extents[i]
		t.dirty = true
		m.tasks[t.key] = &t
		if m.upstream {
			m.seats.Add(t.key, m.lab.group, Key{})
		}
	}
	for _, o := range m.lab.machines {
		if o != m && o.alive && slices.Contains(seated, m) {
			o.compete(m)
		}
		if o != m && o.alive && slices.Contains(seated, o) {
			m.compete(o)
		}
	}
	m.due = true
}

func (m *machine) compete(o *machine) {
	for i := range m.lab.extents {
		if o.upstream && o.finished.IsZero() {
			m.seats.SetRival(m.lab.extents[i].key, o.name, true)
		}
	}
}

// meet tells m all about its neighbour o.
func (m *machine) meet(o *machine) {
	m.swap.Up(o.name)
	m.swap.Wants(o.name, m.lab.blob, o.finished.IsZero())
	m.compete(o)
	for i := range o.held.All() {
		m.swap.Offer(m.lab.now, o.name, Piece{m.lab.blob, i})
	}
	for key, state := range o.seats.Own() {
		m.seats.Heard(m.lab.now, o.name, key, state, int64(o.tasks[key].progress))
	}
	m.due = true
}

// send has f run at the other machine, and a step follow there.
func (m *machine) send(to *machine, f func()) {
	m.lab.post(func() {
		if to.alive {
			f()
			to.due = true
		}
	})
}

// step is what the owner loop of a node does.
func (m *machine) step() {
	m.due, m.stepped = false, m.lab.now
	if !m.finished.IsZero() {
		m.flush()
		return
	}
	if m.upstream {
		m.refresh()
		m.claim()
	}
	m.request()
	m.flush()
}

func (m *machine) refresh() {
	for i := range m.lab.extents {
		t := m.tasks[m.lab.extents[i].key]
		if t.dirty {
			t.dirty = false
			m.seats.SetNeeded(t.key, len(m.needs(t)) > 0)
		}
	}
}

func (m *machine) needs(t *extent) (need []int) {
	for i := t.first; i < t.last; i++ {
		if !m.held.Has(i) && !m.swap.HeldBySomeone(Piece{m.lab.blob, i}) {
			need = append(need, i)
		}
	}
	return need
}

func (m *machine) claim() {
	now := m.lab.now
	for _, a := range m.seats.Next(now, m.pace.Allowed()-m.seats.Open()) {
		for _, p := range a.To {
			o := m.lab.byName[p]
			m.send(o, func() { o.heard(m, a.Key, Asking, 0) })
		}
	}
	for _, key := range m.seats.Ready(now) {
		m.fetch(m.tasks[key])
	}
	for i := range m.lab.extents {
		t := m.tasks[m.lab.extents[i].key]
		if t.flow != nil && now.Sub(t.told) >= time.Second {
			m.announce(t, Fetching)
		}
	}
	if now.Sub(m.paced) >= 250*time.Millisecond {
		m.observe()
	}
}

func (m *machine) announce(t *extent, state ClaimState) {
	t.told = m.lab.now
	progress := int64(t.progress)
	for _, o := range m.near {
		if o.upstream && o.alive {
			m.send(o, func() { o.heard(m, t.key, state, progress) })
		}
	}
}

func (m *machine) heard(from *machine, key Key, state ClaimState, progress int64) {
	deny, yield := m.seats.Heard(m.lab.now, from.name, key, state, progress)
	if yield {
		m.drop(m.tasks[key])
		m.announce(m.tasks[key], Released)
	}
	if state == Asking {
		m.send(from, func() {
			from.seats.Acked(m.lab.now, m.name, key, deny)
			if deny && from.tasks[key].flow == nil {
				from.announce(from.tasks[key], Released)
			}
		})
	}
}

func (m *machine) drop(t *extent) {
	if t.flow != nil {
		m.lab.stop(t.flow)
		t.flow = nil
		m.seats.Finished(m.lab.now, t.key, true)
	}
}

// observe gives Pace what the claims tell; the simulation knows it exactly.
func (m *machine) observe() {
	m.paced = m.lab.now
	fleet := Fleet{Fetchers: m.seats.Fetchers(), Open: m.seats.OpenAll()}
	for _, o := range append([]*machine{m}, m.near...) {
		fleet.Rate += o.rate()
	}
	m.pace.Observe(m.lab.now, fleet, 4<<20, m.seats.Open())
}

func (m *machine) rate() float64 {
	sum := 0.0
	for i, b := range m.gotAt {
		if int64(i) != m.lab.now.Unix()%4 {
			sum += b
		}
	}
	return sum / 3
}

// fetch gets the needed pieces of an extent from the Hub, one after another.
func (m *machine) fetch(t *extent) {
	t.need = m.needs(t)
	if len(t.need) == 0 {
		m.seats.Finished(m.lab.now, t.key, false)
		m.seats.SetNeeded(t.key, false)
		m.announce(t, Released)
		return
	}
	t.progress, t.into = 0, 0
	var size float64
	for _, i := range t.need {
		size += float64(Piece{m.lab.blob, i}.Size())
	}
	t.flow = &flow{from: &m.lab.hub, to: &m.link, left: size}
	t.flow.progress = func(bytes float64) { m.arriving(t, bytes) }
	t.flow.done = func() {
		t.flow, t.dirty = nil, true
		m.seats.Finished(m.lab.now, t.key, false)
		m.announce(t, Released)
		m.due = true
	}
	m.announce(t, Fetching)
	m.lab.start(t.flow)
}

func (m *machine) arriving(t *extent, bytes float64) {
	m.lab.hubBytes += bytes
	m.lab.hubDone = m.lab.now
	m.got += bytes
	if sec := m.lab.now.Unix(); m.lab.now.Add(-m.lab.step).Unix() != sec {
		m.gotAt[sec%4] = 0
	}
	m.gotAt[m.lab.now.Unix()%4] += bytes
	t.progress += bytes
	t.into += bytes
	m.seats.Moved(m.lab.now, t.key, int64(t.progress))
	for len(t.need) > 0 && t.into+1 >= float64(Piece{m.lab.blob, t.need[0]}.Size()) {
		t.into -= float64(Piece{m.lab.blob, t.need[0]}.Size())
		m.store(t.need[0])
		t.need = t.need[1:]
	}
}

// store takes a piece in, wherever it came from.
func (m *machine) store(i int) {
	m.due = true
	piece := Piece{m.lab.blob, i}
	for _, p := range m.swap.Held(piece) {
		m.cancel(Request{Peer: p, Piece: piece})
	}
	if !m.held.Add(i) {
		return
	}
	m.touch(i)
	m.out = append(m.out, piece)
	if m.held.Full() {
		m.finish()
	}
}

func (m *machine) touch(i int) {
	for j := range m.lab.extents {
		if e := &m.lab.extents[j]; i >= e.first && i < e.last {
			m.tasks[e.key].dirty = true
		}
	}
}

// finish leaves the game, but for serving.
func (m *machine) finish() {
	m.finished = m.lab.now
	m.lab.left--
	for i := range m.lab.extents {
		m.seats.Remove(m.lab.extents[i].key)
	}
	m.swap.Drop(m.lab.blob)
	for _, o := range m.near {
		m.send(o, func() {
			o.swap.Wants(m.name, m.lab.blob, false)
			for i := range m.lab.extents {
				o.seats.SetRival(m.lab.extents[i].key, m.name, false)
			}
		})
	}
}

// flush offers what was stored in this step.
func (m *machine) flush() {
	if len(m.out) == 0 {
		return
	}
	out := m.out
	m.out = nil
	for _, o := range m.near {
		if !o.alive || !o.finished.IsZero() {
			continue
		}
		m.send(o, func() {
			for _, p := range out {
				o.swap.Offer(m.lab.now, m.name, p)
				o.touch(p.Index)
			}
		})
	}
}

func (m *machine) request() {
	m.lab.calls++
	for _, r := range m.swap.Next(m.lab.now) {
		o := m.lab.byName[r.Peer]
		r.Again = false
		m.asked[r] = nil
		asked := m.lab.now
		m.send(o, func() { o.serve(m, r, asked) })
	}
}

// waiter is a request that waits for an upload slot.
type waiter struct {
	to    *machine
	r     Request
	asked time.Time
	since time.Time
}

// serve sends a piece when a slot is free, at once or within a second.
func (m *machine) serve(to *machine, r Request, asked time.Time) {
	if _, wanted := to.asked[r]; !wanted {
		return // cancelled on the way
	}
	if thrifty {
		over := m.link.sent+float64(m.serving)*4*1024*1024 > 1.1*float64(m.held.Count())*4*1024*1024+8*4*1024*1024
		if over && m.lab.now.Sub(m.gave[r.Piece.Index]) < 3*time.Second {
			delete(to.asked, r)
			m.lab.busy++
			m.send(to, func() { to.swap.Failed(m.lab.now, m.name, r.Piece, 200*time.Millisecond) })
			return
		}
		m.gave[r.Piece.Index] = m.lab.now
	}
	if m.serving < slots {
		m.transfer(to, r, asked)
		return
	}
	m.waiting = append(m.waiting, waiter{to, r, asked, m.lab.now})
}

func (m *machine) transfer(to *machine, r Request, asked time.Time) {
	m.serving++
	f := &flow{from: &m.link, to: &to.link, left: float64(r.Piece.Size())}
	f.done = func() {
		m.release()
		delete(to.asked, r)
		to.swap.Arrived(m.name, r.Piece, m.lab.now.Sub(asked))
		to.store(r.Piece.Index)
	}
	to.asked[r] = f
	m.lab.start(f)
}

// release frees a slot for the next that waits.
func (m *machine) release() {
	m.serving--
	for len(m.waiting) > 0 && m.serving < slots {
		w := m.waiting[0]
		m.waiting = m.waiting[1:]
		if f, wanted := w.to.asked[w.r]; wanted && f == nil {
			m.transfer(w.to, w.r, w.asked)
		}
	}
}

// weary sends away those that have waited too long.
func (m *machine) weary() {
	for len(m.waiting) > 0 && m.lab.now.Sub(m.waiting[0].since) >= time.Second {
		w := m.waiting[0]
		m.waiting = m.waiting[1:]
		if f, wanted := w.to.asked[w.r]; wanted && f == nil {
			delete(w.to.asked, w.r)
			m.lab.busy++
			m.send(w.to, func() { w.to.swap.Failed(m.lab.now, m.name, w.r.Piece, 200*time.Millisecond) })
		}
	}
}

// cancel ends a request that is no longer needed.
func (m *machine) cancel(r Request) {
	f, ok := m.asked[r]
	if !ok {
		return
	}
	delete(m.asked, r)
	if f != nil {
		m.lab.stop(f)
		m.lab.byName[r.Peer].release()
	}
}

var simBudget int64

var thrifty bool
