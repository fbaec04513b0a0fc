package cachefs

import (
	"context"
	"io"
	"sync"

	"p2pagent/pkg/pieces"
)

// The digest of a blob runs along while its pieces come in, so that Complete
// finds little left to hash and nothing is read back from a cold disk. A piece
// that is next in order is hashed by its Put, from memory; those that came early
// are read back, still warm, by Run.

// nextToHash returns the piece that extends the running digest, if it is held.
// The caller holds p.hashing.
func (p *partial) nextToHash() (index int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stale {
		p.sum, p.hashed, p.stale = p.blob.NewHash(), 0, false
	}
	return p.hashed, p.held.Has(p.hashed)
}

// wasHashed counts a piece that was fed to the running digest.
func (p *partial) wasHashed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashed++
}

// hashNext feeds a piece that was just stored, if it is its turn, and wakes Run
// when pieces behind it are held too.
func (c *Cache) hashNext(p *partial, v pieces.Verified) {
	select {
	case p.hashing <- struct{}{}:
	default:
		return // whoever holds it goes on to this piece
	}
	if next, ok := p.nextToHash(); ok && next == v.Index() {
		p.sum.Write(v.Bytes())
		p.wasHashed()
	}
	_, more := p.nextToHash()
	<-p.hashing
	if more {
		select {
		case c.warm <- p:
		default: // Complete does what is left
		}
	}
}

var hashBuffers = sync.Pool{New: func() any { return new([1 << 20]byte) }}

// extend feeds held pieces to the running digest until the next one is missing.
// The caller holds p.hashing.
func (p *partial) extend(ctx context.Context, r io.ReaderAt) error {
	for {
		next, ok := p.nextToHash()
		if !ok {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		off, n := p.blob.Piece(next)
		buf := hashBuffers.Get().(*[1 << 20]byte)
		m, err := io.CopyBuffer(onlyWriter{p.sum}, onlyReader{io.NewSectionReader(r, off, n)}, buf[:])
		hashBuffers.Put(buf)
		if err == nil && m < n {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			p.spoilHash()
			return err
		}
		p.wasHashed()
	}
}

// spoilHash starts the running digest again: it swallowed a part of a piece.
func (p *partial) spoilHash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
}

// onlyWriter and onlyReader keep io.CopyBuffer from going around the buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)

// hashWarm is what Run's hashing goroutines do.
func (c *Cache) hashWarm(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-c.warm:
			if acquire(ctx, p.hashing) != nil {
				return nil
			}
			err := c.extendFile(ctx, p)
			<-p.hashing
			if err != nil && ctx.Err() == nil {
				c.log.Warn("can't read back a partial blob", "blob", p.blob.String(), "err", err)
			}
		}
	}
}

func (c *Cache) extendFile(ctx context.Context, p *partial) error {
	if p.blob.Size == 0 {
		return nil
	}
	h, err := c.openData(p)
	if err != nil {
		return err
	}
	defer c.handles.put(h)
	return p.extend(ctx, h.file)
}
