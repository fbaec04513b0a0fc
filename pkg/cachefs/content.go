package cachefs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"p2pagent/pkg/pieces"
)

// ErrSpoiled tells a reader that a piece which it may have read was taken back: it
// matched its statement, but the blob as a whole was not what its digest says.
var ErrSpoiled = errors.New("a piece that was read turned out wrong")

// runAhead is how many bytes at most Await looks ahead for.
const runAhead = 64 << 20

// Content reads one blob, while it lands or after. It gives out held pieces alone,
// and the last byte only once the blob is whole: nobody gets all of a blob whose
// digest was not compared. It is not safe for concurrent use.
type Content struct {
	cache  *Cache
	blob   pieces.Blob
	source any      // the *partial or *whole that file is of
	file   *os.File // this reader's own, so that it has an offset of its own
	taken  int      // pieces of source that were taken back when it was opened
}

// Content returns a reader of b, which may be partial, whole, or not begun yet.
// The caller closes it.
func (c *Cache) Content(b pieces.Blob) *Content { return &Content{cache: c, blob: b} }

// Await waits until the byte at off can be read, and returns how many there are
// in a row from there on: at least one, at most 64 MiB. It fails with the cause
// of ctx's end, or with ErrSpoiled.
func (r *Content) Await(ctx context.Context, off int64) (int64, error) {
	if off < 0 || off >= r.blob.Size {
		return 0, fmt.Errorf("read %s at %d of %d: no such byte", r.blob, off, r.blob.Size)
	}
	for {
		rung, leave := r.cache.bells.listen(r.blob)
		n, err := r.ready(off)
		if n == 0 && err == nil {
			select {
			case <-rung:
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		leave()
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// ready is Await without waiting: 0 when the byte is not here.
func (r *Content) ready(off int64) (int64, error) {
	if p := r.cache.partial(r.blob); p != nil {
		return r.readyPartial(p, off)
	}
	w := r.cache.findWhole(r.blob)
	if w == nil {
		return 0, nil
	}
	if r.source != any(w) {
		file, err := r.cache.openShown(w)
		if err != nil {
			return 0, nil // removed since; it may come again
		}
		if err := r.turn(w, file, 0); err != nil {
			return 0, err
		}
	}
	return min(r.blob.Size-off, runAhead), nil
}

func (r *Content) readyPartial(p *partial, off int64) (int64, error) {
	n, taken := p.run(off)
	if n == 0 {
		return 0, nil
	}
	if r.source != any(p) {
		file, err := r.cache.state.Open(p.dataName())
		if errors.Is(err, os.ErrNotExist) {
			return 0, nil // it has just become whole: the bell rings
		}
		if err != nil {
			return 0, err
		}
		return n, r.turn(p, file, taken)
	}
	if taken != r.taken {
		return 0, fmt.Errorf("read %s: %w", r.blob, ErrSpoiled)
	}
	return n, nil
}

// turn goes on reading from another file. What was read of a partial blob of which
// pieces were taken back since is spoiled, whatever it became.
func (r *Content) turn(source any, file *os.File, taken int) error {
	if p, ok := r.source.(*partial); ok && p.takenBack() != r.taken {
		file.Close()
		return fmt.Errorf("read %s: %w", r.blob, ErrSpoiled)
	}
	r.Close()
	r.source, r.file, r.taken = source, file, taken
	return nil
}

// ReadAt reads bytes that Await has promised.
func (r *Content) ReadAt(b []byte, off int64) (int, error) {
	if r.file == nil {
		return 0, fmt.Errorf("read %s at %d: %w", r.blob, off, ErrNotHeld)
	}
	return r.file.ReadAt(b, off)
}

// Whole returns the file of a blob that is whole, for reading from its begin, and
// nil while it is not. The file is closed with the Content.
func (r *Content) Whole() *os.File {
	if r.cache.partial(r.blob) != nil || r.blob.Size == 0 {
		return nil
	}
	if n, err := r.ready(0); n == 0 || err != nil {
		return nil
	}
	return r.file
}

// Close gives the file back. The Content may be used again.
func (r *Content) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.source = nil, nil
	return err
}

// openShown opens the file of a whole blob anew.
func (c *Cache) openShown(w *whole) (*os.File, error) {
	for _, p := range w.places {
		f, err := c.hub.OpenRegular(p.name)
		if err != nil {
			continue
		}
		if info, err := f.Stat(); err == nil && stampOf(info) == p.stamp {
			return f, nil
		}
		f.Close()
	}
	return nil, ErrNotHeld
}

// run returns how many bytes from off on are held in a row, the last one of the
// blob left out, and how many pieces were taken back so far.
func (p *partial) run(off int64) (n int64, taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := off
	for i := int(off / p.blob.PieceSize()); p.held.Has(i) && end-off < runAhead; i++ {
		at, length := p.blob.Piece(i)
		end = at + length
	}
	return max(0, min(end, p.blob.Size-1)-off), p.taken
}

func (p *partial) takenBack() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
