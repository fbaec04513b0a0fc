package histogram

import (
	"sync"
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	var d Durations
	if d.Read() != (Counts{}) {
		t.Errorf("empty: %+v", d.Read())
	}
	for _, took := range []time.Duration{0, 5 * time.Millisecond, 5*time.Millisecond + 1, time.Second, 2 * time.Hour} {
		d.Observe(took)
	}
	c := d.Read()
	if c.Count != 5 || c.Sum != 2*time.Hour+time.Second+10*time.Millisecond+1 || c.Buckets[0] != 2 || c.Buckets[1] != 3 || c.Buckets[7] != 4 || c.Buckets[len(Bounds)-1] != 4 {
		t.Errorf("%+v", c)
	}
	for i := 1; i < len(Bounds); i++ {
		if Bounds[i] <= Bounds[i-1] || c.Buckets[i] < c.Buckets[i-1] {
			t.Errorf("bucket %d: %v has %d, after %v with %d", i, Bounds[i], c.Buckets[i], Bounds[i-1], c.Buckets[i-1])
		}
	}
}

func TestObserveFromManyGoroutines(t *testing.T) {
	var d Durations
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				d.Observe(time.Millisecond)
				d.Read()
			}
		})
	}
	wg.Wait()
	if c := d.Read(); c.Count != 8000 || c.Sum != 8*time.Second {
		t.Errorf("%+v", c)
	}
}
