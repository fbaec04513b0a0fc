package xet_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/xet"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// revisions are a file and what became of it: a part replaced, a part inserted, a
// part moved to the front.
func revisions() (old, new []byte) {
	old = random(1, 12*mib)
	new = append(bytes.Clone(old[9*mib:10*mib]), old[:2*mib]...)
	new = append(new, random(2, mib+77)...)
	new = append(new, old[3*mib:6*mib]...)
	new = append(new, random(3, 300_000)...)
	return old, append(new, old[6*mib:]...)
}

// inRevisions runs test in a world where both are stored.
func inRevisions(t *testing.T, test func(t *testing.T, w *world, now, then xet.File, blob pieces.Blob, old, new []byte)) {
	old, new := revisions()
	inWorld(t, hubtest.Xet{Dedup: true}, []hubtest.File{{Path: "w", Content: hubtest.Bytes(old)}}, func(t *testing.T, w *world) {
		then, err := xet.NewFile(w.outline.Repo, w.commit, w.file("w"))
		if err != nil {
			t.Fatal(err)
		}
		w.commit = w.hub.Push("org/m", "main", []hubtest.File{{Path: "w", Content: hubtest.Bytes(new)}})
		w.outline = w.hub.Outline("org/m", w.commit)
		now, err := xet.NewFile(w.outline.Repo, w.commit, w.file("w"))
		if err != nil {
			t.Fatal(err)
		}
		test(t, w, now, then, w.file("w").Blob, old, new)
	})
}

// Whatever a delta covers it gives, and it covers nearly all that did not change.
func TestDelta(t *testing.T) {
	inRevisions(t, func(t *testing.T, w *world, now, then xet.File, blob pieces.Blob, old, new []byte) {
		d, err := w.client.Delta(t.Context(), now, xet.Local{File: then, Content: bytes.NewReader(old)})
		if err != nil {
			t.Fatal(err)
		}
		const step = 10_000
		covered := 0
		for off := 0; off < len(new); off += step {
			n := min(step, len(new)-off)
			rc, err := d.Open(t.Context(), blob, int64(off), int64(n))
			if d.Covers(int64(off), int64(n)) != (err == nil) {
				t.Fatalf("at %d: covered %v, %v", off, !(err == nil), err)
			}
			if err != nil {
				continue
			}
			covered += n
			if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, new[off:off+n]) {
				t.Fatalf("at %d: %d bytes, %v", off, len(got), err)
			}
		}
		if same := len(new) - mib - 77 - 300_000; covered > same || covered < same-10*xet.MaxChunk {
			t.Errorf("%d bytes are covered, %d are the same", covered, same)
		}
		if s := w.hub.Stats(); s.StoredBytes != 0 || s.Calls[hubtest.CAS] != 2 {
			t.Errorf("%d stored bytes, calls %v", s.StoredBytes, s.Calls)
		}
		if d.Covers(0, int64(len(new))) || d.Covers(int64(len(new)), 1) {
			t.Error("covers too much")
		}
	})
}

// An old file that is not what it was is no source, and one that changes while it
// is read is noticed, for good.
func TestDeltaOfASpoiledFile(t *testing.T) {
	inRevisions(t, func(t *testing.T, w *world, now, then xet.File, blob pieces.Blob, old, new []byte) {
		spoiled := bytes.Clone(old)
		spoiled[100] ^= 1
		if _, err := w.client.Delta(t.Context(), now, xet.Local{File: then, Content: bytes.NewReader(spoiled)}); !errors.Is(err, xet.ErrContent) {
			t.Errorf("spoiled: %v", err)
		}
		if _, err := w.client.Delta(t.Context(), now, xet.Local{File: then, Content: bytes.NewReader(old[:mib])}); err == nil {
			t.Error("cut short: no error")
		}
		later := bytes.Clone(old)
		d, err := w.client.Delta(t.Context(), now, xet.Local{File: then, Content: bytes.NewReader(later)})
		if err != nil {
			t.Fatal(err)
		}
		later[9*mib+mib/2] ^= 1
		rc, err := d.Open(t.Context(), blob, 200_000, mib/2)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(rc)
		var permanent interface{ Permanent() bool }
		if !errors.Is(err, xet.ErrContent) || !errors.As(err, &permanent) || !permanent.Permanent() {
			t.Errorf("changed meanwhile: %v", err)
		}
	})
}

// Files without a chunk in common are not read at all.
func TestDeltaOfStrangers(t *testing.T) {
	inWorld(t, hubtest.Xet{XorbSize: mib}, mixed(), func(t *testing.T, w *world) {
		a, _ := xet.NewFile(w.outline.Repo, w.commit, w.file("a.noise"))
		b, _ := xet.NewFile(w.outline.Repo, w.commit, w.file("c.text"))
		d, err := w.client.Delta(t.Context(), a, xet.Local{File: b, Content: nil})
		if err != nil || d.Covers(0, 1) {
			t.Errorf("%v", err)
		}
	})
}
