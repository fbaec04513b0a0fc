package seeder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// longestInterval and jitter make the longest back-off 20 s ± 50 %: never
	// above the 30 s within which a silent upstream has to be replaced.
	longestInterval = 20 * time.Second
	jitter          = 0.5

	// goodProgress is how much one request must bring for the next back-off to
	// start anew. An upstream that breaks after each byte is waited for ever longer.
	goodProgress = 256 << 10
)

// patience decides how long to wait after a failed attempt, and when to stop.
type patience struct {
	giveUp  int
	longest time.Duration // that upstream may ask for
	backoff *backoff.ExponentialBackOff
	vain    int   // attempts without a byte, in a row
	last    error // of upstream
}

func newPatience(o Options) *patience {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 500 * time.Millisecond
	b.Multiplier = 2
	b.MaxInterval = longestInterval
	b.RandomizationFactor = jitter
	b.Reset()
	return &patience{giveUp: o.GiveUp, longest: o.MaxRetryAfter, backoff: b}
}

// after takes the error of an attempt that brought so many bytes and returns how
// long to wait before the next, or an error when there should be none.
func (p *patience) after(err error, brought int64) (time.Duration, error) {
	p.last = err
	if permanent(err) {
		return 0, err
	}
	p.vain++
	if brought > 0 {
		p.vain = 0
	}
	if brought >= goodProgress {
		p.backoff.Reset()
	}
	if p.vain >= p.giveUp {
		return 0, fmt.Errorf("%w after %d attempts without a byte: %w", ErrGaveUp, p.vain, err)
	}
	asked := retryAfter(err)
	if asked > p.longest {
		return 0, fmt.Errorf("%w: upstream asks to wait %v: %w", ErrGaveUp, asked, err)
	}
	if asked > 0 { // not earlier, and not all members in the same instant
		return asked + rand.N(1+min(asked/10, time.Second)), nil
	}
	return p.backoff.NextBackOff(), nil
}

func permanent(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && e.Permanent()
}

func retryAfter(err error) time.Duration {
	e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	if !ok {
		return 0
	}
	return e.RetryAfter()
}

// sleep returns the cause of ctx's end when that comes first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
