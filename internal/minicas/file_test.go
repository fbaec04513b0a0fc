package minicas_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"p2pagent/internal/minicas"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/xet"
)

// held is a file of which the first so many bytes are here.
type held struct {
	data []byte
	here int64
}

var errLater = fmt.Errorf("not here yet")

func (h held) Await(_ context.Context, off int64) (int64, error) {
	if off >= h.here {
		return 0, errLater
	}
	return h.here - off, nil
}

func (h held) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > h.here {
		return 0, fmt.Errorf("%d+%d of %d: not promised", off, len(p), h.here)
	}
	return copy(p, h.data[off:]), nil
}

func fileOf(data []byte) minicas.File {
	return minicas.File{Name: strings.Repeat("ab", 32), Blob: pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(data)), Size: int64(len(data))}}
}

func random(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// answer is a reconstruction as a client reads it, of either version.
type answer struct {
	Skip  int64 `json:"offset_into_first_range"`
	Terms []struct {
		Hash   string
		Length int64 `json:"unpacked_length"`
		Range  struct{ Start, End int }
	}
	Xorbs map[string][]struct {
		URL    string
		Ranges []struct{ Chunks, Bytes struct{ Start, End int64 } }
	}
	Fetches map[string][]struct {
		URL      string
		Range    struct{ Start, End int64 }
		URLRange struct{ Start, End int64 } `json:"url_range"`
	} `json:"fetch_info"`
}

// bytesOf returns where in the xorb of a term its chunks are.
func (a answer) bytesOf(t *testing.T, name string) (url string, from, to int64) {
	if x := a.Xorbs[name]; len(x) == 1 && len(x[0].Ranges) == 1 {
		return x[0].URL, x[0].Ranges[0].Bytes.Start, x[0].Ranges[0].Bytes.End
	}
	if x := a.Fetches[name]; len(x) == 1 {
		return x[0].URL, x[0].URLRange.Start, x[0].URLRange.End
	}
	t.Fatalf("no one place for %s in %+v", name, a)
	return "", 0, 0
}

// assemble reads a range of a file as a client of the store does: the terms in
// their order, their records out of the range that the answer names.
func assemble(t *testing.T, f minicas.File, src minicas.Source, version int, first, last int64) []byte {
	raw, err := json.Marshal(f.Reconstruct(version, first, last, func(xorb string) string { return "http://x/" + xorb }))
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatal(err)
	}
	if (len(a.Xorbs) > 0) == (version == 1) || (len(a.Fetches) > 0) != (version == 1) {
		t.Fatalf("version %d: %s", version, raw)
	}
	var out []byte
	for _, term := range a.Terms {
		url, from, to := a.bytesOf(t, term.Hash)
		x, ok := f.Xorb(term.Hash)
		if !ok || url != "http://x/"+term.Hash || to >= x.Size() {
			t.Fatalf("term %+v: %q, %d-%d of %d", term, url, from, to, x.Size())
		}
		body := make([]byte, to-from+1)
		if n, err := (minicas.Object{Xorb: x, Of: src}).ReadAt(body, from); err != nil || n != len(body) {
			t.Fatalf("%d of %d bytes: %v", n, len(body), err)
		}
		out = append(out, decode(t, body, term.Range.End-term.Range.Start, term.Length)...)
	}
	return out[a.Skip:][:last-first+1]
}

// decode reads records with the reader that reads the Hub's.
func decode(t *testing.T, body []byte, chunks int, want int64) (out []byte) {
	records := xet.NewRecords()
	records.Reset(bytes.NewReader(body))
	for range chunks {
		plain, _, err := records.Next()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, plain...)
	}
	if records.Stored() != int64(len(body)) || int64(len(out)) != want {
		t.Fatalf("records of %d bytes in %d, %d plain ones of %d", records.Stored(), len(body), len(out), want)
	}
	return out
}

