package xet

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// Whatever the bytes are: no panic, no output beyond the limits, and an error that
// says what is wrong.
func FuzzRecords(f *testing.F) {
	for _, s := range []Scheme{None, LZ4, BG4LZ4} {
		f.Add(append(record(f, s, pseudoText(1, 2000)), record(f, s, splitmix64(2, 301))...))
	}
	f.Add(record(f, LZ4, pseudoText(1, 2000), frames()["checksums of blocks"]...))
	f.Add([]byte("XETBLOB\x01"))
	d := NewRecords()
	f.Fuzz(func(t *testing.T, stored []byte) {
		d.Reset(bytes.NewReader(stored))
		for {
			plain, hash, err := d.Next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrRecord) {
					t.Fatalf("error without a kind: %v", err)
				}
				return
			}
			if len(plain) == 0 || len(plain) > MaxChunk || hash != ChunkHash(plain) {
				t.Fatalf("%d plain bytes, hash %s", len(plain), hash)
			}
		}
	})
}
