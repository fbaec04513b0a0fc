package plan

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// upstream is a model of a shared upstream: every connection gets at most each
// bytes per second, all together at most link, and what is measured is noisy.
type upstream struct {
	link, each float64
	noise      float64
}

func (u upstream) rate(open int, r *rand.Rand) float64 {
	return min(u.link, u.each*float64(open)) * (1 + u.noise*(2*r.Float64()-1))
}

// simFleet is members with clocks that are a little apart, each of which keeps as
// many extents open as its Pace allows; an extent ends after its bytes came, so a
// smaller number takes effect late, as in life.
type simFleet struct {
	up      upstream
	piece   int64
	extent  float64
	rand    *rand.Rand
	now     time.Time
	members []*simMember
	silent  bool // members don't know what the others have open
}

type simMember struct {
	pace *Pace
	skew time.Duration
	left []float64 // bytes to come of each open extent
}

func newSimFleet(up upstream, members, most int) *simFleet {
	f := &simFleet{up: up, piece: 4 << 20, extent: 64 << 20, rand: rand.New(rand.NewPCG(1, uint64(members))),
		now: time.Unix(1_700_000_000, 0)}
	f.grow(members, most)
	return f
}

func (f *simFleet) grow(members, most int) {
	for range members {
		f.members = append(f.members, &simMember{pace: NewPace(most), skew: time.Duration(f.rand.Int64N(int64(200 * time.Millisecond)))})
	}
}

func (f *simFleet) run(d time.Duration) {
	const step = 250 * time.Millisecond
	for range d / step {
		open := 0
		for _, m := range f.members {
			for len(m.left) < m.pace.Allowed() {
				m.left = append(m.left, f.extent*(0.5+f.rand.Float64()))
			}
			open += len(m.left)
		}
		rate := f.up.rate(open, f.rand)
		f.now = f.now.Add(step)
		for _, m := range f.members {
			m.receive(rate / float64(max(open, 1)) * step.Seconds())
			m.pace.Observe(f.now.Add(m.skew), Fleet{Rate: rate, Fetchers: len(f.members), Open: f.told(open)}, f.piece, len(m.left))
		}
	}
}

func (m *simMember) receive(each float64) {
	kept := m.left[:0]
	for _, n := range m.left {
		if n > each {
			kept = append(kept, n-each)
		}
	}
	m.left = kept
}

func (f *simFleet) told(open int) int {
	if f.silent {
		return 0
	}
	return open
}

// mean of what members allow, over a minute.
func (f *simFleet) mean() float64 {
	var sum, n float64
	for range 60 {
		f.run(time.Second)
		for _, m := range f.members {
			sum += float64(m.pace.Allowed())
			n++
		}
	}
	return sum / n
}

func TestPaceFindsTheNumber(t *testing.T) {
	const mb = 1e6
	for _, test := range []struct {
		name    string
		up      upstream
		members int
		lo, hi  float64
	}{
		{"one member, one connection fills the link", upstream{25 * mb, 1000 * mb, 0.03}, 1, 1, 1.5},
		{"eight members fill the link with one each", upstream{25 * mb, 1000 * mb, 0.03}, 8, 1, 1.5},
		{"slow connections, one member", upstream{1000 * mb, 2 * mb, 0.02}, 1, 7.5, 8},
		{"slow connections, eight members", upstream{10000 * mb, 2 * mb, 0.02}, 8, 7, 8},
		{"a fast link of middling connections", upstream{1250 * mb, 50 * mb, 0.02}, 2, 7, 8},
		{"four connections fill the link", upstream{100 * mb, 25 * mb, 0.02}, 1, 3.5, 5},
		{"four connections of two members fill the link", upstream{100 * mb, 25 * mb, 0.02}, 2, 1.8, 3},
	} {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/silent=%v", test.name, silent), func(t *testing.T) {
				f := newSimFleet(test.up, test.members, 8)
				f.silent = silent
				f.run(30 * time.Second)
				if got := f.mean(); got < test.lo || got > test.hi {
					t.Errorf("a member allows %.2f extents on average, want %v to %v", got, test.lo, test.hi)
				}
			})
		}
	}
}

// A member that was alone, on connections too slow to share, makes room when
// others come and the link is full.
func TestPaceMakesRoomForNewMembers(t *testing.T) {
	for _, silent := range []bool{false, true} {
		f := newSimFleet(upstream{20e6, 3e6, 0.02}, 1, 8)
		f.silent = silent
		f.run(time.Minute)
		if got := f.members[0].pace.Allowed(); got < 6 {
			t.Fatalf("silent=%v: alone it allows %d, want 6 to 8", silent, got)
		}
		f.grow(7, 8)
		f.run(3 * time.Minute)
		if got := f.members[0].pace.Allowed(); got > 3 {
			t.Errorf("silent=%v: with seven others it allows %d, want 3 at most", silent, got)
		}
	}
}

// Members that start one after the other never probe together; each climbs
// because its extents are not slower than a single one.
func TestPaceClimbsOutOfStep(t *testing.T) {
	f := newSimFleet(upstream{10000e6, 2e6, 0.02}, 1, 8)
	for range 15 {
		f.run(7 * time.Second)
		f.grow(1, 8)
	}
	f.run(30 * time.Second)
	if got := f.mean(); got < 7.5 {
		t.Errorf("allows %.2f, want 7.5 or more", got)
	}
}