// What a client puts together is the range it asked for, in both versions.
func TestReconstruct(t *testing.T) {
	const c, x = minicas.ChunkSize, minicas.MaxPlain
	for _, size := range []int{1, c - 1, c, c + 1, x - 1, x, x + 1, 2*x + c + 7} {
		data := random(size)
		f, src, end := fileOf(data), held{data, int64(size)}, int64(size)-1
		for _, r := range [][2]int64{{0, end}, {end, end}, {0, 0}, {end / 2, end}, {end / 3, end / 2}, {min(x-1, end), min(x, end)}, {min(c, end), min(c, end)}} {
			for version := 1; version <= 2; version++ {
				if got := assemble(t, f, src, version, r[0], r[1]); !bytes.Equal(got, data[r[0]:r[1]+1]) {
					t.Errorf("%d bytes, version %d, %d-%d: other bytes", size, version, r[0], r[1])
				}
			}
		}
	}
}

// A file of 60 GB has no number that overflows, and no bytes are needed to say how
// it is put together.
func TestReconstructHuge(t *testing.T) {
	f := fileOf(nil)
	f.Blob.Size = 60_000_000_000
	r := f.Reconstruct(2, 0, f.Blob.Size-1, func(string) string { return "" })
	var total int64
	for _, term := range r.Terms {
		if _, ok := f.Xorb(term.Hash); !ok {
			t.Fatalf("no xorb %s", term.Hash)
		}
		total += term.Length
	}
	if total != f.Blob.Size || len(r.Terms) != 3577 || len(r.Xorbs) != len(r.Terms) {
		t.Errorf("%d bytes in %d terms of %d xorbs", total, len(r.Terms), len(r.Xorbs))
	}
}

// No more of a xorb is promised than of the file is here, and no less.
func TestObjectAwait(t *testing.T) {
	const c = minicas.ChunkSize
	data := random(minicas.MaxPlain + 3*c + 5)
	f := fileOf(data)
	r := f.Reconstruct(2, minicas.MaxPlain, int64(len(data))-1, func(string) string { return "" })
	x, _ := f.Xorb(r.Terms[0].Hash) // the second one
	for _, test := range []struct{ here, off, want int64 }{
		{0, 0, 0}, {1, 0, 9}, {1, 5, 4}, {1, 8, 1}, {1, 9, 0},
		{c, 0, c + 8}, {c, c + 8, 0}, {c + 1, c + 8, 9}, {c + 1, 0, c + 17},
		{3*c + 5, 0, 3*c + 5 + 4*8}, {3*c + 5, 3*(c+8) + 12, 1},
	} {
		o := minicas.Object{Xorb: x, Of: held{data, minicas.MaxPlain + test.here}}
		n, err := o.Await(t.Context(), test.off)
		if n != test.want || (err != nil) != (test.want == 0) {
			t.Errorf("%d plain bytes are here: from %d on %d, %v, want %d", test.here, test.off, n, err, test.want)
			continue
		}
		if k, err := o.ReadAt(make([]byte, n), test.off); int64(k) != n || err != nil {
			t.Errorf("%d bytes were promised: %d, %v", n, k, err)
		}
	}
	o := minicas.Object{Xorb: x, Of: held{data, int64(len(data))}}
	if n, err := o.ReadAt(make([]byte, 100), o.Size()-10); n != 10 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// A name that is not one of the file's xorbs finds none.
func TestXorbName(t *testing.T) {
	f := fileOf(random(minicas.MaxPlain + 1))
	r := f.Reconstruct(2, 0, f.Blob.Size-1, func(string) string { return "" })
	good := r.Terms[1].Hash
	for _, bad := range []string{"", "zz", good[:62], good + "00", strings.ToUpper(good), good[:63] + "2", "00" + good[2:], good[:48] + "ffffffffffffffff"} {
		if x, ok := f.Xorb(bad); ok {
			t.Errorf("%q: %+v", bad, x)
		}
	}
	if !minicas.IsName(good) || minicas.IsName(good+"0") || minicas.IsName(strings.ToUpper(good)) || minicas.IsName(good[:63]+"g") {
		t.Error("IsName")
	}
}
