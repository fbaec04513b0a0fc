package hub_test

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// waits records what OnWait is told.
type waits struct {
	mu   sync.Mutex
	told map[string]time.Time
	n    int
}

func (w *waits) note(bucket string, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == nil {
		w.told = make(map[string]time.Time)
	}
	w.told[bucket] = until
	w.n++
}

func limit(header, value string) map[string]string { return map[string]string{header: value} }

// TestRateLimits: a 429 is waited for as long as the Hub says, then all is well.
func TestRateLimits(t *testing.T) {
	for _, tc := range []struct {
		name     string
		route    hubtest.Route
		status   int
		header   func() map[string]string
		min, max time.Duration
	}{
		{"R01 RateLimit", hubtest.Head, 429, func() map[string]string { return limit("RateLimit", `"resolvers";r=0;t=2`) }, 3 * time.Second, 3 * time.Second},
		{"R02 Retry-After", hubtest.Head, 429, func() map[string]string { return limit("Retry-After", "3") }, 3 * time.Second, 3 * time.Second},
		{"R02 Retry-After as a date", hubtest.Head, 429, func() map[string]string {
			return limit("Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
		}, 59 * time.Second, time.Minute},
		{"R03 API call", hubtest.Info, 429, func() map[string]string { return limit("RateLimit", `"api";r=0;t=290`) }, 291 * time.Second, 291 * time.Second},
		{"R03 listing", hubtest.Tree, 429, func() map[string]string {
			return map[string]string{"RateLimit": `"api";r=0;t=9`, "Retry-After": "99"}
		}, 10 * time.Second, 10 * time.Second},
		{"429 without a word", hubtest.Info, 429, func() map[string]string { return nil }, time.Second, time.Second},
		{"429 of another bucket", hubtest.Info, 429, func() map[string]string { return limit("RateLimit", `"pages";r=0;t=4`) }, 5 * time.Second, 5 * time.Second},
		{"429 that means for ever", hubtest.Info, 429, func() map[string]string { return limit("Retry-After", "999999999") }, 10 * time.Minute, 10 * time.Minute},
		{"S15 500", hubtest.Info, 500, func() map[string]string { return nil }, 375 * time.Millisecond, time.Second / 2},
		{"S16 503 with Retry-After", hubtest.Tree, 503, func() map[string]string { return limit("Retry-After", "2") }, 2 * time.Second, 2 * time.Second},
		{"503 for ever", hubtest.Tree, 503, func() map[string]string { return limit("Retry-After", "9999") }, 30 * time.Second, 30 * time.Second},
		{"408", hubtest.Head, 408, func() map[string]string { return nil }, 375 * time.Millisecond, time.Second / 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
				hits := s.Fail(hubtest.Fault{Do: hubtest.Status, Route: tc.route, Nth: 1, Status: tc.status, Header: tc.header()})
				start := time.Now()
				err := api(t, c, o)
				if err == nil {
					_, err = readAll(t, c, o, file(t, o, shard), 0, 10)
				}
				if took := time.Since(start); err != nil || took < tc.min || took > tc.max || hits() != 1 {
					t.Errorf("took %v, want %v to %v; %d hits, %v", took, tc.min, tc.max, hits(), err)
				}
			})
		})
	}
}

func TestR01WaitIsSharedByAllWorkers(t *testing.T) {
	var w waits
	bubble(t, hub.Options{OnWait: w.note}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		start := time.Now()
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Head, Nth: 1, Status: 429, Header: limit("RateLimit", `"resolvers";r=0;t=60`)})
		if _, err := readAll(t, c, o, file(t, o, shard), 0, 10); err != nil {
			t.Fatal(err)
		}
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Get, Nth: 1, Status: 429, Header: limit("RateLimit", `"resolvers";r=0;t=60`)})
		first := time.Now()
		var wg sync.WaitGroup
		var limited *hub.RateLimitError
		if _, err := readAll(t, c, o, file(t, o, "config.json"), 0, 10); !errors.As(err, &limited) || limited.RetryAfter() != 61*time.Second {
			t.Errorf("a body is not retried here, its reader is told how long to wait: %v", err)
		}
		for range 8 {
			wg.Go(func() {
				if _, err := readAll(t, c, o, file(t, o, "config.json"), 0, 10); err != nil {
					t.Error(err)
				}
				if waited := time.Since(first); waited != 61*time.Second {
					t.Errorf("a worker asked after %v", waited)
				}
			})
		}
		if _, _, err := c.Resolve(t.Context(), ref("org/model")); err != nil || time.Since(first) != 0 {
			t.Errorf("another bucket waited %v, %v", time.Since(first), err)
		}
		wg.Wait()
		if n := s.Stats().Status[429]; n != 2 {
			t.Errorf("%d answers of 429", n)
		}
		if w.n != 2 || !w.told[hub.BucketResolvers].Equal(start.Add(122*time.Second)) {
			t.Errorf("told %d times: %v", w.n, w.told)
		}
	})
}

func TestHold(t *testing.T) {
	var w waits
	bubble(t, hub.Options{OnWait: w.note}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		start := time.Now()
		c.Hold(hub.BucketAPI, start.Add(-time.Minute))
		c.Hold(hub.BucketAPI, start.Add(time.Minute))
		c.Hold(hub.BucketAPI, start.Add(time.Second)) // never shortens
		if err := api(t, c, o); err != nil || time.Since(start) != time.Minute {
			t.Errorf("asked after %v, %v", time.Since(start), err)
		}
		c.Hold(hub.BucketAPI, time.Now().Add(1000*time.Hour))
		why := errors.New("no time left")
		ctx, cancel := contextWithCause(t, time.Second, why)
		defer cancel()
		if _, _, err := c.Resolve(ctx, ref("org/model")); !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
		held := time.Now()
		if err := api(t, c, o); err != nil || time.Since(held) > 10*time.Minute {
			t.Errorf("a wait has a bound: %v, %v", time.Since(held), err)
		}
		if w.n != 0 {
			t.Error("what another member said is not passed on")
		}
	})
}

func TestRateLimitAtTheCDN(t *testing.T) {
	var w waits
	bubble(t, hub.Options{OnWait: w.note}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CDN, Nth: 1, Status: 429, Header: limit("Retry-After", "5")})
		_, err := readAll(t, c, o, file(t, o, shard), 0, 10)
		var limited *hub.RateLimitError
		if !errors.As(err, &limited) || limited.Bucket != hub.BucketCDN || hub.Permanent(err) {
			t.Errorf("got %v", err)
		}
		start := time.Now()
		if _, err := readAll(t, c, o, file(t, o, shard), 0, 10); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("asked after %v, %v", time.Since(start), err)
		}
	})
}
