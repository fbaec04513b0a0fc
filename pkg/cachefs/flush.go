package cachefs

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"p2pagent/pkg/pieces"
)

// A flush costs a sync of the data and one of the journal. So that these don't
// count, many pieces share one: a fraction of a second of a fast disk, or what
// arrived in two seconds on a slow link. It is also what a crash costs.
const (
	flushBytes = 64 << 20
	flushEvery = 2 * time.Second

	hashers = 2 // goroutines that read partial blobs back; each can use a core
)

// Run writes down in the background what was Put, hashes pieces that came out of
// order, and closes files that nobody reads any more. It returns nil when ctx
// ends, and an error when a sync failed: nothing more can be written then, and
// the process should start anew. Without Run everything works, only later: Put
// flushes by itself now and then, and Complete has more to hash.
func (c *Cache) Run(ctx context.Context) error {
	c.countRun(1)
	defer c.countRun(-1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.flushNowAndThen(ctx) })
	for range hashers {
		g.Go(func() error { return c.hashWarm(ctx) })
	}
	return g.Wait()
}

func (c *Cache) countRun(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running += n
}

func (c *Cache) flushNowAndThen(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		if failed := c.failure(); failed != nil {
			return failed
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.handles.closeIdle()
		case <-c.dirty:
		}
		err := c.flushAll(ctx)
		if err != nil && ctx.Err() == nil && c.failure() == nil {
			c.log.Warn("can't write down pieces; trying again", "err", err)
		}
	}
}

// account counts bytes that are not on disk for certain, and flushes when Run is
// not there to do it or can't keep up.
func (c *Cache) account(ctx context.Context, n int64) error {
	c.mu.Lock()
	c.unsynced += n
	unsynced, limit := c.unsynced, int64(flushBytes)
	if c.running > 0 {
		limit *= 4
	}
	c.mu.Unlock()
	if unsynced >= limit {
		return c.flushAll(ctx)
	}
	if unsynced >= flushBytes {
		select {
		case c.dirty <- struct{}{}:
		default:
		}
	}
	return nil
}

// flushAll journals every piece that was held when it began.
func (c *Cache) flushAll(ctx context.Context) error {
	c.mu.Lock()
	c.unsynced = 0
	all := make([]*partial, 0, len(c.partials))
	for _, p := range c.partials {
		if p.journalled() {
			all = append(all, p)
		}
	}
	c.mu.Unlock()
	var errs []error
	for _, p := range all {
		errs = append(errs, c.flush(ctx, p))
	}
	return errors.Join(errs...)
}

// flush syncs the data of one blob and then journals what that made certain.
// When the data sync fails those pieces are not held any more.
func (c *Cache) flush(ctx context.Context, p *partial) error {
	if err := acquire(ctx, p.flushing); err != nil {
		return err
	}
	defer func() { <-p.flushing }()
	hashed := p.hashState() // before the pieces are taken, so that it covers no other
	batch, h := p.takeUnsynced()
	if len(batch) == 0 {
		return nil
	}
	if err := h.file.SyncData(); err != nil {
		h.release()
		c.takeBack(p, batch)
		return c.diskError(0, err, "sync pieces of %s", p.blob)
	}
	if err := c.journal(p, batch, hashed); err != nil {
		p.giveBack(batch, h)
		return c.diskError(int64(len(batch))*recordSize, err, "journal pieces of %s", p.blob)
	}
	h.release()
	return nil
}

// journal appends to the journal. It writes where the last good record ended, so
// a torn attempt is overwritten by the next.
func (c *Cache) journal(p *partial, batch []int, hashed *record) error {
	f, err := c.state.OpenFile(p.journalName(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	slices.Sort(batch)
	out := p.encodeBatch(batch, hashed)
	_, err = f.WriteAt(out, p.journalEnd)
	if err == nil {
		err = f.SyncData()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	p.journalEnd += int64(len(out))
	return nil
}

func (p *partial) encodeBatch(batch []int, hashed *record) []byte {
	_, seed := appendHeader(nil, journalMagic, p.blob, p.nonce)
	out := make([]byte, 0, (len(batch)+1)*recordSize)
	for _, s := range p.statementsOf(batch) {
		out = appendRecord(out, seed, pieceRecord(s))
	}
	if hashed != nil {
		out = appendRecord(out, seed, *hashed)
	}
	return out
}

// statementsOf leaves out what was un-held meanwhile.
func (p *partial) statementsOf(batch []int) []pieces.Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []pieces.Statement
	for _, i := range batch {
		if p.held.Has(i) {
			out = append(out, p.statements[i])
		}
	}
	return out
}

// takeUnsynced returns the pieces to sync and the file that has them, which the
// caller releases. A blob that is over has nothing to sync.
func (p *partial) takeUnsynced() ([]int, *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || len(p.unsynced) == 0 {
		return nil, nil
	}
	batch, h := p.unsynced, p.pin
	p.unsynced, p.pin = nil, nil
	return batch, h
}

// giveBack returns what could not be journalled, and the handle if no other is
// pinned since.
func (p *partial) giveBack(batch []int, h *handle) {
	p.mu.Lock()
	p.unsynced = append(batch, p.unsynced...)
	if p.pin == nil {
		p.pin, h = h, nil
	}
	p.mu.Unlock()
	if h != nil {
		h.release()
	}
}

// synced returns the statements of pieces that are held and not waiting for a sync.
func (p *partial) synced() []pieces.Statement {
	all := p.list()
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(all, func(s pieces.Statement) bool {
		return !p.held.Has(s.Index) || slices.Contains(p.unsynced, s.Index)
	})
}

func (p *partial) isOver() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.over
}
