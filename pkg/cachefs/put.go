package cachefs

import (
	"context"
	"errors"

	"p2pagent/pkg/pieces"
)

// writeStep is how much is handed to the kernel at once: long enough that calls
// don't count, short enough that a cancelled Put ends soon.
const writeStep = 1 << 20

// Put writes a piece of a blob that was begun. When it returns nil the piece is
// held: it can be read and offered. It survives a crash only once it is in the
// journal (see Run); of a blob of one piece, once Complete returned. A piece that
// is held already is not written again. Put keeps nothing of v.
//
// It fails with ErrNotBegun, a *NoSpaceError or the disk's error. When it had to
// write down other pieces and could not, that is an error too.
func (c *Cache) Put(ctx context.Context, v pieces.Verified) error {
	n := int64(len(v.Bytes()))
	err := c.put(ctx, v)
	if err == nil {
		err = c.account(ctx, n)
	}
	return c.diskError(n, err, "put piece %d of %s", v.Index(), v.Blob())
}

func (c *Cache) put(ctx context.Context, v pieces.Verified) error {
	for {
		p, err := c.writable(v.Blob())
		if p == nil {
			return err
		}
		claimed, err := p.claim(ctx, v.Index())
		if errors.Is(err, errOver) {
			continue // it became whole, or was abandoned and perhaps begun again
		}
		if err != nil || !claimed {
			return err
		}
		if err := c.store(ctx, p, v); err != nil {
			return err
		}
		c.hashNext(p, v)
		return nil
	}
}

// writable returns the partial blob, or nil without an error when it is whole.
func (c *Cache) writable(b pieces.Blob) (*partial, error) {
	if err := c.usable(); err != nil {
		return nil, err
	}
	if p := c.partial(b); p != nil {
		return p, nil
	}
	if c.findWhole(b) != nil {
		return nil, nil
	}
	return nil, ErrNotBegun
}

// store writes the bytes and settles the claim, whatever happens.
func (c *Cache) store(ctx context.Context, p *partial, v pieces.Verified) error {
	h, err := c.openData(p, p.createFlag())
	if err == nil {
		err = write(ctx, h, v)
	}
	if h := p.settle(v.Statement(), h, err); h != nil {
		h.release()
	}
	if err == nil {
		c.bells.ring(p.blob)
	}
	return err
}

func write(ctx context.Context, h *handle, v pieces.Verified) error {
	data, off := v.Bytes(), v.Offset()
	for len(data) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := h.file.WriteAt(data[:min(writeStep, len(data))], off)
		if err != nil {
			return err
		}
		data, off = data[n:], off+int64(n)
	}
	return nil
}

// Forget un-holds those pieces of a partial blob for whose statements drop
// returns true, after a digest mismatch; they must be Put again. When it returns
// nil the journal knows. Of a blob that is whole nothing is forgotten: its digest
// was right, whoever made the statements.
func (c *Cache) Forget(b pieces.Blob, drop func(pieces.Statement) bool) error {
	p := c.partial(b)
	if p == nil {
		return nil
	}
	return c.diskError(0, c.forget(p, drop), "forget pieces of %s", b)
}

func (c *Cache) forget(p *partial, drop func(pieces.Statement) bool) error {
	p.flushing <- struct{}{} // held for one flush at a time
	defer func() { <-p.flushing }()
	var gone []int
	for _, s := range p.list() {
		if drop(s) {
			gone = append(gone, s.Index)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	c.takeBack(p, gone)
	c.bells.ring(p.blob) // readers must hear of it
	if !p.journalled() || p.isOver() {
		return nil
	}
	return c.rewriteJournal(p)
}

// takeBack un-holds pieces, whose bytes may have been read.
func (c *Cache) takeBack(p *partial, indexes []int) {
	p.drop(indexes)
	c.takenBack.Add(uint64(len(indexes)))
}

// TakenBack counts the pieces, of all blobs, that were held and are not any more
// because they were wrong or could not be synced. Who reads a blob by one Content
// learns it from there; who reads it in parts compares this.
func (c *Cache) TakenBack() uint64 { return c.takenBack.Load() }

// rewriteJournal replaces the journal by one of the pieces that are held and
// synced. The caller holds p.flushing.
func (c *Cache) rewriteJournal(p *partial) error {
	raw := encodeJournal(p.blob, p.nonce, p.synced())
	if err := c.stage.WriteFile(c.state, p.journalName(), raw, 0o600); err != nil {
		return err
	}
	p.journalEnd = int64(len(raw))
	return nil
}
