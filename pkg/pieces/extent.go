package pieces

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// Span is a run of consecutive pieces of one blob.
type Span struct {
	Blob         Blob
	First, Count int
}

// Range returns where in the blob the span starts and how long it is, in bytes.
func (s Span) Range() (offset, length int64) {
	offset = int64(s.First) * s.Blob.PieceSize()
	return offset, min(int64(s.Count)*s.Blob.PieceSize(), s.Blob.Size-offset)
}

// Extent is what one member asks of upstream under one claim: a run of pieces of
// a large blob, or a bundle of small blobs. No file is too small to belong to one.
type Extent struct {
	Spans []Span
}

// ExtentKey names an extent by its content, so that members that want the same
// blob for different repositories mean the same extent.
type ExtentKey [sha256.Size]byte

// String returns the first digits, enough for a log.
func (k ExtentKey) String() string { return hex.EncodeToString(k[:6]) }

// Key returns the extent's name.
func (e Extent) Key() ExtentKey {
	h := sha256.New()
	h.Write([]byte("p2pagent extent v1\x00"))
	for _, s := range e.Spans {
		var n [16]byte
		binary.BigEndian.PutUint64(n[:8], uint64(s.First))
		binary.BigEndian.PutUint64(n[8:], uint64(s.Count))
		h.Write(s.Blob.Digest.sum[:])
		h.Write(n[:])
	}
	return ExtentKey(h.Sum(nil))
}

// Size returns the length of all spans in bytes.
func (e Extent) Size() int64 {
	var total int64
	for _, s := range e.Spans {
		_, n := s.Range()
		total += n
	}
	return total
}

const (
	// DefaultExtent is the usual length of an extent: a ranged request long
	// enough that its set-up does not count, short enough to be shared out.
	DefaultExtent = 64 << 20

	bundleBelow = smallPiece // blobs shorter than this are bundled
	bundleFiles = 32         // one claim for at most so many requests
)

// Extents divides distinct blobs into extents of about target bytes (a multiple
// of the piece size; 0 means DefaultExtent). Empty blobs need no request and are
// left out. The result depends on the arguments alone: every member divides alike.
func Extents(blobs []Blob, target int64) []Extent {
	if target <= 0 {
		target = DefaultExtent
	}
	var out []Extent
	var bundle Extent
	flush := func() {
		if len(bundle.Spans) > 0 {
			out = append(out, bundle)
		}
		bundle = Extent{}
	}
	for _, b := range blobs {
		switch {
		case b.Size == 0:
		case b.Size >= bundleBelow:
			out = append(out, runs(b, target)...)
		default:
			if len(bundle.Spans) == bundleFiles || bundle.Size()+b.Size > target {
				flush()
			}
			bundle.Spans = append(bundle.Spans, Span{Blob: b, First: 0, Count: b.Pieces()})
		}
	}
	flush()
	return out
}

func runs(b Blob, target int64) []Extent {
	each := int(max(1, target/b.PieceSize()))
	var out []Extent
	for first := 0; first < b.Pieces(); first += each {
		out = append(out, Extent{Spans: []Span{{Blob: b, First: first, Count: min(each, b.Pieces()-first)}}})
	}
	return out
}
