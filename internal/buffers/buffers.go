// Package buffers is a bounded free list of piece buffers: pieces come one after
// the other, and buffers of 4 MiB and more are too large to leave to the garbage
// collector.
package buffers

import (
	"math/bits"
	"slices"
	"sync"
)

// smallest keeps the sizes few: 64 KiB to 16 MiB in nine steps.
const smallest = 64 << 10

// Size returns the capacity of a buffer for n bytes: the next power of two, so
// that buffers fit again.
func Size(n int) int64 {
	return max(smallest, int64(1)<<bits.Len(uint(max(n, 1)-1)))
}

// Pool is a free list. Free and used buffers together stay within the limit as
// long as the used ones do: who uses them bounds their number. It is safe for
// concurrent use.
type Pool struct {
	limit int64

	mu    sync.Mutex
	free  [][]byte // oldest first
	total int64    // bytes of free and used ones
	used  int
}

// New returns a pool of at most limit bytes.
func New(limit int64) *Pool { return &Pool{limit: limit} }

// Get returns a buffer of n bytes with arbitrary content.
func (p *Pool) Get(n int) []byte {
	size := Size(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used++
	for i := range p.free {
		if buf := p.free[i]; int64(cap(buf)) == size {
			p.free = slices.Delete(p.free, i, i+1)
			return buf[:n]
		}
	}
	for len(p.free) > 0 && p.total+size > p.limit {
		p.drop()
	}
	p.total += size
	return make([]byte, n, size)
}

// Put takes back a buffer that Get returned; nil is none. When none is in use
// any more one is kept: idle should cost nothing, but pieces that come one after
// the other should share it.
func (p *Pool) Put(buf []byte) {
	if buf == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	p.free = append(p.free, buf)
	for len(p.free) > 1 && (p.used == 0 || p.total > p.limit) {
		p.drop()
	}
}

func (p *Pool) drop() {
	p.total -= int64(cap(p.free[0]))
	p.free = slices.Delete(p.free, 0, 1)
}

// Usage returns how many buffers are in use, and the bytes of all, free ones
// included.
func (p *Pool) Usage() (used int, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.total
}
