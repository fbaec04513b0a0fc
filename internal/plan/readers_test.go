package plan

import (
	"crypto/sha256"
	"reflect"
	"testing"

	"p2pagent/pkg/pieces"
)

func TestReaders(t *testing.T) {
	x := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256([]byte("x"))), Size: 64 << 20} // 16 pieces
	y := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256([]byte("y"))), Size: 4 << 20}
	r := NewReaders()
	extent := pieces.Extent{Spans: []pieces.Span{{Blob: x, First: 2, Count: 6}, {Blob: y, Count: 1}}}
	if _, soon := r.Lead(extent); soon || r.lead(Piece{x, 0}) != calm {
		t.Error("nobody reads, and yet something is hurried")
	}
	for _, at := range []int{12, 5, 5} {
		r.Add(Piece{x, at})
	}
	for index, want := range map[int]int{4: calm, 5: 0, 7: 2, 12: 0, 15: 3} {
		if got := r.lead(Piece{x, index}); got != want {
			t.Errorf("piece %d: lead %d, want %d", index, got, want)
		}
	}
	for _, c := range []struct {
		span pieces.Span
		lead int
	}{{pieces.Span{Blob: x, First: 0, Count: 5}, calm}, {pieces.Span{Blob: x, First: 4, Count: 4}, 0}, {pieces.Span{Blob: x, First: 8, Count: 4}, 3}, {pieces.Span{Blob: y, Count: 1}, calm}} {
		if got, soon := r.Lead(pieces.Extent{Spans: []pieces.Span{c.span}}); got != c.lead || soon != (c.lead != calm) {
			t.Errorf("extent from %d: lead %d %v, want %d", c.span.First, got, soon, c.lead)
		}
	}
	want := []pieces.Span{{Blob: x, First: 5, Count: 3}, {Blob: x, First: 2, Count: 3}, {Blob: y, Count: 1}}
	if got := r.From(extent).Spans; !reflect.DeepEqual(got, want) {
		t.Errorf("from the reader on: %v, want %v", got, want)
	}
	r.Remove(Piece{x, 5})
	if r.lead(Piece{x, 5}) != 0 {
		t.Error("the second reader of a piece went with the first")
	}
	for _, at := range []int{5, 12, 12} { // one too many is harmless
		r.Remove(Piece{x, at})
	}
	if len(r.at) != 0 {
		t.Errorf("left: %v", r.at)
	}
}
