package minicas

import (
	"context"
	"io"
)

// Xorb is an object of the store: for each chunk a header of eight bytes, then the
// chunk as it is.
type Xorb struct{ from, plain int64 } // where its bytes lie in the file

// Size is the length of the object.
func (x Xorb) Size() int64 { return x.end(x.plain) }

// end is where the object's bytes up to the plain byte n end: the header of the
// chunk behind it is not one of them.
func (x Xorb) end(n int64) int64 { return n + (n+ChunkSize-1)/ChunkSize*headerSize }

// offset is where in the xorb's plain bytes the next one at or behind an offset of
// the object is.
func (x Xorb) offset(at int64) int64 { return at/stride*ChunkSize + max(at%stride-headerSize, 0) }

// header is that of the chunk at a plain offset: version 0, lengths of three bytes
// with the lowest first, scheme 0.
func (x Xorb) header(plain int64) [headerSize]byte {
	n := min(ChunkSize, x.plain-plain)
	low, middle, high := byte(n), byte(n>>8), byte(n>>16)
	return [headerSize]byte{0, low, middle, high, 0, low, middle, high}
}

// Source is a file whose bytes may be landing.
type Source interface {
	// Await waits until the byte at off can be read, and returns how many can be in a
	// row.
	Await(ctx context.Context, off int64) (int64, error)
	// ReadAt reads what Await has promised.
	io.ReaderAt
}

// Object is a xorb with its bytes: itself a Source, of Size bytes.
type Object struct {
	Xorb
	Of Source // the file
}

// Await implements Source. A header is ready when the byte behind it is.
func (o Object) Await(ctx context.Context, off int64) (int64, error) {
	at := o.offset(off)
	n, err := o.Of.Await(ctx, o.from+at)
	if err != nil {
		return 0, err
	}
	return o.end(min(at+n, o.plain)) - off, nil
}

// ReadAt implements io.ReaderAt.
func (o Object) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		at, inChunk := o.offset(off), off%stride
		if off >= o.Size() {
			return n, io.EOF
		}
		var k int
		if inChunk < headerSize {
			h := o.header(at)
			k = copy(p[n:], h[inChunk:])
		} else {
			rest := min(stride-inChunk, o.plain-at, int64(len(p)-n))
			k, err = o.Of.ReadAt(p[n:n+int(rest)], o.from+at)
		}
		n, off = n+k, off+int64(k)
	}
	return n, err
}
