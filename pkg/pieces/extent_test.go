package pieces

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func blobNumber(n int, size int64) Blob {
	return Blob{Digest: SHA256Digest(sha256.Sum256(fmt.Append(nil, n))), Size: size}
}

// randomBlobs mixes empty, small and large blobs as repositories do.
func randomBlobs(r *rand.Rand) []Blob {
	var out []Blob
	for n := range r.IntN(120) {
		size := r.Int64N([]int64{1, 100, 1 << 20, smallPiece, 3 * smallPiece, 1 << 30, 50 << 30}[r.IntN(7)])
		out = append(out, blobNumber(n, size))
	}
	return out
}

// Each piece belongs to one extent, extents are within bounds, and everyone
// divides alike.
func TestExtentsCoverEachPieceOnce(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 5))
		blobs := randomBlobs(r)
		target := []int64{0, -1, 1, 1 << 20, 8 << 20, 64 << 20, 1 << 40}[r.IntN(7)]
		extents := Extents(blobs, target)
		if !reflect.DeepEqual(extents, Extents(blobs, target)) {
			t.Fatalf("seed %d: divided differently the second time", seed)
		}
		checkCover(t, seed, blobs, extents)
		if target <= 0 {
			target = DefaultExtent
		}
		for _, e := range extents {
			if len(e.Spans) > 1 && (e.Size() > target || len(e.Spans) > bundleFiles) {
				t.Fatalf("seed %d: a bundle of %d blobs, %d bytes", seed, len(e.Spans), e.Size())
			}
			if piece := e.Spans[0].Blob.PieceSize(); e.Size() > max(target, piece) {
				t.Fatalf("seed %d: an extent of %d bytes, target %d", seed, e.Size(), target)
			}
		}
	}
}

func checkCover(t *testing.T, seed uint64, blobs []Blob, extents []Extent) {
	t.Helper()
	covered := make(map[Blob]*Set)
	keys := make(map[ExtentKey]bool)
	var size, want int64
	for _, e := range extents {
		if len(e.Spans) == 0 || keys[e.Key()] {
			t.Fatalf("seed %d: an empty extent, or two of one key", seed)
		}
		keys[e.Key()] = true
		size += e.Size()
		for _, s := range e.Spans {
			if covered[s.Blob] == nil {
				covered[s.Blob] = NewSet(s.Blob.Pieces())
			}
			for i := range s.Count {
				if !covered[s.Blob].Add(s.First + i) {
					t.Fatalf("seed %d: piece %d twice", seed, s.First+i)
				}
			}
		}
	}
	for _, b := range blobs {
		want += b.Size
		if b.Size > 0 && (covered[b] == nil || !covered[b].Full()) {
			t.Fatalf("seed %d: pieces of a blob of %d bytes are missing", seed, b.Size)
		}
	}
	if size != want {
		t.Fatalf("seed %d: extents of %d bytes for blobs of %d", seed, size, want)
	}
}

// 60 GB in one file: a plan, no data.
func TestExtentsOfALargeBlob(t *testing.T) {
	b := blobNumber(1, 60_000_000_000)
	extents := Extents([]Blob{b}, 0)
	if len(extents) != 895 { // 3,577 pieces of 16 MiB, four in each
		t.Fatalf("%d extents, want 895", len(extents))
	}
	checkCover(t, 0, []Blob{b}, extents)
	if last := extents[894]; last.Spans[0].Count != 1 || last.Size() != 60_000_000_000-3576*(16<<20) {
		t.Errorf("the last is %+v", last)
	}
	if offset, n := extents[1].Spans[0].Range(); offset != 64<<20 || n != 64<<20 {
		t.Errorf("the second has %d bytes at %d", n, offset)
	}
}

func TestSmallBlobsAreBundled(t *testing.T) {
	var blobs []Blob
	for i := range 70 {
		blobs = append(blobs, blobNumber(i, int64(i))) // the first is empty
	}
	blobs = append(blobs, blobNumber(100, smallPiece-1), blobNumber(101, smallPiece))
	var counts []int
	for _, e := range Extents(blobs, 0) {
		counts = append(counts, len(e.Spans))
	}
	if want := []int{32, 32, 1, 6}; !reflect.DeepEqual(counts, want) {
		t.Errorf("blobs in each extent: %v, want %v", counts, want)
	}
}

// An extent is named by its blobs, not by the repository that wants them.
func TestExtentKeys(t *testing.T) {
	a, b := blobNumber(1, 100<<20), blobNumber(2, 100<<20)
	git := Blob{Digest: gitDigest(nil), Size: 3}
	spans := [][]Span{
		{}, {{a, 0, 1}}, {{a, 1, 1}}, {{a, 0, 2}}, {{b, 0, 1}}, {{a, 0, 1}, {b, 0, 1}}, {{b, 0, 1}, {a, 0, 1}}, {{git, 0, 1}}, {{a, 256, 1}},
	}
	seen := make(map[ExtentKey]int)
	for i, s := range spans {
		k := Extent{Spans: s}.Key()
		if other, ok := seen[k]; ok {
			t.Errorf("extents %d and %d have one key", other, i)
		}
		seen[k] = i
		if k.String() != fmt.Sprintf("%x", k[:6]) {
			t.Errorf("key %x prints as %s", k, k)
		}
	}
}
