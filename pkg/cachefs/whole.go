package cachefs

import (
	"fmt"
	"sync"

	"p2pagent/pkg/pieces"
)

// whole is a blob whose digest was found right, and where. It never changes; a
// new one takes its place.
type whole struct {
	blob   pieces.Blob
	places []place
}

// findWhole returns what is known of a blob that is whole and still in one of its
// places, or nil. A blob that somebody replaced or removed is forgotten here.
func (c *Cache) findWhole(b pieces.Blob) *whole {
	w := c.recallWhole(b)
	if w == nil {
		return nil
	}
	for _, p := range w.places {
		if c.inPlace(b, p) {
			return w
		}
	}
	c.withdraw(w)
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
	w, statements, err := c.readProof(b)
	if err != nil {
		c.log.Warn("proof not readable; the blob must be hashed again", "blob", b.String(), "err", err)
		c.mu.Lock()
		delete(c.proofs, b.Digest)
		c.mu.Unlock()
		return nil
	}
	c.shown.keep(b, statements)
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.wholes[b]; now != nil {
		return now
	}
	c.wholes[b] = w
	return w
}

func (c *Cache) readProof(b pieces.Blob) (*whole, []pieces.Statement, error) {
	raw, err := c.state.ReadFile(proofName(b.Digest))
	if err != nil {
		return nil, nil, err
	}
	proven, places, statements, err := parseProof(raw)
	if err == nil && proven != b {
		err = fmt.Errorf("it is about %d bytes, not %d: %w", proven.Size, b.Size, errProof)
	}
	return &whole{blob: proven, places: places}, statements, err
}

// inPlace tells whether the file that was found right is still there, untouched.
func (c *Cache) inPlace(b pieces.Blob, p place) bool {
	info, err := c.hub.Stat(blobName(p.folder, b.Digest))
	return err == nil && info.Mode().IsRegular() && stampOf(info) == p.stamp
}

// prove writes the proof file and remembers the blob as whole.
func (c *Cache) prove(b pieces.Blob, places []place, statements []pieces.Statement) error {
	if err := c.writeProof(b, places, statements); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wholes[b] = &whole{blob: b, places: places}
	return nil
}

func (c *Cache) writeProof(b pieces.Blob, places []place, statements []pieces.Statement) error {
	err := c.stage.WriteFileNoSync(c.state, proofName(b.Digest), encodeProof(b, places, statements), 0o600, false)
	if err != nil {
		return err
	}
	c.shown.keep(b, statements)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proofs[b.Digest] = true
	return nil
}

// withdraw forgets a blob that is not in any of its places any more.
func (c *Cache) withdraw(w *whole) {
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
	c.log.Warn("a blob was removed or changed by somebody; not offering it any more", "blob", w.blob.String())
	c.shown.drop(w.blob)
	c.handles.forget(w.blob)
	if err := c.state.Remove(proofName(w.blob.Digest)); err != nil {
		c.log.Warn("can't remove a proof", "err", err)
	}
}

// statementCache keeps the statements of the whole blobs that were asked for
// last; the others are read from their proofs again. A blob has up to some
// thousand statements of 180 bytes, so all of a large cache would be too much.
type statementCache struct {
	mu    sync.Mutex
	order []pieces.Blob // least recently used first
	known map[pieces.Blob][]pieces.Statement
}

const shownBlobs = 32

func (s *statementCache) keep(b pieces.Blob, statements []pieces.Statement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(b)
	if s.known == nil {
		s.known = map[pieces.Blob][]pieces.Statement{}
	}
	s.known[b] = statements
	s.order = append(s.order, b)
	if len(s.order) > shownBlobs {
		s.forget(s.order[0])
	}
}

func (s *statementCache) drop(b pieces.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(b)
}

func (s *statementCache) forget(b pieces.Blob) {
	delete(s.known, b)
	for i, other := range s.order {
		if other == b {
			s.order = append(s.order[:i:i], s.order[i+1:]...)
			return
		}
	}
}

func (s *statementCache) get(b pieces.Blob) ([]pieces.Statement, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.known[b]
	return list, ok
}
