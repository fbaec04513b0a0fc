package hubtest

import (
	"bytes"
	"errors"
	"testing"

	"p2pagent/pkg/xet"
)

func someChunks() (out []xet.Node) {
	for i := range 20 {
		out = append(out, xet.Node{Hash: xet.ChunkHash([]byte{byte(i)}), Size: uint64(30_000 + i)})
	}
	return out
}

func TestFooter(t *testing.T) {
	f := footer{Chunks: someChunks()}
	f.Xorb = xet.Root(f.Chunks)
	var end uint64
	for _, c := range f.Chunks {
		end += c.Size + 8
		f.Ends = append(f.Ends, uint32(end))
	}
	b := appendFooter(nil, f)
	if int64(len(b)) != xet.FooterLength(len(f.Chunks)) {
		t.Errorf("%d bytes, want %d", len(b), xet.FooterLength(len(f.Chunks)))
	}
	got, err := parseFooter(b)
	if err != nil || got.Xorb != f.Xorb || len(got.Ends) != len(f.Ends) || got.Ends[5] != f.Ends[5] || got.Chunks[7] != f.Chunks[7] {
		t.Errorf("read back: %v", err)
	}
	for _, at := range []int{0, 7, 8, 40, 50, 60, 100, len(b) - 1, len(b) - 24, len(b) - 40} {
		bad := bytes.Clone(b)
		bad[at] ^= 1
		if _, err := parseFooter(bad); at != len(b)-24 && !errors.Is(err, errFooter) {
			t.Errorf("byte %d changed: %v", at, err)
		}
	}
	for _, n := range []int{0, 3, 95, len(b) - 1} {
		if _, err := parseFooter(b[:n]); !errors.Is(err, errFooter) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
}

func FuzzFooter(f *testing.F) {
	chunks := someChunks()
	f.Add(appendFooter(nil, footer{Xorb: xet.Root(chunks), Chunks: chunks, Ends: make([]uint32, len(chunks))}))
	f.Add(appendFooter(nil, footer{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFooter(b)
		if err != nil {
			if !errors.Is(err, errFooter) {
				t.Fatalf("error without a kind: %v", err)
			}
			return
		}
		if len(got.Chunks) > len(b)/footerChunk || len(got.Ends) != len(got.Chunks) {
			t.Fatalf("%d chunks of %d bytes", len(got.Chunks), len(b))
		}
	})
}
