package pieces

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/quick"
)

const (
	sha256OfEmpty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	gitOfEmpty    = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
)

func mustDigest(t testing.TB, s string) Digest {
	t.Helper()
	d, err := ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseDigest(t *testing.T) {
	for _, s := range []string{sha256OfEmpty, gitOfEmpty, strings.Repeat("0", 40), strings.Repeat("f", 64)} {
		d, err := ParseDigest(s)
		if err != nil || d.String() != s || d.IsZero() || d.Git() != (len(s) == 40) || len(d.Bytes()) != len(s)/2 {
			t.Errorf("ParseDigest(%q) = %q, %v", s, d, err)
		}
	}
	for _, s := range []string{
		"", "0", "e3", sha256OfEmpty + "00", sha256OfEmpty[:62], gitOfEmpty[:38], gitOfEmpty + "0",
		strings.ToUpper(gitOfEmpty), "E" + gitOfEmpty[1:], "g" + gitOfEmpty[1:], " " + gitOfEmpty, gitOfEmpty + "\n",
		"0x" + gitOfEmpty[2:], "sha256:" + sha256OfEmpty, strings.Repeat("é", 20), strings.Repeat("0", 1<<16),
	} {
		if d, err := ParseDigest(s); err == nil || !d.IsZero() {
			t.Errorf("ParseDigest(%.80q) = %q, want an error", s, d)
		}
	}
}

func TestDigestsAreComparable(t *testing.T) {
	a, b := mustDigest(t, gitOfEmpty), mustDigest(t, gitOfEmpty)
	long := mustDigest(t, gitOfEmpty+strings.Repeat("0", 24))
	if a != b || a == long || (a == Digest{}) {
		t.Error("equal digests differ, or different ones are equal")
	}
	raw := a.Bytes()
	raw[0]++
	if a != b {
		t.Error("Bytes is not a copy")
	}
}

func TestCheckWholeBlobs(t *testing.T) {
	for _, test := range []struct{ digest, content string }{
		{sha256OfEmpty, ""},
		{gitOfEmpty, ""},
		{"3b18e512dba79e4c8300dd08aeb37f8e728b8dad", "hello world\n"},
		{"b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9", "hello world"},
	} {
		b := Blob{Digest: mustDigest(t, test.digest), Size: int64(len(test.content))}
		h := b.NewHash()
		h.Write([]byte(test.content))
		if err := b.Check(h); err != nil {
			t.Errorf("%q: %v", test.content, err)
		}
		h.Write([]byte("x"))
		err := b.Check(h)
		mismatch, ok := errors.AsType[*MismatchError](err)
		if !ok || !errors.Is(err, ErrDigest) || mismatch.Index != WholeBlob || mismatch.Blob != b || mismatch.Want != test.digest {
			t.Errorf("%q and more: %v", test.content, err)
		}
	}
	// The length is part of a git digest.
	h := Blob{Digest: mustDigest(t, gitOfEmpty), Size: 1}.NewHash()
	if (Blob{Digest: mustDigest(t, gitOfEmpty)}).Check(h) == nil {
		t.Error("an empty blob of one byte passes")
	}
	if (Blob{}).Check((Blob{}).NewHash()) == nil {
		t.Error("the zero Blob passes")
	}
}

func TestPieceSizes(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		size, piece int64
		count       int
		last        int64
	}{
		{0, 4 << 20, 0, 0},
		{1, 4 << 20, 1, 1},
		{4<<20 - 1, 4 << 20, 1, 4<<20 - 1},
		{4 << 20, 4 << 20, 1, 4 << 20},
		{4<<20 + 1, 4 << 20, 2, 1},
		{8 * gib, 4 << 20, 2048, 4 << 20},
		{8*gib + 1, 8 << 20, 1025, 1},
		{32 * gib, 8 << 20, 4096, 8 << 20},
		{32*gib + 1, 16 << 20, 2049, 1},
		{60_000_000_000, 16 << 20, 3577, 60_000_000_000 - 3576*(16<<20)},
		{MaxBlobSize, 16 << 20, 1 << 20, 16 << 20},
	} {
		b := Blob{Size: test.size}
		if b.PieceSize() != test.piece || b.Pieces() != test.count {
			t.Errorf("%d bytes: %d pieces of %d, want %d of %d", test.size, b.Pieces(), b.PieceSize(), test.count, test.piece)
		}
		if test.count == 0 {
			continue
		}
		if offset, n := b.Piece(test.count - 1); n != test.last || offset+n != test.size {
			t.Errorf("%d bytes: last piece has %d bytes at %d, want %d", test.size, n, offset, test.last)
		}
	}
}

func TestPiecesTileTheBlob(t *testing.T) {
	tile := func(n uint64) bool {
		b := Blob{Size: int64(n % (100 << 30))}
		var at int64
		for i := range b.Pieces() {
			offset, length := b.Piece(i)
			if offset != at || length <= 0 || length > MaxPieceSize {
				return false
			}
			at += length
		}
		return at == b.Size
	}
	if err := quick.Check(tile, &quick.Config{MaxCount: 200}); err != nil {
		t.Error(err)
	}
}

func TestPieceOutOfRangePanics(t *testing.T) {
	for _, index := range []int{-1, 2, 1 << 40} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("piece %d of 2 exists", index)
				}
			}()
			Blob{Size: 5 << 20}.Piece(index)
		}()
	}
}

func ExampleBlob_Piece() {
	b := Blob{Size: 10_000_000}
	for i := range b.Pieces() {
		fmt.Println(b.Piece(i))
	}
	// Output:
	// 0 4194304
	// 4194304 4194304
	// 8388608 1611392
}
