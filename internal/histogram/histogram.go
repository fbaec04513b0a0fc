// Package histogram counts durations in fixed buckets, without locks and without
// knowing who reads them.
package histogram

import (
	"sync/atomic"
	"time"
)

// Bounds are the upper ends of the buckets: from a piece out of the page cache of a
// neighbour to a large model over a slow link. All histograms have the same, so that
// they can be laid beside each other.
var Bounds = [...]time.Duration{
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour,
}

// Durations counts durations. The zero value is ready; it must not be copied.
type Durations struct {
	buckets [len(Bounds) + 1]atomic.Uint64 // the last for what is longer than all
	sum     atomic.Int64                   // nanoseconds
}

// Observe counts a duration. It may be called from any goroutine.
func (d *Durations) Observe(took time.Duration) {
	i := 0
	for i < len(Bounds) && took > Bounds[i] {
		i++
	}
	d.sum.Add(int64(took))
	d.buckets[i].Add(1)
}

// Counts is a histogram at one moment. The zero value is an empty one.
type Counts struct {
	Count   uint64
	Sum     time.Duration
	Buckets [len(Bounds)]uint64 // durations up to each bound, the shorter ones included
}

// Read returns what has been counted. An observation that is under way may be
// missing from the sum.
func (d *Durations) Read() Counts {
	c := Counts{Sum: time.Duration(d.sum.Load())}
	for i := range d.buckets {
		c.Count += d.buckets[i].Load()
		if i < len(Bounds) {
			c.Buckets[i] = c.Count
		}
	}
	return c
}
