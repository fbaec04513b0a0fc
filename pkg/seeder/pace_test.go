package seeder

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
	pace  *Pace
	skew  time.Duration
	left  []float64 // bytes to come of each open extent
	lulls bool      // has no extents to open
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
			for len(m.left) < m.pace.Allowed() && !m.lulls {
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
