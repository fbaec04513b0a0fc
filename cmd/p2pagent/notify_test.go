package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// heard is what systemd was told, and when.
type heard struct {
	at    time.Duration
	state string
}

// listen runs a notifier for span and returns what it said. Its loop answers
// until hangs.
func listen(t *testing.T, n notifier, hangs, span time.Duration) []heard {
	t.Helper()
	began := time.Now()
	var out []heard
	n.send = func(state string) { out = append(out, heard{time.Since(began), state}) }
	n.status = func() string { return "0 jobs" }
	n.log = slog.New(slog.DiscardHandler)
	n.alive = func(ctx context.Context) error {
		if time.Since(began) < hangs {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	if err := n.run(ctx); err != nil {
		t.Error(err)
	}
	return out
}

func settledAfter(d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestNotifierWords: ready before all else, although nobody was found to join;
// then words at every pulse; stopping last.
func TestNotifierWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := listen(t, notifier{settled: settledAfter(time.Hour), pulse: 2 * time.Second}, time.Hour, 6*time.Second)
		want := []heard{{time.Second, "READY=1"}}
		for _, at := range []time.Duration{1, 3, 5} {
			want = append(want, heard{at * time.Second, "STATUS=0 jobs\nWATCHDOG=1"})
		}
		want = append(want, heard{6 * time.Second, "STOPPING=1"})
		if !slices.Equal(got, want) {
			t.Errorf("said %v\nwant %v", got, want)
		}
	})
}

// TestNotifierStarvesTheWatchdog: a loop that hangs for 3 pulses is the end of
// the process, whatever else of it still runs.
func TestNotifierStarvesTheWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 6 * time.Second
		hangs := 7 * time.Second
		got := listen(t, notifier{settled: settledAfter(0), pulse: limit / pulses}, hangs, 30*time.Second)
		fed := slices.DeleteFunc(got, func(h heard) bool { return !strings.Contains(h.state, "WATCHDOG=1") })
		if len(fed) != 4 || fed[3].at > hangs {
			t.Errorf("the watchdog was fed at %v, want at 0, 2, 4 and 6 s and not after the loop hung at %v", fed, hangs)
		}
	})
}

// TestPulse: three words fit into what the watchdog allows.
func TestPulse(t *testing.T) {
	for usec, want := range map[string]time.Duration{"": statusEvery, "30000000": statusEvery, "6000000": 2 * time.Second, "x": statusEvery} {
		t.Setenv("WATCHDOG_USEC", usec)
		if got := pulse(); got != want {
			t.Errorf("WATCHDOG_USEC=%q: a word every %v, want %v", usec, got, want)
		}
	}
}
