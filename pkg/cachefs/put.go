package cachefs

import (
	"context"
	"fmt"

	"p2pagent/pkg/pieces"
)

// writeStep is how much is handed to the kernel at once: long enough that calls
// don't count, short enough that a cancelled Put ends soon.
const writeStep = 1 << 20

// Put writes a piece of a blob that was begun. When it returns nil the piece is
// held: it can be read and offered. It survives a crash of the process only
// after the next flush (see Run). A piece that is held already is not written
// again. Put keeps nothing of v.
//
// It fails with ErrNotBegun, with a *NoSpaceError, or with the disk's error; the
// piece is not held then.
func (c *Cache) Put(ctx context.Context, v pieces.Verified) error {
	b, index := v.Blob(), v.Index()
	if err := c.usable(); err != nil {
		return fmt.Errorf("put piece %d of %s: %w", index, b, err)
	}
	p := c.partial(b)
	if p == nil {
		if c.findWhole(b) != nil {
			return nil
		}
		return fmt.Errorf("put piece %d of %s: %w", index, b, ErrNotBegun)
	}
	claimed, err := p.claim(ctx, index)
	if err != nil || !claimed {
		return err
	}
	if err := c.store(ctx, p, v); err != nil {
		return c.diskError(fmt.Sprintf("put piece %d of", index), b, int64(len(v.Bytes())), err)
	}
	c.hashNext(p, v)
	return c.account(ctx, int64(len(v.Bytes())))
}

// store writes the bytes and settles the claim, whatever happens.
func (c *Cache) store(ctx context.Context, p *partial, v pieces.Verified) error {
	h, err := c.openData(p)
	if err == nil {
		err = write(ctx, h, v)
	}
	if kept := p.settle(v.Statement(), h, err); !kept && h != nil {
		c.handles.put(h)
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
