package cachefs

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// Held returns a copy of the set of pieces that can be opened now, or nil when
// nothing is known of the blob.
func (c *Cache) Held(b pieces.Blob) *pieces.Set {
	if p := c.partial(b); p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.held.Clone()
	}
	if c.findWhole(b) != nil {
		return pieces.FullSet(b.Pieces())
	}
	return nil
}

// Statements returns the proofs of held pieces, ascending. The slice belongs to
// the caller.
func (c *Cache) Statements(b pieces.Blob) []pieces.Statement {
	if p := c.partial(b); p != nil {
		return p.list()
	}
	w := c.findWhole(b)
	if w == nil {
		return nil
	}
	if list, ok := c.shown.get(b); ok {
		return slices.Clone(list)
	}
	_, list, err := c.readProof(b)
	if err != nil {
		c.withdraw(w)
		return nil
	}
	c.shown.keep(b, list)
	return slices.Clone(list)
}

// OpenPiece returns the bytes of a held piece, to be closed by the caller; the
// reader is an io.WriterTo too. It fails with ErrNotHeld when the piece is not
// held, or not any more: who removes or changes a blob in the cache ends its
// being offered.
func (c *Cache) OpenPiece(b pieces.Blob, index int) (io.ReadCloser, error) {
	if index < 0 || index >= b.Pieces() {
		return nil, notHeld(b, index)
	}
	h, err := c.openPiece(b, index)
	if err != nil {
		return nil, err
	}
	off, n := b.Piece(index)
	return &pieceReader{section: io.NewSectionReader(h.file, off, n), done: func() { c.handles.put(h) }}, nil
}

func (c *Cache) openPiece(b pieces.Blob, index int) (*handle, error) {
	if p := c.partial(b); p != nil {
		if !p.holds(index) {
			return nil, notHeld(b, index)
		}
		h, err := c.openData(p)
		if err != nil {
			return nil, fmt.Errorf("open piece %d of %s: %w", index, b, err)
		}
		return h, nil
	}
	w := c.findWhole(b)
	if w == nil {
		return nil, notHeld(b, index)
	}
	h, err := c.openWhole(w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", notHeld(b, index), err)
	}
	return h, nil
}

// openWhole opens the blob in the first of its places that still is as it was.
func (c *Cache) openWhole(w *whole) (*handle, error) {
	return c.handles.get(w.blob, func() (*durable.File, error) {
		err := os.ErrNotExist
		for _, p := range w.places {
			f, openErr := c.hub.OpenFile(blobName(p.folder, w.blob.Digest), os.O_RDONLY, 0)
			if openErr != nil {
				err = openErr
				continue
			}
			if info, statErr := f.Stat(); statErr == nil && stampOf(info) == p.stamp {
				return f, nil
			}
			f.Close()
		}
		return nil, err
	})
}

// pieceReader reads one piece from a file that others read too.
type pieceReader struct {
	section *io.SectionReader
	done    func()
	closed  atomic.Bool
}

func (r *pieceReader) Read(p []byte) (int, error) { return r.section.Read(p) }

// copyBuffers are as long as a good write to a stream.
var copyBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (r *pieceReader) WriteTo(w io.Writer) (int64, error) {
	buf := copyBuffers.Get().(*[256 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{w}, onlyReader{r.section}, buf[:])
}

func (r *pieceReader) Close() error {
	if !r.closed.Swap(true) {
		r.done()
	}
	return nil
}
