package buffers

import (
	"math/rand/v2"
	"testing"
)

const mib = 1 << 20

// Used and free buffers together never exceed the limit while the used ones fit.
func TestBuffersAreBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	p := New(64 * mib)
	var used [][]byte
	var sum int64
	for range 5000 {
		n := 1 + r.IntN([]int{100, 70_000, 4 * mib, 16 * mib}[r.IntN(4)])
		if size := Size(n); r.IntN(2) == 0 && sum+size <= p.limit {
			buf := p.Get(n)
			if len(buf) != n || int64(cap(buf)) != size {
				t.Fatalf("got %d of %d bytes, want %d of %d", len(buf), cap(buf), n, size)
			}
			used, sum = append(used, buf), sum+size
		} else if len(used) > 0 {
			i := r.IntN(len(used))
			sum -= int64(cap(used[i]))
			p.Put(used[i])
			used = append(used[:i], used[i+1:]...)
		}
		var free int64
		for _, f := range p.free {
			free += int64(cap(f))
		}
		if sum+free != p.total || p.total > p.limit || p.used != len(used) {
			t.Fatalf("%d used + %d free bytes, total %d of %d", sum, free, p.total, p.limit)
		}
	}
	for _, buf := range used {
		p.Put(buf)
	}
	if n, bytes := p.Usage(); n != 0 || bytes > 16*mib {
		t.Errorf("at rest %d in use, %d bytes", n, bytes)
	}
}

// More than the limit may be in use; it is given up as soon as it comes back.
func TestBuffersAboveTheLimitAreNotKept(t *testing.T) {
	p := New(8 * mib)
	a, b, c := p.Get(4*mib), p.Get(4*mib), p.Get(4*mib)
	p.Put(a)
	p.Put(b)
	if _, bytes := p.Usage(); bytes > 8*mib {
		t.Errorf("%d bytes kept", bytes)
	}
	p.Put(c)
	p.Put(nil)
}
