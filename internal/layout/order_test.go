package layout

import (
	"math/rand/v2"
	"testing"

	"p2pagent/pkg/pieces"
)

// together makes files of chunks of one byte from a few xorbs: runs that overlap,
// lie within each other, come several times in a file or nowhere else.
func together(r *rand.Rand) (files []Entry) {
	for i := range 1 + r.IntN(5) {
		l := Layout{}
		for range 1 + r.IntN(12) {
			first := r.IntN(40)
			t := Term{Xorb: Xorb{byte(r.IntN(4))}, First: first, End: first + 1 + r.IntN(30)}
			t.Size = int64(t.End - t.First)
			l.Terms, l.Size = append(l.Terms, t), l.Size+t.Size
		}
		files = append(files, Entry{Blob: pieces.Blob{Digest: pieces.SHA256Digest([32]byte{byte(i)}), Size: l.Size}, Layout: l})
	}
	return files
}

type chunkName struct {
	xorb  Xorb
	index int
}

// chunksIn lists the chunks of a file from off on.
func chunksIn(e Entry, off, n int64) (out []chunkName) {
	var at int64
	for _, t := range e.Terms {
		for i := t.First; i < t.End; i++ {
			if off <= at && at < off+n {
				out = append(out, chunkName{t.Xorb, i})
			}
			at++
		}
	}
	return out
}

// Whatever the files have in common and however they are divided, there is always a
// part that waits for none of those to come, whichever was taken before; and who has
// what a part is behind needs to fetch no chunk of it twice, unless one part has it
// twice, or two of one term.
func TestNoPartsWaitForEachOther(t *testing.T) {
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		files := together(r)
		o := NewOrder(files)
		var open []Place
		size := int64(3 + r.IntN(20))
		entries := map[pieces.Blob]Entry{}
		for _, f := range files {
			entries[f.Blob] = f
			for off := int64(0); off < f.Size; off += size {
				open = append(open, Place{f.Blob, Span{off, min(size, f.Size-off)}})
			}
		}
		r.Shuffle(len(open), func(i, k int) { open[i], open[k] = open[k], open[i] })
		have := map[pieces.Blob]map[int64]bool{}
		for _, f := range files {
			have[f.Blob] = map[int64]bool{}
		}
		for len(open) > 0 {
			next := -1
			for i, p := range open {
				if here(have, o.Behind(p)) {
					next = i
				}
			}
			if next < 0 {
				t.Fatalf("seed %d: %d parts wait for each other", seed, len(open))
			}
			p := open[next]
			open = append(open[:next], open[next+1:]...)
			for i := range p.N {
				have[p.Blob][p.Off+i] = true
			}
		}
		checkCovered(t, seed, o, files, entries)
	}
}

func here(have map[pieces.Blob]map[int64]bool, places []Place) bool {
	for _, p := range places {
		for i := range p.N {
			if !have[p.Blob][p.Off+i] {
				return false
			}
		}
	}
	return true
}

// checkCovered wants the chunks of a whole file that a file before it has to be
// among what it is behind.
func checkCovered(t *testing.T, seed uint64, o *Order, files []Entry, entries map[pieces.Blob]Entry) {
	t.Helper()
	if o == nil {
		return
	}
	for _, f := range files {
		given := map[chunkName]bool{}
		for _, p := range o.Behind(Place{f.Blob, Span{0, f.Size}}) {
			if o.rank[p.Blob] >= o.rank[f.Blob] {
				t.Fatalf("seed %d: behind a later file", seed)
			}
			for _, c := range chunksIn(entries[p.Blob], p.Off, p.N) {
				given[c] = true
			}
		}
		for _, g := range files {
			if o.rank[g.Blob] >= o.rank[f.Blob] {
				continue
			}
			other := map[chunkName]bool{}
			for _, c := range chunksIn(g, 0, g.Size) {
				other[c] = true
			}
			for _, c := range chunksIn(f, 0, f.Size) {
				if other[c] && !given[c] {
					t.Fatalf("seed %d: an earlier file has chunk %d of xorb %d, which nothing gives", seed, c.index, c.xorb[0])
				}
			}
		}
	}
}

// Bytes that are not here are not copied, nor what lies outside of the span.
func TestCompareInWhatHasCome(t *testing.T) {
	x := Xorb{1}
	giver := Layout{Size: 30, Terms: []Term{{x, 0, 10, 10}, {x, 10, 20, 10}, {x, 20, 30, 10}}}
	now := Layout{Size: 33, Terms: []Term{{Xorb{2}, 0, 3, 3}, {x, 0, 10, 10}, {x, 10, 20, 10}, {x, 20, 30, 10}}}
	old := Old{Layout: giver, Has: func(off, n int64) bool { return off+n <= 20 }}
	d, err := CompareIn(t.Context(), now, Span{13, 15}, []Old{old}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if gaps := d.Gaps(0, 33); len(gaps) != 2 || gaps[0] != (Span{0, 13}) || gaps[1] != (Span{23, 10}) {
		t.Errorf("gaps %v", gaps)
	}
}
