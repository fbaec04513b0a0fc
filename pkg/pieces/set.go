package pieces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/bits"
)

// Set is a set of piece indexes below a fixed length: what a member holds of a
// blob. It is not safe for concurrent use.
type Set struct {
	words []uint64
	n     int // length: indexes are 0 … n-1
	count int
}

// NewSet returns an empty set for n pieces.
func NewSet(n int) *Set { return &Set{words: make([]uint64, (n+63)/64), n: n} }

// FullSet returns the set of all n pieces.
func FullSet(n int) *Set {
	s := NewSet(n)
	for i := range n {
		s.Add(i)
	}
	return s
}

// Len returns how many indexes the set can hold.
func (s *Set) Len() int { return s.n }

// Count returns how many indexes it holds.
func (s *Set) Count() int { return s.count }

// Full tells whether every index is in the set.
func (s *Set) Full() bool { return s.count == s.n }

// Has tells whether i is in the set; indexes out of range are not.
func (s *Set) Has(i int) bool {
	return i >= 0 && i < s.n && s.words[i/64]&(1<<(i%64)) != 0
}

// Add puts i in and tells whether it was new. It panics when i is out of range.
func (s *Set) Add(i int) bool {
	s.mustFit(i)
	if s.Has(i) {
		return false
	}
	s.words[i/64] |= 1 << (i % 64)
	s.count++
	return true
}

// Remove takes i out and tells whether it was in.
func (s *Set) Remove(i int) bool {
	if !s.Has(i) {
		return false
	}
	s.words[i/64] &^= 1 << (i % 64)
	s.count--
	return true
}

func (s *Set) mustFit(i int) {
	if i < 0 || i >= s.n {
		panic(fmt.Sprintf("pieces: index %d outside a set of %d", i, s.n))
	}
}

// Clone returns an independent copy.
func (s *Set) Clone() *Set {
	return &Set{words: append([]uint64(nil), s.words...), n: s.n, count: s.count}
}

// All yields the indexes in the set in ascending order.
func (s *Set) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for w, word := range s.words {
			for ; word != 0; word &= word - 1 {
				if !yield(w*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// Missing yields the indexes that are not in the set in ascending order.
func (s *Set) Missing() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range s.n {
			if !s.Has(i) && !yield(i) {
				return
			}
		}
	}
}

// MarshalBinary encodes the set as run lengths: unsigned varints that count, by
// turns, absent and present indexes, starting with absent ones; the last run of
// absent indexes is left out. The empty set is the empty string.
func (s *Set) MarshalBinary() ([]byte, error) {
	var out []byte
	present, run := false, uint64(0)
	for i := range s.n {
		if s.Has(i) != present {
			out = binary.AppendUvarint(out, run)
			present, run = !present, 0
		}
		run++
	}
	if present {
		out = binary.AppendUvarint(out, run)
	}
	return out, nil
}

var errSet = errors.New("not canonical run lengths")

// ParseSet decodes a set of n pieces and refuses any other spelling of it.
func ParseSet(n int, b []byte) (*Set, error) {
	s, at, present := NewSet(n), 0, false
	for first := true; len(b) > 0; first, present = false, !present {
		run, size := binary.Uvarint(b)
		if size <= 0 || run > uint64(n-at) || (run == 0 && !first) || uvarintLen(run) != size {
			return nil, fmt.Errorf("parse set of %d: %w", n, errSet)
		}
		b = b[size:]
		for end := at + int(run); at < end; at++ {
			if present {
				s.Add(at)
			}
		}
	}
	if present { // the last run counted absent indexes
		return nil, fmt.Errorf("parse set of %d: %w", n, errSet)
	}
	return s, nil
}

func uvarintLen(v uint64) int { return len(binary.AppendUvarint(nil, v)) }
