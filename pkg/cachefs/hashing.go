package cachefs

import (
	"context"
	"encoding"
	"io"

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
	return p.hashed, p.held.Has(p.hashed) && !p.over
}

// advance takes the running digest over a held piece without reading it, if the
// piece was hashed from this very border on when it was verified. The caller
// holds p.hashing.
func (p *partial) advance(index int) bool {
	p.mu.Lock()
	st := p.statements[index]
	p.mu.Unlock()
	return st.Advance(p.sum)
}

// border returns the border before a piece, if it is known here: out of the
// statement on the piece before, or because the running digest is there.
func (p *partial) border(index int) (pieces.Border, bool) {
	p.mu.Lock()
	st, held := p.statements[index-1], p.held.Has(index-1)
	p.mu.Unlock()
	if held && st.Bordered() {
		return st.After, true
	}
	select {
	case p.hashing <- struct{}{}:
	default:
		return pieces.Border{}, false
	}
	defer func() { <-p.hashing }()
	offset, _ := p.blob.Piece(index)
	return pieces.BorderAt(p.sum, offset)
}

// Border returns the state of the blob's digest before a piece, if this member
// knows it or has been told: who cuts the piece passes it on in its statement.
func (c *Cache) Border(b pieces.Blob, index int) (pieces.Border, bool) {
	if index == 0 {
		return pieces.FirstBorder(), true
	}
	if p := c.partial(b); p != nil {
		return p.border(index)
	}
	return pieces.Border{}, false
}

// wasHashed counts a piece that was fed to the running digest.
func (p *partial) wasHashed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hashed++
}

// spoilHash starts the running digest again: it swallowed a part of a piece.
func (p *partial) spoilHash() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
}

// resumeHash goes on from a state that the journal kept, if every piece that it
// covers is held.
func (p *partial) resumeHash(hashed int, state []byte) {
	for i := range hashed {
		if !p.held.Has(i) {
			return
		}
	}
	if len(state) == 0 || p.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state) != nil {
		p.sum = p.blob.NewHash()
		return
	}
	p.hashed = hashed
}

// hashState returns the running digest for the journal, or nil when there is none
// or somebody is at it: the next flush will do.
func (p *partial) hashState() *record {
	select {
	case p.hashing <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-p.hashing }()
	hashed, _ := p.nextToHash()
	state, err := p.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if hashed == 0 || err != nil {
		return nil
	}
	if r, ok := digestRecord(hashed, state); ok {
		return &r
	}
	return nil
}

// hashNext feeds a piece that was just stored, if it is its turn, and wakes Run
// when there is more to do.
func (c *Cache) hashNext(p *partial, v pieces.Verified) {
	select {
	case p.hashing <- struct{}{}:
	default:
		c.warmUp(p) // whoever is at it may have stopped short of this piece
		return
	}
	if next, ok := p.nextToHash(); ok && next == v.Index() {
		if st := v.Statement(); !st.Advance(p.sum) {
			p.sum.Write(v.Bytes())
		}
		p.wasHashed()
	}
	_, more := p.nextToHash()
	<-p.hashing
	if more {
		c.warmUp(p)
	}
}

func (c *Cache) warmUp(p *partial) {
	select {
	case c.warm <- p:
	default: // Complete does what is left
	}
}

// extend feeds held pieces to the running digest until the next one is missing.
// The caller holds p.hashing.
func (p *partial) extend(ctx context.Context, r io.ReaderAt) error {
	buf := hashBuffers.Get().(*[readStep]byte)
	defer hashBuffers.Put(buf)
	for {
		next, ok := p.nextToHash()
		if !ok {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !p.advance(next) {
			off, n := p.blob.Piece(next)
			if err := feed(p.sum, r, off, n, buf[:]); err != nil {
				p.spoilHash()
				return err
			}
		}
		p.wasHashed()
	}
}

// hashWarm is what each of Run's hashing goroutines does.
func (c *Cache) hashWarm(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case p := <-c.warm:
			if err := c.extendFile(ctx, p); err != nil && ctx.Err() == nil {
				c.log.Warn("can't read back a partial blob", "blob", p.blob.String(), "err", err)
			}
		}
	}
}

// extendFile takes p.hashing and hashes as far as pieces are held.
func (c *Cache) extendFile(ctx context.Context, p *partial) error {
	if err := acquire(ctx, p.hashing); err != nil {
		return err
	}
	defer func() { <-p.hashing }()
	if _, ok := p.nextToHash(); !ok {
		return nil
	}
	h, err := c.openData(p, 0)
	if err != nil {
		return err
	}
	defer h.release()
	return p.extend(ctx, h.file)
}
