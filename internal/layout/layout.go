package layout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Xorb names an object of the store: the bytes of its hash.
type Xorb [32]byte

// Term is a run of chunks [First, End) of one xorb, Size bytes of a file.
type Term struct {
	Xorb       Xorb
	First, End int
	Size       int64
}

// Layout is the terms of a whole file, in its order.
type Layout struct {
	Size  int64
	Terms []Term
}

// Limits on a layout. A term of a file is one chunk at least; a file of a terabyte
// of which nothing was stored before has 16,000 terms.
const (
	MaxTerms = 1 << 17
	MaxChunk = 128 << 10 // bytes of a chunk, by the format
	maxIndex = 1 << 23   // of a chunk in a xorb
)

// ErrBad marks a layout that contradicts itself.
var ErrBad = errors.New("bad layout")

// Validate refuses terms that can't be, and those that don't add up to the size.
// Errors wrap ErrBad.
func (l Layout) Validate() error {
	if len(l.Terms) > MaxTerms {
		return fmt.Errorf("%w: %d terms", ErrBad, len(l.Terms))
	}
	var sum int64
	for i, t := range l.Terms {
		n := int64(t.End) - int64(t.First)
		if t.First < 0 || n <= 0 || t.End > maxIndex || t.Size < n || t.Size > n*MaxChunk {
			return fmt.Errorf("%w: term %d has %d bytes in chunks %d to %d", ErrBad, i, t.Size, t.First, t.End)
		}
		if sum += t.Size; sum > l.Size {
			break
		}
	}
	if sum != l.Size {
		return fmt.Errorf("%w: terms of %d bytes or more make a file of %d", ErrBad, sum, l.Size)
	}
	return nil
}

// magic begins the encoding:
//
//	magic (8) · size · number of xorbs · xorbs, 32 bytes each
//	number of terms · for each: which xorb · First · End-First · Size
//	crc32c over all of it (4, little-endian)
//
// Numbers are unsigned varints.
const magic = "p2playo1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Marshal encodes the layout.
func (l Layout) Marshal() []byte {
	at := make(map[Xorb]uint64)
	var xorbs []Xorb
	for _, t := range l.Terms {
		if _, ok := at[t.Xorb]; !ok {
			at[t.Xorb] = uint64(len(xorbs))
			xorbs = append(xorbs, t.Xorb)
		}
	}
	out := binary.AppendUvarint([]byte(magic), uint64(l.Size))
	out = binary.AppendUvarint(out, uint64(len(xorbs)))
	for _, x := range xorbs {
		out = append(out, x[:]...)
	}
	out = binary.AppendUvarint(out, uint64(len(l.Terms)))
	for _, t := range l.Terms {
		for _, n := range []uint64{at[t.Xorb], uint64(t.First), uint64(t.End - t.First), uint64(t.Size)} {
			out = binary.AppendUvarint(out, n)
		}
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// Parse reads what Marshal wrote, and refuses everything else.
func Parse(in []byte) (Layout, error) {
	end := len(in) - 4
	if end < len(magic) || string(in[:len(magic)]) != magic || crc32.Checksum(in[:end], castagnoli) != binary.LittleEndian.Uint32(in[end:]) {
		return Layout{}, fmt.Errorf("%w: not one, or torn", ErrBad)
	}
	d := decoder{rest: in[len(magic):end]}
	l := Layout{Size: int64(d.number(1 << 62))}
	xorbs := make([]Xorb, d.number(uint64(len(d.rest)/len(Xorb{}))))
	for i := range xorbs {
		d.rest = d.rest[copy(xorbs[i][:], d.rest):]
	}
	l.Terms = make([]Term, d.number(min(MaxTerms, uint64(len(d.rest)/4))))
	for i := range l.Terms {
		t := &l.Terms[i]
		if x := d.number(1 << 31); x < uint64(len(xorbs)) {
			t.Xorb = xorbs[x]
		} else {
			d.bad = true
		}
		t.First = int(d.number(maxIndex))
		t.End = t.First + int(d.number(maxIndex))
		t.Size = int64(d.number(1 << 62))
	}
	if d.bad || len(d.rest) > 0 {
		return Layout{}, fmt.Errorf("%w: not as it is written", ErrBad)
	}
	return l, l.Validate()
}

type decoder struct {
	rest []byte
	bad  bool
}

// number reads one that is at most limit; what is not makes the decoder bad.
func (d *decoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}
