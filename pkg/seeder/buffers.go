package seeder

import (
	"math/bits"
	"slices"
	"sync"
)

// smallestBuffer keeps the sizes few: 64 KiB to 16 MiB in nine steps.
const smallestBuffer = 64 << 10

// bufferSize rounds up to a power of two, so that buffers fit again.
func bufferSize(n int) int64 {
	return max(smallestBuffer, int64(1)<<bits.Len(uint(max(n, 1)-1)))
}

// buffers is a free list of piece buffers. Free and used ones together stay
// within limit as long as the used ones do.
type buffers struct {
	limit int64

	mu    sync.Mutex
	free  [][]byte // oldest first
	total int64    // bytes of free and used ones
	used  int
}

func (b *buffers) get(n int) []byte {
	size := bufferSize(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used++
	for i := range b.free {
		if buf := b.free[i]; int64(cap(buf)) == size {
			b.free = slices.Delete(b.free, i, i+1)
			return buf[:n]
		}
	}
	for len(b.free) > 0 && b.total+size > b.limit {
		b.drop()
	}
	b.total += size
	return make([]byte, n, size)
}

// put takes a buffer back; nil is none.
func (b *buffers) put(buf []byte) {
	if buf == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used--
	b.free = append(b.free, buf)
}

// trim keeps one buffer at most when none is in use: idle should cost nothing,
// but extents that are fetched one after the other should share one.
func (b *buffers) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.used == 0 && len(b.free) > 1 {
		b.drop()
	}
}

func (b *buffers) drop() {
	b.total -= int64(cap(b.free[0]))
	b.free = slices.Delete(b.free, 0, 1)
}
