package agent

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"p2pagent/pkg/pieces"
)

// soundBytes bounds the pieces that are kept because the next bytes are most likely
// to be of them too. Two are in any case: where several files have bytes in turn, each
// change would else hash a piece anew.
const soundBytes = 16 << 20

// soundPieces reads blobs of the cache a piece at a time, each compared with its
// statement: the disk may have changed it since. One is read at a time, so that
// copying costs no more than a core, and some are kept. It is safe for concurrent
// use.
type soundPieces struct {
	mu    sync.Mutex // held while a piece is read and hashed
	kept  []soundPiece
	bytes int
	users int
}

type soundPiece struct {
	blob  pieces.Blob
	index int
	data  []byte
}

// use has pieces kept until all who called it are done.
func (s *soundPieces) use() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.users--; s.users == 0 {
			s.kept, s.bytes = nil, 0
		}
	})
}

// of returns a reader of the pieces of a blob that are here now.
func (s *soundPieces) of(cache Store, b pieces.Blob) io.ReaderAt {
	return &soundBlob{pieces: s, cache: cache, blob: b, statements: cache.Statements(b)}
}

type soundBlob struct {
	pieces     *soundPieces
	cache      Store
	blob       pieces.Blob
	statements []pieces.Statement // ascending; of a blob that is not here any more, none
}

// ReadAt implements io.ReaderAt.
func (f *soundBlob) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at < 0 || at >= f.blob.Size {
			return n, io.EOF
		}
		k, err := f.piece(int(at/f.blob.PieceSize()), p[n:], at%f.blob.PieceSize())
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// piece copies bytes of one piece.
func (f *soundBlob) piece(index int, p []byte, skip int64) (int, error) {
	s := f.pieces
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.IndexFunc(s.kept, func(k soundPiece) bool { return k.index == index && k.blob == f.blob }); i >= 0 {
		kept := s.kept[i]
		s.kept = append(slices.Delete(s.kept, i, i+1), kept) // the latest is the last to go
		return copy(p, kept.data[skip:]), nil
	}
	data, err := f.load(index)
	if err != nil {
		return 0, err
	}
	return copy(p, data[skip:]), nil
}

// load reads and checks a piece, and keeps it.
func (f *soundBlob) load(index int) ([]byte, error) {
	s := f.pieces
	at, ok := slices.BinarySearchFunc(f.statements, index, func(st pieces.Statement, index int) int { return st.Index - index })
	if !ok {
		return nil, fmt.Errorf("piece %d of %s: it is not here any more", index, f.blob)
	}
	_, size := f.blob.Piece(index)
	data := s.room(int(size))
	rc, err := f.cache.OpenPiece(f.blob, index)
	if err != nil {
		return nil, err
	}
	_, err = io.ReadFull(rc, data)
	if err := errors.Join(err, rc.Close()); err != nil {
		return nil, err
	}
	if _, err := pieces.Verify(f.statements[at], data); err != nil {
		return nil, &spoiledPiece{f.blob, index, err}
	}
	s.kept, s.bytes = append(s.kept, soundPiece{f.blob, index, data}), s.bytes+cap(data)
	return data, nil
}

// room returns a buffer, for which those that were not used for longest go.
func (s *soundPieces) room(n int) []byte {
	var spare []byte
	most := max(soundBytes, 2*n)
	for len(s.kept) > 0 && s.bytes+n > most {
		spare = s.kept[0].data
		s.bytes -= cap(spare)
		s.kept = slices.Delete(s.kept, 0, 1)
	}
	if cap(spare) >= n && s.bytes+cap(spare) <= most {
		return spare[:n]
	}
	return make([]byte, n)
}

// spoiledPiece is a piece on the disk that is not what its statement says. It tells
// a layout.Delta which bytes that are.
type spoiledPiece struct {
	blob  pieces.Blob
	index int
	err   error
}

func (e *spoiledPiece) Error() string { return fmt.Sprintf("not what it was on the disk: %v", e.err) }
func (e *spoiledPiece) Unwrap() error { return e.err }

// Spoiled returns which bytes of the file are not to be copied.
func (e *spoiledPiece) Spoiled() (off, n int64) { return e.blob.Piece(e.index) }

// blobContent reads a whole blob of the cache as it lies there.
type blobContent struct {
	cache Store
	blob  pieces.Blob
}

// ReadAt implements io.ReaderAt.
func (c *blobContent) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		if off >= c.blob.Size {
			return n, io.EOF
		}
		var k int
		k, err = c.readPiece(p[n:], off)
		n, off = n+k, off+int64(k)
	}
	return n, err
}

// readPiece reads to the end of the piece at most.
func (c *blobContent) readPiece(p []byte, off int64) (int, error) {
	index := int(off / c.blob.PieceSize())
	rc, err := c.cache.OpenPiece(c.blob, index)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	at, ok := rc.(io.ReaderAt)
	if !ok {
		return 0, fmt.Errorf("read piece %d of %s: %w", index, c.blob, errors.ErrUnsupported)
	}
	start, length := c.blob.Piece(index)
	n, err := at.ReadAt(p[:min(int64(len(p)), start+length-off)], off-start)
	if err == io.EOF && n > 0 {
		err = nil // the end of the piece
	}
	return n, err
}
