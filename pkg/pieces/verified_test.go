package pieces

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// sample returns a blob of three pieces, the last of 5 bytes, and its content.
func sample(t testing.TB) (Blob, []byte) {
	g := newGolden(t)
	return g.files[1].Blob, g.weights
}

func checkPiece(t *testing.T, v Verified, b Blob, index int, content []byte) {
	t.Helper()
	offset, n := b.Piece(index)
	want, s := content[offset:offset+n], v.Statement()
	if v.Blob() != b || v.Index() != index || v.Offset() != offset || !bytes.Equal(v.Bytes(), want) {
		t.Fatalf("got piece %d at %d of %s, want %d", v.Index(), v.Offset(), v.Blob(), index)
	}
	if s.ID != IDOf(want) || s.Check() != nil || s.Maker != testSigner().Maker() {
		t.Fatalf("piece %d: statement %+v", index, s)
	}
}

func TestCutterOverOddReaders(t *testing.T) {
	b, content := sample(t)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole":               func(r io.Reader) io.Reader { return r },
		"half":                iotest.HalfReader,
		"error with the data": iotest.DataErrReader,
		"half, with error":    func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.HalfReader(r)) },
		"random":              func(r io.Reader) io.Reader { return &randomReader{r, rand.New(rand.NewPCG(1, 2))} },
		"now and then nothing": func(r io.Reader) io.Reader {
			return &lazyReader{Reader: r, every: emptyReads - 1}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := wrap(bytes.NewReader(content))
			c := NewCutter(testSigner(), b, 0, 3, nil)
			for i := range 3 {
				v, err := c.Next(r)
				if err != nil {
					t.Fatal(err)
				}
				checkPiece(t, v, b, i, content)
			}
			if v, err := c.Next(r); err != io.EOF || v.Bytes() != nil {
				t.Errorf("behind the last: %v", err)
			}
			if c.Offset() != b.Size || c.Remaining() != 0 || c.Abandon() != nil {
				t.Errorf("at the end: offset %d, %d remaining", c.Offset(), c.Remaining())
			}
		})
	}
	t.Run("byte by byte", func(t *testing.T) {
		content := content[:1000]
		b := Blob{Digest: SHA256Digest(sha256.Sum256(content)), Size: 1000}
		v, err := NewCutter(testSigner(), b, 0, 1, nil).Next(iotest.OneByteReader(bytes.NewReader(content)))
		if err != nil {
			t.Fatal(err)
		}
		checkPiece(t, v, b, 0, content)
	})
}

type randomReader struct {
	io.Reader
	rand *rand.Rand
}

func (r *randomReader) Read(p []byte) (int, error) {
	return r.Reader.Read(p[:min(len(p), r.rand.IntN(100_000))])
}

// lazyReader returns nothing so many times before each read; 0 is for ever.
type lazyReader struct {
	io.Reader
	every, now int
}

func (r *lazyReader) Read(p []byte) (int, error) {
	if r.now++; r.every == 0 || r.now%(r.every+1) != 0 {
		return 0, nil
	}
	return r.Reader.Read(p)
}

// Wherever readers break, the pieces are the same, and Offset says where the
// next reader has to start.
func TestCutterSurvivesBreaks(t *testing.T) {
	b, content := sample(t)
	boom := errors.New("boom")
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		first := r.IntN(3)
		count := 1 + r.IntN(3-first)
		c := NewCutter(testSigner(), b, first, count, nil)
		for index := first; index < first+count; {
			offset := c.Offset()
			_, pieceEnd := b.Piece(first + count - 1)
			lastOffset, _ := b.Piece(first + count - 1)
			if want := lastOffset + pieceEnd - offset; c.Remaining() != want {
				t.Fatalf("seed %d: %d remaining at %d, want %d", seed, c.Remaining(), offset, want)
			}
			n := r.Int64N(min(c.Remaining(), 3<<20) + 1)
			var body io.Reader = bytes.NewReader(content[offset : offset+n])
			want := io.ErrUnexpectedEOF
			if r.IntN(2) == 0 {
				body, want = io.MultiReader(body, iotest.ErrReader(boom)), boom
			}
			for {
				v, err := c.Next(body)
				if err == io.EOF || err != nil && errors.Is(err, want) {
					break
				}
				if err != nil {
					t.Fatalf("seed %d: error %v, want %v", seed, err, want)
				}
				checkPiece(t, v, b, index, content)
				index++
			}
			if c.Offset() != offset+n {
				t.Fatalf("seed %d: offset %d after %d bytes at %d", seed, c.Offset(), n, offset)
			}
		}
	}
}

