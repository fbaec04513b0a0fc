package stall

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// step is one chunk that the far end of a pipe writes after a pause.
type step struct {
	pause time.Duration
	bytes int
}

func serve(t *testing.T, steps []step, end bool) net.Conn {
	ours, theirs := net.Pipe()
	stop := make(chan struct{})
	go func() {
		for _, s := range steps {
			select {
			case <-time.After(s.pause):
			case <-stop:
				return
			}
			if _, err := theirs.Write(make([]byte, s.bytes)); err != nil {
				return
			}
		}
		if end {
			theirs.Close()
		}
	}()
	t.Cleanup(func() { close(stop); theirs.Close() })
	return ours
}

func repeat(n int, s step) (out []step) {
	for range n {
		out = append(out, s)
	}
	return out
}

func TestReader(t *testing.T) {
	idle := Limits{Idle: 15 * time.Second}
	floor := Limits{FloorBytes: 6000, FloorWindow: time.Minute}
	both := Limits{Idle: 15 * time.Second, FloorBytes: 6000, FloorWindow: time.Minute}
	for name, tc := range map[string]struct {
		limits Limits
		steps  []step
		end    bool
		bytes  int
		after  time.Duration // when the stall is noticed; 0: no stall
		says   string
	}{
		"S01 silent half way": {limits: idle, steps: []step{{time.Second, 100}}, bytes: 100, after: 16 * time.Second,
			says: "stalled: no byte for 15s at offset 100"},
		"S05 silent from the start": {limits: idle, after: 15 * time.Second, says: "stalled: no byte for 15s at offset 0"},
		"pauses below the limit":    {limits: idle, steps: repeat(20, step{14 * time.Second, 1}), end: true, bytes: 20},
		"S08 trickle": {limits: both, steps: repeat(100, step{7 * time.Second, 1}), bytes: 8, after: time.Minute,
			says: "stalled: 8 bytes in 1m0s, want 6000, at offset 8"},
		"floor alone sees silence": {limits: floor, steps: []step{{time.Second, 100}}, bytes: 100, after: time.Minute,
			says: "stalled: 100 bytes in 1m0s, want 6000, at offset 100"},
		"fast, then slow": {limits: both, steps: append(repeat(60, step{time.Second, 1000}), repeat(100, step{7 * time.Second, 1})...),
			bytes: 60008, after: 120 * time.Second, says: "8 bytes in 1m0s"},
		"just above the floor": {limits: both, steps: repeat(200, step{time.Second, 110}), end: true, bytes: 22000},
		"short body, then end": {limits: both, steps: repeat(59, step{time.Second, 1}), end: true, bytes: 59},
		"no limits":            {steps: repeat(3, step{time.Hour, 1}), end: true, bytes: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := NewReader(serve(t, tc.steps, tc.end), tc.limits)
				defer r.Close()
				got, err := io.ReadAll(r)
				if len(got) != tc.bytes {
					t.Errorf("got %d bytes, want %d", len(got), tc.bytes)
				}
				checkStall(t, err, tc.after, tc.says, time.Since(start))
			})
		})
	}
}

func checkStall(t *testing.T, err error, after time.Duration, says string, took time.Duration) {
	t.Helper()
	if after == 0 {
		if err != nil {
			t.Errorf("got %v, want the whole body", err)
		}
		return
	}
	var stalled *Error
	if !errors.Is(err, ErrStalled) || !errors.As(err, &stalled) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %q", err, says)
	}
	if took != after {
		t.Errorf("noticed after %v, want %v", took, after)
	}
}

func TestSlowConsumerIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := repeat(100, step{0, 100})
		r := NewReader(serve(t, steps, true), Limits{Idle: time.Second, FloorBytes: 1000, FloorWindow: time.Minute})
		defer r.Close()
		total := 0
		for buf := make([]byte, 100); ; {
			n, err := r.Read(buf)
			total += n
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if total != 10000 {
			t.Errorf("got %d bytes, want 10000", total)
		}
	})
}

func TestStallIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReader(serve(t, []step{{time.Minute, 1}}, false), Limits{Idle: time.Second})
		buf := make([]byte, 1)
		_, first := r.Read(buf)
		time.Sleep(time.Hour)
		if _, again := r.Read(buf); first == nil || again != first {
			t.Errorf("got %v, then %v", first, again)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseFreesBlockedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewReader(serve(t, nil, false), Limits{Idle: time.Hour})
		done := make(chan error)
		go func() { _, err := r.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		r.Close()
		if err := <-done; err == nil || errors.Is(err, ErrStalled) {
			t.Errorf("got %v, want the error of the closed stream", err)
		}
	})
}

// zero answers every Read with no byte and no error, a second later.
type zero struct{ closed atomic.Bool }

func (z *zero) Read([]byte) (int, error) {
	time.Sleep(time.Second)
	if z.closed.Load() {
		return 0, net.ErrClosed
	}
	return 0, nil
}
func (z *zero) Close() error { z.closed.Store(true); return nil }

func TestEmptyReadsAreSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := NewReader(&zero{}, Limits{Idle: 5 * time.Second})
		buf := make([]byte, 1)
		var err error
		for err == nil {
			_, err = r.Read(buf)
		}
		checkStall(t, err, 5*time.Second, "no byte for 5s", time.Since(start))
	})
}

func BenchmarkReader(b *testing.B) {
	r := NewReader(io.NopCloser(endless{}), Limits{Idle: time.Second, FloorBytes: 1, FloorWindow: time.Minute})
	defer r.Close()
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		r.Read(buf)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
