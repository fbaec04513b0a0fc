package pieces

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
)

// ErrDigest marks a whole blob whose content is not what its digest says.
var ErrDigest = errors.New("digest mismatch")

// Digest is the name the Hub publishes for a file's content: the SHA-256 of an
// LFS or Xet file, the git blob SHA-1 of a small one. The zero Digest names
// nothing. Digests are comparable.
type Digest struct {
	size uint8 // sha1.Size, sha256.Size, or 0 for the zero Digest
	sum  [sha256.Size]byte
}

// SHA256Digest names content by its SHA-256.
func SHA256Digest(sum [sha256.Size]byte) Digest { return Digest{size: sha256.Size, sum: sum} }

// ParseDigest reads 64 (SHA-256) or 40 (git SHA-1) lower-case hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	raw, err := hex.DecodeString(s)
	if err != nil || hex.EncodeToString(raw) != s {
		return Digest{}, fmt.Errorf("parse digest %q: want lower-case hexadecimal", s)
	}
	return digestOf(raw)
}

func digestOf(raw []byte) (Digest, error) {
	if len(raw) != sha1.Size && len(raw) != sha256.Size {
		return Digest{}, fmt.Errorf("parse digest: want 20 or 32 bytes, got %d", len(raw))
	}
	d := Digest{size: uint8(len(raw))}
	copy(d.sum[:], raw)
	return d, nil
}

// String returns the digest as the cache spells it: lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d.sum[:d.size]) }

// Bytes returns a copy of the raw digest.
func (d Digest) Bytes() []byte { return append([]byte(nil), d.sum[:d.size]...) }

// IsZero tells whether d names nothing.
func (d Digest) IsZero() bool { return d.size == 0 }

// Git tells whether d is a git blob SHA-1 rather than a SHA-256.
func (d Digest) Git() bool { return d.size == sha1.Size }

// Blob is the content of one file: its digest and its length in bytes.
type Blob struct {
	Digest Digest
	Size   int64
}

// String returns the digest; sizes rarely help a reader.
func (b Blob) String() string { return b.Digest.String() }

// NewHash returns a hash that, fed the whole content in order, can be given to
// Check. A git digest covers the header "blob <size>\x00" too (git's
// Documentation/gitformat-loose), which is already written.
func (b Blob) NewHash() hash.Hash {
	if !b.Digest.Git() {
		return sha256.New()
	}
	h := sha1.New()
	h.Write([]byte("blob " + strconv.FormatInt(b.Size, 10) + "\x00"))
	return h
}

// Check compares the state of a hash from NewHash with the digest. On mismatch
// it returns a *MismatchError that wraps ErrDigest.
func (b Blob) Check(h hash.Hash) error {
	sum := h.Sum(nil)
	if subtle.ConstantTimeCompare(sum, b.Digest.sum[:b.Digest.size]) == 1 {
		return nil
	}
	return &MismatchError{Blob: b, Index: WholeBlob, Want: b.Digest.String(), Got: hex.EncodeToString(sum)}
}

// The piece size grows with the blob so that the number of pieces stays small.
// It depends on the size alone, so every member cuts alike.
const (
	smallPiece  = 4 << 20
	mediumPiece = 8 << 20
	largePiece  = 16 << 20

	MaxPieceSize = largePiece // no piece of any blob is longer
	MaxBlobSize  = 1 << 44    // 16 TiB; a listing that claims more is refused
)

// PieceSize returns the length in bytes of every piece but the last.
func (b Blob) PieceSize() int64 {
	switch {
	case b.Size <= 8<<30:
		return smallPiece
	case b.Size <= 32<<30:
		return mediumPiece
	default:
		return largePiece
	}
}

// Pieces returns how many pieces the blob has; an empty blob has none.
func (b Blob) Pieces() int {
	n := b.PieceSize()
	return int((b.Size + n - 1) / n)
}

// Piece returns the offset and length of piece index in bytes. It panics when
// there is no such piece.
func (b Blob) Piece(index int) (offset, length int64) {
	if index < 0 || index >= b.Pieces() {
		panic(fmt.Sprintf("pieces: blob of %d pieces has no piece %d", b.Pieces(), index))
	}
	offset = int64(index) * b.PieceSize()
	return offset, min(b.PieceSize(), b.Size-offset)
}
