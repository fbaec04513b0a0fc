package plan

import "time"

const (
	// cycle is how long one number of extents is tried. The first half lets the
	// rate settle, the second half is measured. Cycles start at multiples of it on
	// the wall clock, so that members probe together: eight members that add one
	// extent each double a small number, where one alone would change an eighth of
	// that, which drowns in the noise.
	cycle = 2 * time.Second

	// worthwhile is the rise of the fleet's rate that justifies one extent more.
	worthwhile = 0.10

	// uncrowded is the part of the best rate of a single extent that each still
	// gets when there are not too many of them; crowded is the part below which
	// there are. The gap between the two keeps the number from swinging.
	uncrowded = 0.85
	crowded   = 0.60

	// patientCycles is the longest pause between two probes: 30 s.
	patientCycles = 15
)

// Fleet is what a member knows about all members that fetch from upstream.
type Fleet struct {
	Rate     float64 // bytes per second from upstream, all together
	Fetchers int     // members that fetch
	Open     int     // extents they have open, all together; 0 when unknown
}

// Pace decides how many extents a member fetches from upstream at once.
//
// What is unfinished when upstream's last byte comes must still be swapped, so
// the number should be small; a single connection may be slower than upstream, so
// it should be large enough. Pace starts with one and adds one after the other as
// long as the rate of the whole fleet rises by a tenth, or as each extent still
// gets what a single one got. Otherwise it steps back and waits twice as long
// before the next try, up to 30 s. When extents crowd each other, because more
// members have come, it goes down to about one second of upstream in unfinished
// pieces, shared by the fetchers.
//
// It is pure: time is an argument. It is not safe for concurrent use.
type Pace struct {
	max   int
	level int  // what is known to be worthwhile
	probe bool // one more is being tried

	base  float64 // rate of the fleet before the probe
	pause int64   // cycles between probes

	best   float64 // highest rate of a single extent
	bestAt float64 // rate of the fleet when that was seen

	cycle  int64 // number of the current one
	sample sample
}

// sample gathers what is observed in the second half of a cycle.
type sample struct {
	n           int
	rate, open  float64 // sums over the fleet
	least, most int     // extents that this member had open
}

// NewPace returns a Pace that never allows more than most extents.
func NewPace(most int) *Pace { return &Pace{max: max(1, most), level: 1, pause: 1} }

// Allowed returns how many extents to fetch at once, 1 or more. When more are
// open already they should be finished, not broken off.
func (p *Pace) Allowed() int {
	if p.probe {
		return p.level + 1
	}
	return p.level
}

// Observe takes what is known at now: the fleet, the size of the pieces being
// fetched and how many extents this member has open. Call it about every half
// second; a cycle without an observation in its second half teaches nothing.
func (p *Pace) Observe(now time.Time, fleet Fleet, pieceSize int64, open int) {
	if at := now.UnixNano() / int64(cycle); at != p.cycle {
		p.conclude(bound(fleet, pieceSize))
		p.cycle, p.sample = at, sample{least: open}
	}
	if now.UnixNano()%int64(cycle) < int64(cycle/2) {
		return
	}
	s := &p.sample
	s.n++
	s.rate += fleet.Rate
	s.open += float64(max(fleet.Open, open, 1))
	if fleet.Open == 0 {
		s.open += float64(max(open, 1) * (max(fleet.Fetchers, 1) - 1))
	}
	s.least, s.most = min(s.least, open), max(s.most, open)
}

// bound is one second of upstream in unfinished pieces, shared by the fetchers.
func bound(f Fleet, pieceSize int64) int {
	return max(1, int(f.Rate/float64(max(1, pieceSize))/float64(max(1, f.Fetchers))))
}

// conclude draws the lesson of one cycle, if there is one.
func (p *Pace) conclude(bound int) {
	s := p.sample
	if s.n == 0 || s.rate == 0 {
		return
	}
	if s.most < p.Allowed() { // there was nothing to open
		p.probe, p.base = false, 0
		return
	}
	if s.least > p.Allowed() { // extents above the number are still being finished
		return
	}
	rate, each := s.rate/float64(s.n), s.rate/s.open
	if each > p.best || rate < (1-2*worthwhile)*p.bestAt { // the latter: upstream itself got slower
		p.best, p.bestAt = each, rate
	}
	if p.probe {
		p.judge(rate, each)
	} else {
		p.rest(rate, each, bound)
	}
}

// judge ends a probe.
func (p *Pace) judge(rate, each float64) {
	p.probe = false
	if rate < p.base*(1+worthwhile) && each < uncrowded*p.best {
		p.pause = min(2*p.pause, patientCycles)
		return
	}
	p.level++
	p.pause = 1
	p.begin(rate)
}

// rest is a cycle without a probe. The next one begins when it is due and the
// rate is steady: while a fleet starts up the rate rises by itself.
func (p *Pace) rest(rate, each float64, bound int) {
	steady := p.base > 0 && rate < p.base*(1+worthwhile) && p.base < rate*(1+worthwhile)
	p.base = rate
	switch {
	case p.level > bound && each < crowded*p.best:
		p.level--
	case steady && p.cycle%p.pause == 0:
		p.begin(rate)
	}
}

func (p *Pace) begin(rate float64) {
	p.base = rate
	p.probe = p.level < p.max
}
