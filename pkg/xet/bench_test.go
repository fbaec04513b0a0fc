package xet

import (
	"bytes"
	"io"
	"testing"

	"github.com/pierrec/lz4/v4"
)

const benchChunk = 64 << 10

func contents() map[string][]byte {
	return map[string][]byte{"noise": splitmix64(1, benchChunk), "text": pseudoText(2, benchChunk), "weights": bfloats(3, benchChunk)}
}

// BenchmarkRecords is what a reader does for each chunk: parse, decode, hash. The
// raw limits that it is compared with are BenchmarkLimits.
func BenchmarkRecords(b *testing.B) {
	for _, c := range []struct {
		name   string
		scheme Scheme
	}{{"noise", None}, {"text", LZ4}, {"weights", BG4LZ4}} {
		stored := bytes.Repeat(record(b, c.scheme, contents()[c.name]), 64)
		d, in := NewRecords(), bytes.NewReader(nil)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(64 * benchChunk)
			for b.Loop() {
				in.Reset(stored)
				d.Reset(in)
				for {
					if _, _, err := d.Next(); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkLimits is what the libraries do alone.
func BenchmarkLimits(b *testing.B) {
	plain := make([]byte, benchChunk)
	b.Run("blake3", func(b *testing.B) {
		k := newKeyed(dataKey)
		b.SetBytes(benchChunk)
		for b.Loop() {
			k.sum(plain)
		}
	})
	b.Run("copy", func(b *testing.B) {
		src := splitmix64(1, benchChunk)
		b.SetBytes(benchChunk)
		for b.Loop() {
			copy(plain, src)
		}
	})
	for name, data := range contents() {
		grouped := make([]byte, len(data))
		Regroup(grouped, data)
		b.Run("lz4 "+name, func(b *testing.B) { uncompress(b, data) })
		b.Run("lz4 grouped "+name, func(b *testing.B) { uncompress(b, grouped) })
	}
	b.Run("ungroup", func(b *testing.B) {
		src := splitmix64(1, benchChunk)
		b.SetBytes(benchChunk)
		for b.Loop() {
			ungroup(plain, src)
		}
	})
}

func uncompress(b *testing.B, data []byte) {
	block, _, ok := onlyBlock(frame(b, data, usual...))
	if !ok {
		b.Fatal("no simple frame")
	}
	out := make([]byte, len(data))
	if _, raw, _ := onlyBlock(frame(b, data, usual...)); raw {
		b.Skip("stored raw: it does not compress")
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := lz4.UncompressBlock(block, out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCut(b *testing.B) {
	data := splitmix64(1, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			rest = rest[Current.Cut(rest):]
		}
	}
}

func BenchmarkFileHash(b *testing.B) {
	chunks := make([]Node, 480_000) // 30 GB
	for i := range chunks {
		chunks[i] = Node{Hash(splitmix64(uint64(i), 32)), 64 << 10}
	}
	for b.Loop() {
		FileHash(chunks)
	}
}