func TestCutterGivesUpOnAReaderThatReturnsNothing(t *testing.T) {
	b, _ := sample(t)
	c := NewCutter(testSigner(), b, 0, 1, nil)
	if _, err := c.Next(&lazyReader{}); err != io.ErrNoProgress {
		t.Errorf("error is %v", err)
	}
}

func TestCutterReadsNoByteTooMany(t *testing.T) {
	b, content := sample(t)
	r := bytes.NewReader(content)
	if _, err := NewCutter(testSigner(), b, 0, 1, nil).Next(r); err != nil {
		t.Fatal(err)
	}
	if read := len(content) - r.Len(); read != smallPiece {
		t.Errorf("read %d bytes for a piece of %d", read, smallPiece)
	}
}

func TestCutterUsesItsAllocator(t *testing.T) {
	b, content := sample(t)
	big := make([]byte, MaxPieceSize) // longer than asked for, and dirty
	for i := range big {
		big[i] = 0xaa
	}
	var asked []int
	c := NewCutter(testSigner(), b, 0, 3, func(n int) []byte { asked = append(asked, n); return big })
	r := bytes.NewReader(content[:len(content)-1])
	for i := range 2 {
		v, err := c.Next(r)
		if err != nil {
			t.Fatal(err)
		}
		checkPiece(t, v, b, i, content)
	}
	if _, err := c.Next(r); err != io.ErrUnexpectedEOF {
		t.Errorf("error is %v", err)
	}
	if buf := c.Abandon(); len(buf) != 5 || &buf[0] != &big[0] {
		t.Errorf("abandoned %d bytes", len(buf))
	}
	if len(asked) != 3 || asked[0] != smallPiece || asked[2] != 5 {
		t.Errorf("asked for %v", asked)
	}
}

func TestVerify(t *testing.T) {
	b, content := sample(t)
	statements := cutAll(t, b, content)
	for i, s := range statements {
		offset, n := b.Piece(i)
		v, err := Verify(s, content[offset:offset+n])
		if err != nil {
			t.Fatal(err)
		}
		checkPiece(t, v, b, i, content)
	}
	last := content[2*smallPiece:]
	for name, data := range map[string][]byte{
		"a flipped bit":    {last[0] ^ 1, last[1], last[2], last[3], last[4]},
		"a byte too few":   last[:4],
		"a byte too many":  append(bytes.Clone(last), 0),
		"nothing":          nil,
		"an other piece":   content[:smallPiece],
		"bytes in a knot":  {last[1], last[0], last[2], last[3], last[4]},
		"its own hash sum": statements[2].ID[:5],
	} {
		v, err := Verify(statements[2], data)
		mismatch, ok := errors.AsType[*MismatchError](err)
		if !ok || !errors.Is(err, ErrDigest) || mismatch.Index != 2 || mismatch.Blob != b || v.Bytes() != nil {
			t.Errorf("%s: %v", name, err)
		}
		if ok && !strings.HasPrefix(err.Error(), "piece 2 of "+b.String()+": want ") {
			t.Errorf("%s: message %q", name, err)
		}
	}
}

func BenchmarkCutter(b *testing.B) {
	blob, content := sample(b)
	buf := make([]byte, smallPiece)
	b.SetBytes(blob.Size)
	for b.Loop() {
		c, r := NewCutter(testSigner(), blob, 0, 3, func(int) []byte { return buf }), bytes.NewReader(content)
		for range 3 {
			if _, err := c.Next(r); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	blob, content := sample(b)
	s := cutAll(b, blob, content)[0]
	b.SetBytes(smallPiece)
	for b.Loop() {
		if _, err := Verify(s, content[:smallPiece]); err != nil {
			b.Fatal(err)
		}
	}
}
