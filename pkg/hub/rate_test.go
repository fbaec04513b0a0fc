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

// pause is an answer that asks to wait, and how long the client then does.
type pause struct {
	route    hubtest.Route
	status   int
	header   func() map[string]string // made in the bubble: a date is of its time
	min, max time.Duration
}

func silentAbout() map[string]string { return nil }

func says(header, value string) func() map[string]string {
	return func() map[string]string { return map[string]string{header: value} }
}

// waitsFor wants a request that met such an answer once to come back in time and
// to succeed then.
func waitsFor(t *testing.T, pauses ...pause) {
	t.Helper()
	for _, p := range pauses {
		bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
			hits := s.Fail(hubtest.Fault{Do: hubtest.Status, Route: p.route, Nth: 1, Status: p.status, Header: p.header()})
			start := time.Now()
			err := api(t, c, o)
			if err == nil {
				_, err = readAll(t, c, o, file(t, o, shard), 0, 10)
			}
			n := c.Counts()
			if n.Requests[p.status/100] != 1 || n.Requests[2]+n.Requests[3] < 2 || n.Stalls != 0 || (n.Waits == 1) != (p.status == 429) {
				t.Errorf("%d on %s: counted %+v", p.status, p.route, n)
			}
			if took := time.Since(start); err != nil || took < p.min || took > p.max || hits() != 1 {
				t.Errorf("%d on %s %v: took %v, want %v to %v; %d hits, %v", p.status, p.route, p.header(), took, p.min, p.max, hits(), err)
			}
		})
	}
}

// R01: too many requests, and the header RateLimit has the end of the window.
//
// The next request goes out a second after it: the two clocks may differ.
func TestR01RateLimit(t *testing.T) {
	waitsFor(t, pause{hubtest.Head, 429, says("RateLimit", `"resolvers";r=0;t=2`), 3 * time.Second, 3 * time.Second})
}

// R02: too many requests, and only Retry-After says when to come back.
//
// Seconds and dates are both understood and waited for.
func TestR02RetryAfter(t *testing.T) {
	waitsFor(t,
		pause{hubtest.Head, 429, says("Retry-After", "3"), 3 * time.Second, 3 * time.Second},
		pause{hubtest.Head, 429, func() map[string]string {
			return limit("Retry-After", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
		}, 59 * time.Second, time.Minute})
}

// R03: too many requests on an API call.
//
// Resolve and listing are asked again when the window is over; RateLimit counts
// for more than Retry-After.
func TestR03RateLimitOfTheAPI(t *testing.T) {
	waitsFor(t,
		pause{hubtest.Info, 429, says("RateLimit", `"api";r=0;t=290`), 291 * time.Second, 291 * time.Second},
		pause{hubtest.Tree, 429, func() map[string]string {
			return map[string]string{"RateLimit": `"api";r=0;t=9`, "Retry-After": "99"}
		}, 10 * time.Second, 10 * time.Second})
}

// S15: a server error, then all is well.
//
// An API call is tried again after half a second at most, which doubles with each
// further error.
func TestS15ServerError(t *testing.T) {
	waitsFor(t,
		pause{hubtest.Info, 500, silentAbout, 375 * time.Millisecond, time.Second / 2},
		pause{hubtest.Head, 408, silentAbout, 375 * time.Millisecond, time.Second / 2})
}

// S16: overloaded, with the time to come back.
//
// Retry-After is waited for, 30 s at most.
func TestS16Overloaded(t *testing.T) {
	waitsFor(t,
		pause{hubtest.Tree, 503, says("Retry-After", "2"), 2 * time.Second, 2 * time.Second},
		pause{hubtest.Tree, 503, says("Retry-After", "9999"), 30 * time.Second, 30 * time.Second})
}

// TestOddRateLimits: a 429 that says little, or too much.
func TestOddRateLimits(t *testing.T) {
	waitsFor(t,
		pause{hubtest.Info, 429, silentAbout, time.Second, time.Second},
		pause{hubtest.Info, 429, says("RateLimit", `"pages";r=0;t=4`), 5 * time.Second, 5 * time.Second},
		pause{hubtest.Info, 429, says("Retry-After", "999999999"), 10 * time.Minute, 10 * time.Minute})
}

// R01: too many requests, while eight workers want to ask.
//
// One answer of 429 holds all of them back until the window is over; requests of
// another bucket pass.
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
