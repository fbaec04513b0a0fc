package cachefs

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"p2pagent/pkg/pieces"
)

// A flush costs a sync of the data and one of the journal. So that these don't
// count, many pieces share one: about a second of a fast disk, or what arrived
// in two seconds on a slow link. It is also what a crash costs.
const (
	flushBytes = 64 << 20
	flushEvery = 2 * time.Second

	hashers = 2 // goroutines that read partial blobs back: each is a core
)

// Run writes down in the background what was Put, and hashes pieces that came
// out of order. It returns nil when ctx ends, and the error when a sync failed:
// then nothing can be written any more and the process should start anew. Without
// Run everything works, later: Put flushes by itself now and then, and Complete
// has more to hash.
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
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.dirty:
		}
		if err := c.flushAll(ctx); err != nil && ctx.Err() == nil {
			if failed := c.usable(); failed != nil {
				return failed
			}
			c.log.Warn("could not write down pieces", "err", err)
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
		all = append(all, p)
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
	if !p.journalled() {
		return nil
	}
	if err := acquire(ctx, p.flushing); err != nil {
		return err
	}
	defer func() { <-p.flushing }()
	batch, h := p.takeUnsynced()
	if len(batch) == 0 {
		return nil
	}
	err := h.file.SyncData()
	c.handles.put(h)
	if err != nil {
		p.drop(batch)
		return c.diskError("sync pieces of", p.blob, 0, err)
	}
	if err := c.record(p, batch); err != nil {
		p.giveBack(batch, nil)
		return c.diskError("journal pieces of", p.blob, int64(len(batch))*recordSize, err)
	}
	return nil
}

func (p *partial) takeUnsynced() ([]int, *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch, h := p.unsynced, p.pin
	p.unsynced, p.pin = nil, nil
	return batch, h
}

func (p *partial) giveBack(batch []int, h *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsynced = append(batch, p.unsynced...)
}

// record appends to the journal. It writes where the last good record ended, so
// a torn attempt is overwritten by the next.
func (c *Cache) record(p *partial, batch []int) error {
	f, err := c.state.OpenFile(journalName(p.blob), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	slices.Sort(batch)
	out := encodeRecords(p, batch)
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

func encodeRecords(p *partial, batch []int) []byte {
	seed := headerSeed(p.blob)
	out := make([]byte, 0, len(batch)*recordSize)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range batch {
		if p.held.Has(i) {
			out = appendRecord(out, seed, p.statements[i])
		}
	}
	return out
}

func headerSeed(b pieces.Blob) uint32 {
	return binary.LittleEndian.Uint32(appendHeader(nil, journalMagic, b)[60:])
}

// Forget un-holds those pieces of a partial blob for whose statements drop
// returns true; their bytes stay on disk until they are Put again. What remains
// is journalled when Forget returns nil. Of a blob that is whole nothing is
// forgotten: its digest was right.
func (c *Cache) Forget(b pieces.Blob, drop func(pieces.Statement) bool) error {
	p := c.partial(b)
	if p == nil {
		return nil
	}
	ctx := context.Background()
	if err := c.flush(ctx, p); err != nil {
		return err
	}
	if err := acquire(ctx, p.flushing); err != nil {
		return err
	}
	defer func() { <-p.flushing }()
	var gone []int
	for _, s := range p.list() {
		if drop(s) {
			gone = append(gone, s.Index)
		}
	}
	p.drop(gone)
	if len(gone) == 0 || !p.journalled() {
		return nil
	}
	return c.diskError("forget pieces of", b, 0, c.rewriteJournal(p))
}

// rewriteJournal replaces the journal by one of the held pieces that are synced.
// The caller holds p.flushing.
func (c *Cache) rewriteJournal(p *partial) error {
	p.mu.Lock()
	skip := map[int]bool{}
	for _, i := range p.unsynced {
		skip[i] = true
	}
	p.mu.Unlock()
	keep := slices.DeleteFunc(p.list(), func(s pieces.Statement) bool { return skip[s.Index] })
	raw := encodeJournal(p.blob, keep)
	if err := c.stage.WriteFile(c.state, journalName(p.blob), raw, 0o600); err != nil {
		return err
	}
	p.journalEnd = int64(len(raw))
	return nil
}
