package pieces

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// WholeBlob is the Index of a MismatchError about a blob rather than a piece.
const WholeBlob = -1

// MismatchError tells that content is not what its name says. It wraps ErrDigest.
type MismatchError struct {
	Blob      Blob
	Index     int // of the piece, or WholeBlob
	Want, Got string
}

func (e *MismatchError) Error() string {
	if e.Index == WholeBlob {
		return fmt.Sprintf("blob %s: content has digest %s", e.Want, e.Got)
	}
	return fmt.Sprintf("piece %d of %s: want %s, got %s", e.Index, e.Blob, e.Want, e.Got)
}

func (e *MismatchError) Unwrap() error { return ErrDigest }

// Verified is the bytes of one piece with the statement that proves them. Only
// Verify and Cutter.Next make one with content; the zero Verified has none.
type Verified struct {
	statement Statement
	data      []byte
}

// Statement returns the proof.
func (v Verified) Statement() Statement { return v.statement }

// Blob returns the blob that the piece belongs to.
func (v Verified) Blob() Blob { return v.statement.Blob }

// Index returns which piece of the blob this is.
func (v Verified) Index() int { return v.statement.Index }

// Bytes returns the content. It belongs to whoever made the Verified: a store
// must not keep or change it after its Put returned.
func (v Verified) Bytes() []byte { return v.data }

// Offset returns where in the blob the piece starts, in bytes.
func (v Verified) Offset() int64 {
	offset, _ := v.statement.Blob.Piece(v.statement.Index)
	return offset
}

// FalseStatementError tells that the maker of a statement signed what can't be
// true: the bytes have the id and not the borders. Whoever sent them is innocent.
type FalseStatementError struct{ Statement Statement }

func (e *FalseStatementError) Error() string {
	return fmt.Sprintf("piece %d of %s: its statement names the right id and wrong borders", e.Statement.Index, e.Statement.Blob)
}

// Verify turns bytes from an untrusted member into a Verified. The statement
// must have passed Check. The bytes are hashed once: between the borders where
// the statement has them, else for the id. A wrong length or hash gives a
// *MismatchError, borders that contradict the id a *FalseStatementError.
func Verify(s Statement, data []byte) (Verified, error) {
	_, length := s.Blob.Piece(s.Index)
	if int64(len(data)) != length {
		return Verified{}, &MismatchError{Blob: s.Blob, Index: s.Index,
			Want: fmt.Sprintf("%d bytes", length), Got: fmt.Sprintf("%d bytes", len(data))}
	}
	if s.Bordered() && s.spans(data) {
		return Verified{statement: s, data: data}, nil
	}
	id := IDOf(data)
	switch {
	case id != s.ID:
		return Verified{}, &MismatchError{Blob: s.Blob, Index: s.Index, Want: s.ID.String(), Got: id.String()}
	case s.Bordered():
		return Verified{}, &FalseStatementError{s}
	}
	return Verified{statement: s, data: data}, nil
}

// spans tells whether hashing data leads from one border to the other.
func (s *Statement) spans(data []byte) bool {
	offset, _ := s.Blob.Piece(s.Index)
	h := s.Before.hashFrom(offset)
	h.Write(data)
	after, ok := BorderAt(h, offset+int64(len(data)))
	return ok && after == s.After
}

// readStep is how much is read before it is hashed: small enough to still be in
// a core's cache, large enough that calls don't count.
const readStep = 256 << 10

// emptyReads is how often in a row a reader may return neither bytes nor an error.
const emptyReads = 100

// Cutter cuts a run of pieces out of upstream's bytes. It keeps what it has read
// of an unfinished piece, so that a reader that breaks in the middle of a piece
// can be replaced by another one that starts at Offset: progress below piece
// size survives reconnects.
type Cutter struct {
	signer Signer
	blob   Blob
	next   int // piece being read
	end    int // first piece that is not wanted any more
	alloc  func(int) []byte

	buf  []byte // the piece being read; len is the piece's length
	have int
	hash hash.Hash

	whole  hash.Hash // of the blob, up to where the cutter is; nil: not known
	before Border    // where the piece being read began
}

