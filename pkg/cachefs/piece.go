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
// nothing is known of the blob. For a whole blob it looks at the file's state.
func (c *Cache) Held(b pieces.Blob) *pieces.Set {
	if p := c.partial(b); p != nil {
		return p.copyHeld()
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
	return slices.Clone(c.statements(w))
}

// OpenPiece returns the bytes of a held piece, to be closed by the caller; the
// reader is an io.WriterTo, an io.ReaderAt and an io.Seeker too. It fails with ErrNotHeld when the piece is not
// held, or not any more: who removes or changes a blob in the cache ends its
// being offered.
func (c *Cache) OpenPiece(b pieces.Blob, index int) (io.ReadCloser, error) {
	if index < 0 || index >= b.Pieces() {
		return nil, fmt.Errorf("open piece %d of %s: %w", index, b, ErrNotHeld)
	}
	h, err := c.openPiece(b, index)
	if err != nil {
		return nil, fmt.Errorf("open piece %d of %s: %w", index, b, err)
	}
	off, n := b.Piece(index)
	return &pieceReader{section: io.NewSectionReader(h.file, off, n), handle: h}, nil
}

func (c *Cache) openPiece(b pieces.Blob, index int) (*handle, error) {
	if p := c.partial(b); p != nil {
		if !p.holds(index) {
			return nil, ErrNotHeld
		}
		h, err := c.openData(p, 0)
		if err == nil || c.partial(b) == p {
			return h, err
		}
		// It became whole, or was abandoned, between the two looks.
	}
	w := c.findWhole(b)
	if w == nil {
		return nil, ErrNotHeld
	}
	h, err := c.openWhole(w)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotHeld, err)
	}
	return h, nil
}

// openWhole opens the blob in the first of its places that is still as it was.
func (c *Cache) openWhole(w *whole) (*handle, error) {
	return c.handles.get(w, func() (*durable.File, error) {
		reason := os.ErrNotExist
		for _, p := range w.places {
			f, err := c.hub.OpenFound(p.name)
			if err != nil {
				reason = err
				continue
			}
			if info, err := f.Stat(); err == nil && stampOf(info) == p.stamp {
				return f, nil
			}
			f.Close()
		}
		return nil, reason
	})
}

// pieceReader reads one piece from a file that others read too.
type pieceReader struct {
	section *io.SectionReader
	handle  *handle
	closed  atomic.Bool
}

func (r *pieceReader) Read(p []byte) (int, error) { return r.section.Read(p) }

func (r *pieceReader) Seek(off int64, whence int) (int64, error) { return r.section.Seek(off, whence) }

func (r *pieceReader) ReadAt(p []byte, off int64) (int, error) { return r.section.ReadAt(p, off) }

// copyBuffers are as long as a good write to a stream.
var copyBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

func (r *pieceReader) WriteTo(w io.Writer) (int64, error) {
	buf := copyBuffers.Get().(*[256 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{w}, onlyReader{r.section}, buf[:])
}

func (r *pieceReader) Close() error {
	if !r.closed.Swap(true) {
		r.handle.release()
	}
	return nil
}
