package seeder

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
)

type permanentError struct{}

func (permanentError) Error() string   { return "gone for good" }
func (permanentError) Permanent() bool { return true }

type busyError struct{ wait time.Duration }

func (e busyError) Error() string             { return "busy" }
func (e busyError) Permanent() bool           { return false }
func (e busyError) RetryAfter() time.Duration { return e.wait }

func failing(err error) *faultySource {
	return &faultySource{faults: func(int, pieces.Blob, int64, int64) *fault { return &fault{atOpen: err} }}
}

func TestFetchStopsAtAPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := failing(permanentError{})
		b := testBlob(5*mib, 1)
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), every, &checkSink{t: t}, nil)
		if !errors.Is(err, permanentError{}) || errors.Is(err, ErrGaveUp) {
			t.Errorf("error is %v", err)
		}
		if want := "fetch piece 0 of " + b.String() + ": open at 0: gone for good"; err.Error() != want {
			t.Errorf("message is %q, want %q", err, want)
		}
		if len(src.requests) != 1 {
			t.Errorf("%d requests, want 1", len(src.requests))
		}
	})
}

// S29: every request fails, ten times in a row.
//
// No pause is longer than 30 s. After the tenth the seeder gives up, within five
// minutes, and says how often it tried and that no byte came.
func TestS29AttemptsInVain(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("refused")
		src := failing(cause)
		begin := time.Now()
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(5*mib, 1))), every, &checkSink{t: t}, nil)
		if !errors.Is(err, ErrGaveUp) || !errors.Is(err, cause) {
			t.Errorf("error is %v", err)
		}
		if want := "gave up after 10 attempts without a byte: open at 0: refused"; !strings.Contains(err.Error(), want) {
			t.Errorf("message is %q, want %q", err, want)
		}
		if len(src.requests) != defaultGiveUp {
			t.Errorf("%d requests, want %d", len(src.requests), defaultGiveUp)
		}
		for i := range src.requests[1:] {
			if wait := src.requests[i+1].at.Sub(src.requests[i].at); wait <= 0 || wait > 30*time.Second {
				t.Errorf("wait %d is %v, want more than 0 and at most 30 s", i, wait)
			}
		}
		if took := time.Since(begin); took > 5*time.Minute {
			t.Errorf("gave up after %v", took)
		}
	})
}

// A byte is progress: the count of attempts begins anew, the wait does not.
func TestFetchOutlastsAnUpstreamThatTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBlob(3*mib, 1)
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, n int64) *fault {
			if number < 40 {
				return &fault{after: 1, err: io.EOF}
			}
			return nil
		}}
		sink := &checkSink{t: t}
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), every, sink, nil); err != nil {
			t.Fatal(err)
		}
		sink.wantAll(extent(span(b)))
		if wait := src.requests[30].at.Sub(src.requests[29].at); wait < 10*time.Second {
			t.Errorf("waits %v after 30 requests of one byte, want 10 s or more", wait)
		}
		if src.bytes() != b.Size {
			t.Errorf("read %d bytes of %d", src.bytes(), b.Size)
		}
	})
}

func TestFetchComesBackWhenUpstreamSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const asked = 95 * time.Second
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, _ int64) *fault {
			if number == 0 {
				return &fault{atOpen: busyError{asked}}
			}
			return nil
		}}
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil); err != nil {
			t.Fatal(err)
		}
		if wait := src.requests[1].at.Sub(src.requests[0].at); wait < asked || wait > asked+time.Second {
			t.Errorf("came back after %v, want %v to a second more", wait, asked)
		}
	})
}

func TestFetchDoesNotWaitForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := failing(busyError{time.Hour})
		begin := time.Now()
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil)
		if !errors.Is(err, ErrGaveUp) || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	why := errors.New("the job is over")
	for _, test := range []struct {
		name  string
		fault fault
	}{
		{"while a silent body is read", fault{after: 100, silent: true}},
		{"while waiting to try again", fault{atOpen: busyError{time.Minute}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
				defer cancel()
				src := &faultySource{faults: func(int, pieces.Blob, int64, int64) *fault { return &test.fault }}
				begin := time.Now()
				err := New(Options{Signer: signer}).Fetch(ctx, src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil)
				if !errors.Is(err, why) || time.Since(begin) != 10*time.Second {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
				if src.open != 0 {
					t.Error("body left open")
				}
			})
		})
	}
}
