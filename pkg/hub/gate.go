package hub

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Hold keeps requests of a bucket back until the given time: another member of
// the swarm, behind the same address, was told to wait. Waits only get longer,
// and none is longer than ten minutes from now.
func (c *Client) Hold(bucket string, until time.Time) {
	c.gates.hold(bucket, until)
}

func (g *gates) hold(bucket string, until time.Time) (time.Time, bool) {
	if limit := time.Now().Add(maxWait); until.After(limit) {
		until = limit
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !until.After(g.until[bucket]) {
		return g.until[bucket], false
	}
	g.until[bucket] = until
	return until, true
}

func (g *gates) left(bucket string) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Until(g.until[bucket])
}

// pass waits until the bucket is open. All requests of the client pass here, so
// one 429 holds back every worker.
func (c *Client) pass(ctx context.Context, op, bucket string) error {
	for {
		left := c.gates.left(bucket)
		if left <= 0 {
			return nil
		}
		c.log.Info("waiting for the hub's rate limit", slog.String("bucket", bucket), slog.Duration("wait", left))
		if err := sleep(ctx, left); err != nil {
			return fmt.Errorf("%s: wait for rate limit of %q: %w", op, bucket, err)
		}
	}
}

// limited notes a 429: this bucket pauses, and whoever shares our address hears of it.
func (c *Client) limited(bucket string, wait time.Duration) {
	until, news := c.gates.hold(bucket, time.Now().Add(wait))
	if !news {
		return
	}
	c.count.waits.Add(1)
	c.log.Warn("the hub limits our requests", slog.String("bucket", bucket), slog.Time("until", until))
	c.o.OnWait(bucket, until)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
