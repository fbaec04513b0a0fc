package pieces

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"
)

// bigBlob is three pieces and a bit, of random bytes.
func bigBlob(t testing.TB) (Blob, []byte) {
	data := make([]byte, 3*smallPiece+12345)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return Blob{Digest: SHA256Digest(sha256.Sum256(data)), Size: int64(len(data))}, data
}

// The form of crypto/sha256's state is not promised by its documentation.
func TestBorderIsTheStateOfTheHash(t *testing.T) {
	b, data := bigBlob(t)
	h := sha256.New()
	for off := int64(0); off+smallPiece <= b.Size; off += smallPiece {
		at, ok := BorderAt(h, off)
		if !ok {
			t.Fatalf("no border at %d", off)
		}
		rest := at.hashFrom(off)
		rest.Write(data[off:])
		if err := b.Check(rest); err != nil {
			t.Errorf("from the border at %d on: %v", off, err)
		}
		h.Write(data[off : off+smallPiece])
	}
	short := sha256.New()
	short.Write(data[:100])
	git := sha1.New()
	for why, bad := range map[string]func() (Border, bool){
		"another number of bytes": func() (Border, bool) { return BorderAt(h, 64) },
		"the middle of a block":   func() (Border, bool) { return BorderAt(short, 100) },
		"SHA-1":                   func() (Border, bool) { return BorderAt(git, 0) },
		"SHA-224":                 func() (Border, bool) { return BorderAt(sha256.New224(), 0) },
	} {
		if _, ok := bad(); ok {
			t.Errorf("%s has a border", why)
		}
	}
}

// Statements of a cutter that knows the border have borders, but for the last
// piece, and lead the digest to its end with the last piece alone.
func TestStatementsLeadToTheDigest(t *testing.T) {
	b, data := bigBlob(t)
	for _, first := range []int{0, 2} {
		c := NewCutter(testSigner(), b, first, b.Pieces()-first, nil)
		running := sha256.New()
		running.Write(data[:int64(first)*smallPiece])
		if first > 0 {
			at, _ := BorderAt(running, c.Offset())
			c.From(at)
		}
		r := bytes.NewReader(data[c.Offset():])
		for i := first; i < b.Pieces(); i++ {
			v, err := c.Next(r)
			if err != nil {
				t.Fatal(err)
			}
			st := v.Statement()
			if err := st.Check(); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(st, v.Bytes()); err != nil {
				t.Error(err)
			}
			if last := i == b.Pieces()-1; st.Bordered() == last || st.Advance(running) == last {
				t.Errorf("piece %d: borders %v", i, st.Bordered())
			}
		}
		running.Write(data[3*smallPiece:])
		if err := b.Check(running); err != nil {
			t.Error(err)
		}
	}
}

// The border may become known while an extent is being cut.
func TestACutterAsksForTheBorder(t *testing.T) {
	b, data := bigBlob(t)
	c := NewCutter(testSigner(), b, 1, 3, nil)
	r := bytes.NewReader(data[smallPiece:])
	for i := 1; i < b.Pieces(); i++ {
		if index, lacks := c.Lacks(); lacks != (i < 3) || lacks && index != i {
			t.Errorf("before piece %d: lacks %v that of %d", i, lacks, index)
		}
		if i == 2 {
			sum := sha256.New()
			sum.Write(data[:2*smallPiece])
			at, _ := BorderAt(sum, 2*smallPiece)
			c.From(at)
		}
		v, err := c.Next(r)
		if err != nil {
			t.Fatal(err)
		}
		st := v.Statement()
		if st.Bordered() != (i == 2) {
			t.Errorf("piece %d has borders: %v", i, st.Bordered())
		}
		if _, err := Verify(st, v.Bytes()); err != nil {
			t.Error(err)
		}
	}
	if _, lacks := c.Lacks(); lacks {
		t.Error("lacks a border behind the end")
	}
}

// A digest is never led on from another state than the one that the piece was
// hashed from.
func TestAdvanceOnlyFromItsBorder(t *testing.T) {
	b, data := bigBlob(t)
	st := cutAll(t, b, data)[1]
	other := sha256.New()
	other.Write(make([]byte, smallPiece))
	early := sha256.New()
	if st.Advance(other) || st.Advance(early) {
		t.Error("advanced from another border")
	}
	st.Mark = Mark{ID: st.ID}
	right := sha256.New()
	right.Write(data[:smallPiece])
	if st.Advance(right) {
		t.Error("advanced without borders")
	}
}

func TestVerifyBetweenBorders(t *testing.T) {
	b, data := bigBlob(t)
	good := cutAll(t, b, data)[1]
	piece := data[smallPiece : 2*smallPiece]
	flipped := bytes.Clone(piece)
	flipped[77] ^= 1
	mismatch, lie := (*MismatchError)(nil), (*FalseStatementError)(nil)
	if _, err := Verify(good, flipped); !errors.As(err, &mismatch) || !errors.Is(err, ErrDigest) {
		t.Errorf("a flipped bit: %v", err)
	}
	for why, change := range map[string]func(m *Mark){
		"before": func(m *Mark) { m.Before[0] ^= 1 },
		"after":  func(m *Mark) { m.After[31] ^= 1 },
	} {
		m := good.Mark
		change(&m)
		st := testSigner().State(b, 1, m)
		if err := st.Check(); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(st, piece); !errors.As(err, &lie) || errors.Is(err, ErrDigest) || lie.Statement != st {
			t.Errorf("a wrong border %s: %v", why, err)
		}
		if _, err := Verify(st, flipped); !errors.As(err, &mismatch) {
			t.Errorf("a wrong border %s and a flipped bit: %v", why, err)
		}
	}
}