// NewCutter prepares to cut count pieces of b from piece first on. Buffers come
// from alloc (nil means make) and belong to the caller again once the Verified
// that carries them is done with.
func NewCutter(s Signer, b Blob, first, count int, alloc func(n int) []byte) *Cutter {
	if alloc == nil {
		alloc = func(n int) []byte { return make([]byte, n) }
	}
	c := &Cutter{signer: s, blob: b, next: first, end: first + count, alloc: alloc, hash: sha256.New()}
	if first == 0 {
		c.From(FirstBorder())
	}
	return c
}

// From tells the cutter the border before the next piece, if somebody knows it:
// from then on its statements have borders.
func (c *Cutter) From(b Border) { c.whole = b.hashFrom(c.Offset()) }

// Lacks returns the piece whose border the cutter would like to know before the
// next call of Next; ok is false when it knows it or has no use for it.
func (c *Cutter) Lacks() (index int, ok bool) {
	return c.next, c.whole == nil && c.buf == nil && c.next < c.end && c.blob.bordered(c.next)
}

// Offset returns the position in the blob of the next byte that Next will read.
func (c *Cutter) Offset() int64 {
	return min(int64(c.next)*c.blob.PieceSize(), c.blob.Size) + int64(c.have)
}

// Remaining returns how many bytes are still to be read.
func (c *Cutter) Remaining() int64 {
	return min(int64(c.end)*c.blob.PieceSize(), c.blob.Size) - c.Offset()
}

// Next reads from r until one piece is whole and returns it. After the last
// piece it returns io.EOF. Any other error is r's (io.ErrUnexpectedEOF when r
// ended early, io.ErrNoProgress when it returns nothing over and over); what was read before it is kept for the next call.
func (c *Cutter) Next(r io.Reader) (Verified, error) {
	if c.next >= c.end {
		return Verified{}, io.EOF
	}
	c.start()
	for empty := 0; c.have < len(c.buf); {
		n, err := r.Read(c.buf[c.have:min(c.have+readStep, len(c.buf))])
		c.take(c.buf[c.have : c.have+n])
		c.have += n
		if empty++; n > 0 {
			empty = 0
		}
		switch {
		case c.have == len(c.buf): // an error behind the last byte is the next call's
		case err == io.EOF:
			return Verified{}, io.ErrUnexpectedEOF
		case err != nil:
			return Verified{}, err
		case empty == emptyReads:
			return Verified{}, io.ErrNoProgress
		}
	}
	return c.finish(), nil
}

func (c *Cutter) start() {
	if c.buf != nil {
		return
	}
	_, length := c.blob.Piece(c.next)
	c.buf = c.alloc(int(length))[:length]
	c.hash.Reset()
	if !c.blob.bordered(c.next) {
		c.whole = nil
	}
	if c.whole != nil {
		c.before, _ = BorderAt(c.whole, c.Offset())
	}
}

func (c *Cutter) take(b []byte) {
	c.hash.Write(b)
	if c.whole != nil {
		c.whole.Write(b)
	}
}

func (c *Cutter) finish() Verified {
	m := Mark{ID: ID(c.hash.Sum(nil))}
	if c.whole != nil {
		m.Before = c.before
		m.After, _ = BorderAt(c.whole, c.Offset())
	}
	v := Verified{statement: c.signer.State(c.blob, c.next, m), data: c.buf}
	c.buf, c.have = nil, 0
	c.next++
	return v
}

// Abandon gives back the buffer of an unfinished piece, or nil. The Cutter must
// not be used afterwards.
func (c *Cutter) Abandon() []byte {
	buf := c.buf
	c.buf, c.have = nil, 0
	return buf
}
