package xet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"p2pagent/internal/layout"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/xet"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// edited returns a file and what became of it: a part replaced and moved, one inserted,
// and single bytes changed in its second half.
func edited() (old, new []byte) {
	old = random(1, 12*mib)
	new = append(bytes.Clone(old[:2*mib]), old[9*mib:10*mib]...)
	new = append(new, random(2, mib+77)...)
	new = append(new, old[3*mib:6*mib]...)
	new = append(new, random(3, 300_000)...)
	new = append(new, old[6*mib:]...)
	for at := 8 * mib; at < 11*mib; at += mib/2 + 12345 {
		new[at] ^= 1
	}
	return old, new
}

// deltaWorld is a world where two revisions are stored, and the older one is here.
type deltaWorld struct {
	*world
	blob     pieces.Blob
	now, old []byte
	delta    *layout.Delta
}

// inDelta runs test for a file that became another one, or the other way round.
func inDelta(t *testing.T, o hubtest.Xet, backwards bool, spoil func(sound io.ReaderAt) io.ReaderAt, test func(t *testing.T, w *deltaWorld)) {
	first, second := edited()
	o.Dedup, o.Plain = true, true
	inWorld(t, o, []hubtest.File{{Path: "w", Content: hubtest.Bytes(first)}}, func(t *testing.T, w *world) {
		outlines := []*pieces.Outline{w.outline}
		commits := []pieces.Commit{w.commit, w.hub.Push("org/m", "main", []hubtest.File{{Path: "w", Content: hubtest.Bytes(second)}})}
		outlines = append(outlines, w.hub.Outline("org/m", commits[1]))
		d := &deltaWorld{world: w, now: second, old: first}
		was, is := 0, 1
		if backwards {
			d.now, d.old, was, is = first, second, 1, 0
		}
		w.commit, w.outline = commits[is], outlines[is]
		d.blob = w.file("w").Blob
		var layouts [2]layout.Layout
		for i, o := range outlines {
			f, err := xet.NewFile(o.Repo, o.Commit, o.Files[0])
			if err == nil {
				layouts[i], err = w.client.Layout(t.Context(), f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		old := layout.Old{Layout: layouts[was], Raw: bytes.NewReader(d.old), Sound: spoil(bytes.NewReader(d.old))}
		var err error
		if d.delta, err = layout.Compare(t.Context(), layouts[is], []layout.Old{old}, xet.Cuts()); err != nil {
			t.Fatal(err)
		}
		w.hub.ResetStats()
		test(t, d)
	})
}

func whole(r io.ReaderAt) io.ReaderAt { return r }

// read reads through a source and returns what came before an error.
func (w *deltaWorld) read(off, n int64) (copied int64, err error) {
	w.t.Helper()
	s := w.client.NewSource(xet.SourceOptions{Outline: w.outline, Plain: w, Delta: func(context.Context, pieces.Blob, int64, int64) *layout.Delta { return w.delta }})
	rc, err := s.Open(w.t.Context(), w.blob, off, n)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	buf := make([]byte, 100_000)
	for at := off; ; {
		k, err := rc.Read(buf)
		if !bytes.Equal(buf[:k], w.now[at:at+int64(k)]) {
			w.t.Fatalf("wrong bytes at %d", at)
		}
		if at += int64(k); k > 0 && rc.(interface{ Copied() bool }).Copied() {
			copied += int64(k)
		}
		if err == io.EOF && at == off+n {
			return copied, nil
		}
		if err != nil {
			return copied, err
		}
	}
}

// What did not change is copied, down to the chunk, and the rest comes in few
// requests: one question and one range for each extent.
func TestMixed(t *testing.T) {
	inDelta(t, hubtest.Xet{}, false, whole, func(t *testing.T, w *deltaWorld) {
		for off := int64(0); off < int64(len(w.now)); off += 4 * mib {
			if _, err := w.read(off, min(4*mib, int64(len(w.now))-off)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // the store counts when it has sent all
		s := w.hub.Stats()
		changed := int64(mib + 77 + 300_000 + 6*xet.MaxChunk)
		if s.StoredBytes > changed+8*xet.MaxChunk || s.Calls[hubtest.CAS] > 4 || s.Calls[hubtest.Xorb] > 4 || len(w.plain) > 0 {
			t.Errorf("%d stored bytes for %d changed ones, calls %v, plain %v", s.StoredBytes, changed, s.Calls, w.plain)
		}
	})
}

// Any range is what it should be, whatever is here of it.
func TestMixedRanges(t *testing.T) {
	for _, backwards := range []bool{false, true} {
		inDelta(t, hubtest.Xet{XorbSize: 3 * mib}, backwards, whole, func(t *testing.T, w *deltaWorld) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 60 {
				off := r.Int64N(int64(len(w.now)))
				n := 1 + r.Int64N(min(int64(len(w.now))-off, 3*mib))
				here := w.delta.Gaps(off, n)
				copied, err := w.read(off, n)
				if err != nil || len(here) == 0 && copied != n {
					t.Fatalf("%d+%d: %d copied, %v", off, n, copied, err)
				}
			}
			if len(w.plain) > 0 {
				t.Errorf("plain HTTP: %v", w.plain)
			}
		})
	}
}

// Where the store's ranges have much that is here, each part that is not has its own
// question: the older revision, after the newer one, lies in ranges of its own time.
func TestMixedAlone(t *testing.T) {
	inDelta(t, hubtest.Xet{}, true, whole, func(t *testing.T, w *deltaWorld) {
		size := int64(len(w.now))
		if _, err := w.read(0, size); err != nil {
			t.Fatal(err)
		}
		var missing int64
		for _, g := range w.delta.Gaps(0, size) {
			missing += g.N
		}
		synctest.Wait()
		if s := w.hub.Stats(); s.StoredBytes > missing+8*xet.MaxChunk || missing > size*2/3 {
			t.Errorf("%d stored bytes, %d are missing of %d", s.StoredBytes, missing, size)
		}
	})
}

// spoiledFrom is sound but for one mebibyte.
type spoiledFrom struct {
	io.ReaderAt
	off int64
}

func (s *spoiledFrom) Error() string           { return "not what it was" }
func (s *spoiledFrom) Spoiled() (off, n int64) { return s.off, mib }

func (s *spoiledFrom) ReadAt(p []byte, off int64) (int, error) {
	if off < s.off+mib && off+int64(len(p)) > s.off {
		return 0, s
	}
	return s.ReaderAt.ReadAt(p, off)
}

// What is not sound any more breaks the reader once, and is fetched by the next. The
// store is not blamed for it.
func TestMixedSpoiled(t *testing.T) {
	spoil := func(r io.ReaderAt) io.ReaderAt { return &spoiledFrom{r, 4 * mib} }
	inDelta(t, hubtest.Xet{}, false, spoil, func(t *testing.T, w *deltaWorld) {
		size := int64(len(w.now))
		broken := 0
		for {
			_, err := w.read(0, size)
			if err == nil {
				break
			}
			if broken++; broken > 20 || !errors.Is(err, layout.ErrNotHere) {
				t.Fatal(err)
			}
		}
		if broken == 0 || len(w.plain) > 0 {
			t.Errorf("broke %d times, plain HTTP: %v", broken, w.plain)
		}
	})
}
