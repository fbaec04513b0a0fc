package cachefs

import (
	"context"
	"fmt"
	"slices"

	"p2pagent/pkg/pieces"
)

// whole is a blob whose digest was found right, and where. It never changes;
// another value takes its place.
type whole struct {
	blob   pieces.Blob
	places []place
}

// is tells whether the blob lies untouched in a place that fits.
func (c *Cache) is(w *whole, fits func(place) bool) bool {
	return w != nil && slices.ContainsFunc(w.places, func(p place) bool { return fits(p) && c.inPlace(p) })
}

// isAt is is for the very name.
func (c *Cache) isAt(w *whole, name string) bool {
	return c.is(w, func(p place) bool { return p.name == name })
}

// others returns the places of a blob, but for name, in which it still lies.
func (c *Cache) others(w *whole, name string) []place {
	return slices.DeleteFunc(slices.Clone(w.places), func(p place) bool { return p.name == name || !c.inPlace(p) })
}

// findWhole returns what is known of a blob that is whole and still in one of its
// places, or nil. A blob that somebody replaced or removed is withdrawn here.
func (c *Cache) findWhole(b pieces.Blob) *whole {
	w := c.recallWhole(b)
	if w == nil {
		return nil
	}
	if c.is(w, func(place) bool { return true }) {
		return w
	}
	c.withdraw(w, "somebody removed or changed it")
	return nil
}

// recallWhole returns what memory or the proof file says.
func (c *Cache) recallWhole(b pieces.Blob) *whole {
	c.mu.Lock()
	w, known := c.wholes[b], c.proofs[b.Digest]
	c.mu.Unlock()
	if w != nil || !known {
		return w
	}
	p, err := c.readProof(b)
	if err != nil {
		c.log.Warn("proof not readable; the blob must be hashed again", "blob", b.String(), "err", err)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.proofs, b.Digest)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wholes[b] == nil && c.proofs[b.Digest] {
		c.wholes[b] = &whole{blob: b, places: p.places}
	}
	return c.wholes[b]
}

func (c *Cache) readProof(b pieces.Blob) (*proof, error) {
	raw, err := c.state.ReadFile(proofName(b.Digest), maxJournalBytes)
	if err != nil {
		return nil, err
	}
	p, err := parseProof(raw)
	if err != nil {
		return nil, err
	}
	if p.blob != b {
		return nil, fmt.Errorf("it is about %d bytes, not %d: %w", p.blob.Size, b.Size, errProof)
	}
	c.shown.keep(b, p.statements)
	return p, nil
}

// statements returns the proofs of a whole blob's pieces, nil when they can't be
// read. The slice is shared: the caller must not change it.
func (c *Cache) statements(w *whole) []pieces.Statement {
	if list, ok := c.shown.get(w.blob); ok {
		return list
	}
	p, err := c.readProof(w.blob)
	if err != nil {
		c.withdraw(w, "its proof is not readable: "+err.Error())
		return nil
	}
	return p.statements
}

// inPlace tells whether the file that was found right is still there, untouched.
func (c *Cache) inPlace(p place) bool {
	info, err := c.hub.Stat(p.name)
	return err == nil && info.Mode().IsRegular() && stampOf(info) == p.stamp
}

// prove notes that a blob is whole in one more place. Statements that are known
// already stay: their makers answer for them.
func (c *Cache) prove(ctx context.Context, b pieces.Blob, at place, statements []pieces.Statement) (*whole, error) {
	proving := c.provingOf(b)
	if err := acquire(ctx, proving); err != nil {
		return nil, err
	}
	defer func() { <-proving }()
	places := []place{at}
	old := c.findWhole(b)
	if old != nil {
		if known := c.statements(old); known != nil || b.Pieces() == 0 {
			places, statements = append(c.others(old, at.name), at), known
		}
	}
	if err := c.writeProof(&proof{blob: b, places: places, statements: statements}); err != nil {
		return nil, err
	}
	w := &whole{blob: b, places: places}
	c.mu.Lock()
	c.wholes[b] = w
	c.mu.Unlock()
	c.bells.ring(b)
	if old != nil {
		c.handles.forget(old)
	}
	return w, nil
}

// writeProof writes the file. It may be lost in a power cut, see proof.
func (c *Cache) writeProof(p *proof) error {
	if err := c.stage.WriteHint(c.state, proofName(p.blob.Digest), p.encode(), 0o600); err != nil {
		return err
	}
	c.shown.keep(p.blob, p.statements)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proofs[p.blob.Digest] = true
	return nil
}

// withdraw ends the offering of a blob.
func (c *Cache) withdraw(w *whole, why string) {
	c.mu.Lock()
	current := c.wholes[w.blob] == w
	if current {
		delete(c.wholes, w.blob)
		delete(c.proofs, w.blob.Digest)
	}
	c.mu.Unlock()
	if !current {
		return
	}
	c.log.Info("blob not offered any more", "blob", w.blob.String(), "why", why)
	c.shown.drop(w.blob)
	c.handles.forget(w)
	if err := c.state.Remove(proofName(w.blob.Digest)); err != nil {
		c.log.Warn("can't remove a proof", "err", err)
	}
}
