package pieces

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
)

// Border is the state of a blob's SHA-256 where one piece ends and the next
// begins: the chaining value (FIPS 180-4, section 6.2) after all bytes before.
// Pieces are whole blocks, so there is nothing else to a state.
//
// A piece that is hashed from its first border on must arrive at its second one.
// So one hash of its bytes serves two ends: it proves the piece, and it is the
// part of the blob's digest that has to be computed anyway.
type Border [sha256.Size]byte

// Mark is what a statement says of a piece: its id and, where the maker knew
// them, the borders around it. Zero borders are not known. The last piece has
// none, for it ends at the digest, and neither have pieces of git blobs.
type Mark struct {
	ID            ID
	Before, After Border
}

// Bordered tells whether the borders are known.
func (m Mark) Bordered() bool { return m.Before != Border{} || m.After != Border{} }

// bordered tells whether the piece can have borders.
func (b Blob) bordered(index int) bool { return !b.Digest.Git() && index < b.Pieces()-1 }

// The state of crypto/sha256 as it marshals it: magic, chaining value, one block
// of bytes not taken in yet, number of bytes.
const (
	stateMagic = "sha\x03"
	stateSize  = len(stateMagic) + sha256.Size + sha256.BlockSize + 8
)

// BorderAt returns the border at an offset out of a hash that has taken in the
// bytes before it. It returns false for another hash than SHA-256, another
// number of bytes, and in the middle of a block.
func BorderAt(h hash.Hash, offset int64) (Border, bool) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok || offset%sha256.BlockSize != 0 {
		return Border{}, false
	}
	state, err := m.MarshalBinary()
	if err != nil || len(state) != stateSize || string(state[:len(stateMagic)]) != stateMagic ||
		binary.BigEndian.Uint64(state[stateSize-8:]) != uint64(offset) {
		return Border{}, false
	}
	return Border(state[len(stateMagic):]), true
}

// FirstBorder returns the border before the first piece of every blob.
func FirstBorder() Border {
	b, _ := BorderAt(sha256.New(), 0)
	return b
}

// hashFrom returns a hash that has taken in the offset bytes before the border.
func (b Border) hashFrom(offset int64) hash.Hash {
	h := sha256.New()
	b.restore(h, offset)
	return h
}

func (b Border) restore(h hash.Hash, offset int64) {
	state := make([]byte, stateSize)
	copy(state, stateMagic)
	copy(state[len(stateMagic):], b[:])
	binary.BigEndian.PutUint64(state[stateSize-8:], uint64(offset))
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(err) // a test keeps the form of the state that of crypto/sha256
	}
}

// Advance takes h over the piece without its bytes: from the border before it, if
// that is where h is, to the one behind it. It is for a piece that was Verified
// here: then this member has done the hashing itself, from that very border.
func (s *Statement) Advance(h hash.Hash) bool {
	offset, length := s.Blob.Piece(s.Index)
	if at, ok := BorderAt(h, offset); !ok || !s.Bordered() || at != s.Before {
		return false
	}
	s.After.restore(h, offset+length)
	return true
}
