package cachefs

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"p2pagent/pkg/pieces"
)

// readLog is a file that remembers which pieces were read.
type readLog struct {
	io.ReaderAt
	size int64 // of a piece
	seen map[int]bool
}

func (r readLog) ReadAt(p []byte, off int64) (int, error) {
	r.seen[int(off/r.size)] = true
	return r.ReaderAt.ReadAt(p, off)
}

// extended puts the pieces of a blob last piece first, then has the digest catch
// up, and returns what was read for it.
func extended(t *testing.T, change func(pieces.Verified) pieces.Verified) map[int]bool {
	t.Helper()
	data := randomBytes(3, 4*4<<20+77)
	m := newModel(repoA, commitA, map[string][]byte{"w": data}, nil)
	b := m.blobs()[0]
	c := newRig(t).open(t)
	if err := c.Begin(t.Context(), repoA, m.blobs()); err != nil {
		t.Fatal(err)
	}
	all := cut(t, b, data)
	for i := range all {
		if err := c.Put(t.Context(), change(all[len(all)-1-i])); err != nil {
			t.Fatal(err)
		}
	}
	p := c.partial(b)
	file := readLog{bytes.NewReader(data), b.PieceSize(), map[int]bool{}}
	if err := p.extend(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if err := c.Complete(t.Context(), b); err != nil {
		t.Error(err)
	}
	return file.seen
}

func TestAPieceWithBordersIsHashedOnce(t *testing.T) {
	seen := extended(t, func(v pieces.Verified) pieces.Verified { return v })
	if len(seen) != 1 || !seen[4] {
		t.Errorf("read pieces %v for the digest, want the last one alone", seen)
	}
}

// Borders are a maker's word. Where they do not fit what is known here the bytes
// are hashed, and the digest is right all the same.
func TestBordersThatLeadElsewhereAreNotFollowed(t *testing.T) {
	seen := extended(t, func(v pieces.Verified) pieces.Verified {
		if v.Index() != 2 {
			return v
		}
		c := pieces.NewCutter(signer(1), v.Blob(), 2, 1, nil)
		other, _ := pieces.BorderAt(sha256.New(), 0)
		c.From(other) // as if piece 2 were the first
		out, err := c.Next(bytes.NewReader(v.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		return out
	})
	if len(seen) != 2 || !seen[2] || !seen[4] {
		t.Errorf("read pieces %v for the digest, want 2 and 4", seen)
	}
}

func TestBorder(t *testing.T) {
	data := randomBytes(3, 3*4<<20+77)
	m := newModel(repoA, commitA, map[string][]byte{"w": data}, nil)
	b := m.blobs()[0]
	c := newRig(t).open(t)
	if err := c.Begin(t.Context(), repoA, m.blobs()); err != nil {
		t.Fatal(err)
	}
	all := cut(t, b, data)
	plain := pieces.NewCutter(signer(1), b, 1, 1, nil) // without borders
	second, err := plain.Next(bytes.NewReader(all[1].Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	want := func(index int, known bool, why string) {
		t.Helper()
		got, ok := c.Border(b, index)
		h := sha256.New()
		h.Write(data[:int64(index)*b.PieceSize()])
		if right, _ := pieces.BorderAt(h, int64(index)*b.PieceSize()); ok != known || (ok && got != right) {
			t.Errorf("border before piece %d %s: %v", index, why, ok)
		}
	}
	put := func(v pieces.Verified) {
		t.Helper()
		if err := c.Put(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	want(0, true, "of any blob")
	want(1, false, "while nothing is held")
	put(second)
	want(2, false, "behind a piece without borders")
	put(all[0])
	want(1, true, "out of a statement")
	if err := c.extendFile(t.Context(), c.partial(b)); err != nil {
		t.Fatal(err)
	}
	want(2, true, "where the running digest is")
	want(3, false, "ahead of it")
}