// One step down at a time: the next only when the extents of the last are gone.
func TestPaceWaitsForExtentsToEnd(t *testing.T) {
	p := NewPace(8)
	p.level, p.best, p.bestAt, p.base = 8, 5e6, 20e6, 20e6
	now := time.Unix(1_700_000_000, 0)
	for range 100 {
		now = now.Add(250 * time.Millisecond)
		p.Observe(now, Fleet{Rate: 20e6, Fetchers: 8, Open: 64}, 4<<20, 8)
	}
	if p.Allowed() != 7 {
		t.Errorf("allows %d while 8 are still open, want 7", p.Allowed())
	}
}

// When upstream becomes slower for each connection, the number stays up.
func TestPaceKeepsTheNumberWhenUpstreamSlowsDown(t *testing.T) {
	f := newSimFleet(upstream{1000e6, 8e6, 0.02}, 2, 8)
	f.run(time.Minute)
	f.up.each = 1e6
	f.run(time.Minute)
	if got := f.mean(); got < 7 {
		t.Errorf("allows %.2f, want 7 or more", got)
	}
}

// The rate of a starting fleet rises by itself; that must not look like success.
func TestPaceIsNotFooledByAStartingFleet(t *testing.T) {
	f := newSimFleet(upstream{1e6, 1000e6, 0.01}, 4, 8)
	for range 20 {
		f.run(time.Second)
		f.up.link *= 1.25
	}
	f.run(time.Minute)
	if got := f.mean(); got > 2 {
		t.Errorf("allows %.2f, want 2 at most", got)
	}
}

func TestPaceDoesNotGrowWithoutExtentsToOpen(t *testing.T) {
	p := NewPace(8)
	now := time.Unix(0, 0)
	for i := range 600 {
		now = now.Add(500 * time.Millisecond)
		p.Observe(now, Fleet{Rate: 1e6 * float64(i), Fetchers: 3, Open: 3}, 4<<20, 0)
		if p.Allowed() > 2 {
			t.Fatalf("after %d s it allows %d with nothing open", i/2, p.Allowed())
		}
	}
}

// Between probes in vain lie 2, 4, 8, … seconds, at most 30, and each is over
// after two.
func TestPaceProbesLessOftenInVain(t *testing.T) {
	p := NewPace(8)
	now := time.Unix(1_700_000_000, 0)
	var starts []time.Time
	was := 1
	for range 4 * 60 * 10 {
		now = now.Add(250 * time.Millisecond)
		p.Observe(now, Fleet{Rate: 25e6, Fetchers: 8, Open: 8 * p.Allowed()}, 4<<20, p.Allowed())
		if p.Allowed() > 2 {
			t.Fatalf("allows %d of a rate that never rises", p.Allowed())
		}
		if p.Allowed() > was {
			starts = append(starts, now)
		} else if p.Allowed() < was && now.Sub(starts[len(starts)-1]) != 2*time.Second {
			t.Errorf("a probe took %v", now.Sub(starts[len(starts)-1]))
		}
		was = p.Allowed()
	}
	if len(starts) < 20 {
		t.Fatalf("%d probes in ten minutes, want 20 or more", len(starts))
	}
	if gap := starts[1].Sub(starts[0]); gap > 6*time.Second {
		t.Errorf("the second probe came after %v", gap)
	}
	for i := range starts[1:] {
		gap := starts[i+1].Sub(starts[i])
		if gap > 30*time.Second || i > 5 && gap < 30*time.Second {
			t.Errorf("probe %d came after %v", i+1, gap)
		}
	}
}

// A rise of ten percent is kept, one of nine is not, for a first extent more.
func TestPaceKeepsWhatIsWorthwhile(t *testing.T) {
	for rise, want := range map[float64]int{1.11: 2, 1.09: 1} {
		p := NewPace(2)
		now := time.Unix(1_700_000_000, 0)
		for range 4 * 60 {
			now = now.Add(250 * time.Millisecond)
			rate := 100e6
			if p.Allowed() == 2 {
				rate *= rise
			}
			p.Observe(now, Fleet{Rate: rate, Fetchers: 1, Open: p.Allowed()}, 4<<20, p.Allowed())
		}
		if p.level != want {
			t.Errorf("rise of %.2f: level %d, want %d", rise, p.level, want)
		}
	}
}

func TestPaceIsNeverBelowOneNorAboveItsLimit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for _, most := range []int{-1, 0, 1, 5} {
		p := NewPace(most)
		now := time.Unix(0, 0)
		for range 20_000 {
			now = now.Add(time.Duration(r.Int64N(int64(3 * time.Second))))
			p.Observe(now, Fleet{Rate: 1e8 * r.Float64() * float64(r.IntN(2)), Fetchers: r.IntN(20), Open: r.IntN(90)}, r.Int64N(3)<<22, r.IntN(7))
			if p.Allowed() < 1 || p.Allowed() > max(1, most) {
				t.Fatalf("allows %d of %d", p.Allowed(), most)
			}
		}
	}
}
