package stall

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrStalled marks a transfer that was given up because bytes stopped.
var ErrStalled = errors.New("stalled")

// Limits says when a transfer counts as stalled. A zero field switches its
// check off; the zero Limits never trip.
type Limits struct {
	// Idle is the longest time that a Read may wait for one byte.
	Idle time.Duration
	// FloorBytes is the least that must arrive in any FloorWindow of waiting;
	// it catches a trickle, which never trips Idle. Both or neither are set.
	FloorBytes  int64
	FloorWindow time.Duration
}

// Error says how a transfer stalled. It wraps ErrStalled.
type Error struct {
	Offset int64         // bytes that had arrived before
	Waited time.Duration // how long Read waited: without a byte, or over the floor's window
	Bytes  int64         // bytes that came in Waited; 0 when Idle tripped
	Floor  int64         // bytes wanted in Waited; 0 when Idle tripped
}

// Error implements error.
func (e *Error) Error() string {
	if e.Floor == 0 {
		return fmt.Sprintf("stalled: no byte for %v at offset %d", e.Waited, e.Offset)
	}
	return fmt.Sprintf("stalled: %d bytes in %v, want %d, at offset %d", e.Bytes, e.Waited, e.Floor, e.Offset)
}

// Unwrap returns ErrStalled.
func (e *Error) Unwrap() error { return ErrStalled }

// Permanent reports false: another connection or another source may do.
func (e *Error) Permanent() bool { return false }

// Reader is an io.ReadCloser that fails by itself when bytes stop. One
// goroutine reads; Close may be called from any.
type Reader struct {
	rc     io.ReadCloser
	limits Limits
	timer  *time.Timer // armed only while a Read waits

	closing sync.Once
	closed  error // result of rc.Close, valid after closing

	mu      sync.Mutex // guards what follows; never held across rc
	waiting bool
	since   time.Time     // start of the current wait, moved on by settle
	silent  time.Duration // waited since the last byte
	offset  int64
	window  window
	cause   *Error // set once, then every Read returns it
	over    bool   // closed by the consumer
}

// NewReader wraps rc, which it then owns. Without a Close the timer of a
// blocked Read keeps running until it trips.
func NewReader(rc io.ReadCloser, l Limits) *Reader {
	r := &Reader{rc: rc, limits: l, window: newWindow(l)}
	r.timer = time.AfterFunc(time.Hour, r.tick)
	r.timer.Stop()
	return r
}

// Read reads from the wrapped stream. When the limits trip it returns an *Error
// that wraps ErrStalled, now and ever after; bytes that came before are
// returned with it or earlier, never lost.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.begin(); err != nil {
		return 0, err
	}
	n, err := r.rc.Read(p)
	return n, r.end(n, err)
}

// Close closes the wrapped stream and stops the timer. A blocked Read returns.
func (r *Reader) Close() error {
	r.mu.Lock()
	r.over = true
	r.timer.Stop()
	r.mu.Unlock()
	return r.closeInner()
}

func (r *Reader) closeInner() error {
	r.closing.Do(func() { r.closed = r.rc.Close() })
	return r.closed
}

func (r *Reader) begin() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause != nil {
		return r.cause
	}
	r.waiting, r.since = true, time.Now()
	r.arm()
	return nil
}

// end accounts for a Read. An end of stream wins over a floor that was missed
// in the same instant: everything is there.
func (r *Reader) end(n int, err error) error {
	r.mu.Lock()
	r.waiting = false
	r.timer.Stop()
	r.settle(time.Now())
	r.offset += int64(n)
	r.window.add(int64(n))
	if n > 0 {
		r.silent = 0
	}
	if r.cause == nil && err == nil {
		r.cause = r.judge()
	}
	cause := r.cause
	r.mu.Unlock()
	if cause == nil || err == io.EOF {
		return err
	}
	r.closeInner()
	return cause
}

// tick runs on the timer while a Read waits: it trips the limits or sleeps on.
func (r *Reader) tick() {
	r.mu.Lock()
	if !r.waiting || r.over {
		r.mu.Unlock()
		return // the Read came back while the timer was firing
	}
	r.settle(time.Now())
	r.cause = r.judge()
	tripped := r.cause != nil
	if !tripped {
		r.arm()
	}
	r.mu.Unlock()
	if tripped {
		r.closeInner()
	}
}

// settle moves the time waited so far into the counters.
func (r *Reader) settle(now time.Time) {
	waited := now.Sub(r.since)
	r.since = now
	r.silent += waited
	r.window.pass(waited)
}

func (r *Reader) judge() *Error {
	if r.limits.Idle > 0 && r.silent >= r.limits.Idle {
		return &Error{Offset: r.offset, Waited: r.silent}
	}
	if sum, low := r.window.low(); low {
		return &Error{Offset: r.offset, Waited: r.limits.FloorWindow, Bytes: sum, Floor: r.limits.FloorBytes}
	}
	return nil
}

// arm sets the timer to the next instant at which judge can change its mind.
func (r *Reader) arm() {
	var wait time.Duration
	if r.limits.Idle > 0 {
		wait = r.limits.Idle - r.silent
	}
	if w := r.window.next(); w > 0 && (wait <= 0 || w < wait) {
		wait = w
	}
	if wait > 0 && !r.over {
		r.timer.Reset(wait)
	}
}
