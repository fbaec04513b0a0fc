package cachefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"p2pagent/pkg/pieces"
)

// readStep is how much is read before it is hashed: it stays in a core's cache
// from one hash to the next.
const readStep = 256 << 10

var hashBuffers = sync.Pool{New: func() any { return new([readStep]byte) }}

// scan reads a blob, shows it chunk by chunk, and compares its digest. Errors wrap
// pieces.ErrDigest when it is not what its name says.
func scan(ctx context.Context, r io.ReaderAt, b pieces.Blob, show func(off int64, chunk []byte) error) error {
	buf := hashBuffers.Get().(*[readStep]byte)
	defer hashBuffers.Put(buf)
	sum := b.NewHash()
	for off := int64(0); off < b.Size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.ReadAt(buf[:min(readStep, b.Size-off)], off)
		if n == 0 {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		sum.Write(buf[:n])
		if err := show(off, buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return b.Check(sum)
}

// hashPieces returns the marks of the pieces and feeds the whole digest in the same
// pass. Of b only the size counts: its digest may be what is to be found out.
func (c *Cache) hashPieces(ctx context.Context, r io.ReaderAt, b pieces.Blob, name string, digest hash.Hash) ([]pieces.Mark, error) {
	buf := hashBuffers.Get().(*[readStep]byte)
	defer hashBuffers.Put(buf)
	marks := make([]pieces.Mark, b.Pieces())
	border, known := pieces.BorderAt(digest, 0)
	for i := range marks {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		off, n := b.Piece(i)
		id := sha256.New()
		if err := feed(io.MultiWriter(digest, id), r, off, n, buf[:]); err != nil {
			return nil, fmt.Errorf("read piece %d: %w", i, err)
		}
		marks[i].ID = pieces.ID(id.Sum(nil))
		if known && i < len(marks)-1 {
			marks[i].Before = border
			border, known = pieces.BorderAt(digest, off+n)
			marks[i].After = border
		}
		c.onHash(name, off+n, b.Size)
	}
	return marks, nil
}

// feed writes exactly n bytes from off to w.
func feed(w io.Writer, r io.ReaderAt, off, n int64, buf []byte) error {
	m, err := io.CopyBuffer(onlyWriter{w}, onlyReader{io.NewSectionReader(r, off, n)}, buf)
	if err == nil && m < n {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// onlyWriter and onlyReader keep io.CopyBuffer from going around the buffer.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
