package xet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// splitmix64 makes n bytes as xet-core's tests do.
func splitmix64(state uint64, n int) []byte {
	out := make([]byte, 0, n+8)
	for len(out) < n {
		state += 0x9E3779B97F4A7C15
		z := state
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		out = binary.LittleEndian.AppendUint64(out, z^z>>31)
	}
	return out[:n]
}

// bfloats are n bytes that look like weights: they compress once they are grouped.
func bfloats(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n+2)
	for len(out) < n {
		v := r.Uint32()
		out = append(out, byte(v), byte(0x3c|v>>8&1|v>>1&0x80))
	}
	return out[:n]
}

func pseudoText(seed uint64, n int) []byte {
	words := []string{"weight ", "token ", "model ", "layer ", "{\"id\": ", "}, ", "0.125 ", "attention "}
	r := rand.New(rand.NewPCG(seed, 2))
	out := make([]byte, 0, n+16)
	for len(out) < n {
		out = append(out, words[r.IntN(len(words))]...)
	}
	return out[:n]
}

// chunksOf cuts a file.
func chunksOf(r Rule, data []byte) (out []Node) {
	for len(data) > 0 {
		n := r.Cut(data)
		out = append(out, Node{ChunkHash(data[:n]), uint64(n)})
		data = data[n:]
	}
	return out
}

// frame is an LZ4 frame, written by the library with these options.
func frame(t testing.TB, p []byte, o ...lz4.Option) []byte {
	t.Helper()
	var out sliceWriter
	w := lz4.NewWriter(&out)
	if err := w.Apply(o...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// usual are the options that give frames as the official client writes them.
var usual = []lz4.Option{lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block256Kb)}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) { *s = append(*s, p...); return len(p), nil }

// record encodes a chunk.
func record(t testing.TB, s Scheme, plain []byte, o ...lz4.Option) []byte {
	t.Helper()
	body := plain
	if s == BG4LZ4 {
		body = make([]byte, len(plain))
		Regroup(body, plain)
	}
	if s != None {
		if len(o) == 0 {
			o = usual
		}
		body = frame(t, body, o...)
	}
	return append(AppendHeader(nil, s, len(body), len(plain)), body...)
}

func pcg(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n)
	for len(out) < n {
		out = binary.LittleEndian.AppendUint64(out, r.Uint64())
	}
	return out
}
