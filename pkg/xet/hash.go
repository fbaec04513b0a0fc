package xet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/zeebo/blake3"
)

// Hash names a chunk, a xorb or a file: a keyed BLAKE3. Its text is not plain
// hexadecimal: each group of eight bytes is written as one little-endian number.
type Hash [32]byte

// errBadHash marks text that names no hash.
var errBadHash = errors.New("want 64 hexadecimal digits")

// ParseHash reads the text form.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != 2*len(h) {
		return Hash{}, fmt.Errorf("parse hash %.80q: %w", s, errBadHash)
	}
	for g := range 4 {
		v, err := strconv.ParseUint(s[g*16:g*16+16], 16, 64)
		if err != nil || s[g*16] == '+' {
			return Hash{}, fmt.Errorf("parse hash %.80q: %w", s, errBadHash)
		}
		binary.LittleEndian.PutUint64(h[g*8:], v)
	}
	return h, nil
}

// String returns the text form, in lower case.
func (h Hash) String() string { return string(h.appendText(nil)) }

func (h *Hash) appendText(b []byte) []byte {
	const digits = "0123456789abcdef"
	for g := 0; g < len(h); g += 8 {
		for i := g + 7; i >= g; i-- {
			b = append(b, digits[h[i]>>4], digits[h[i]&15])
		}
	}
	return b
}

// mod is what the format calls "hash % n": of the last eight bytes.
func (h *Hash) mod(n uint64) uint64 { return binary.LittleEndian.Uint64(h[24:]) % n }

// The keys of the format (docs/xet/hashing.md of the Hub's documentation).
var (
	dataKey = [32]byte{
		0x66, 0x97, 0xf5, 0x77, 0x5b, 0x95, 0x50, 0xde, 0x31, 0x35, 0xcb, 0xac, 0xa5, 0x97, 0x18, 0x1c,
		0x9d, 0xe4, 0x21, 0x10, 0x9b, 0xeb, 0x2b, 0x58, 0xb4, 0xd0, 0xb0, 0x4b, 0x93, 0xad, 0xf2, 0x29,
	}
	nodeKey = [32]byte{
		0x01, 0x7e, 0xc5, 0xc7, 0xa5, 0x47, 0x29, 0x96, 0xfd, 0x94, 0x66, 0x66, 0xb4, 0x8a, 0x02, 0xe6,
		0x5d, 0xdd, 0x53, 0x6f, 0x37, 0xc7, 0x6d, 0xd2, 0xf8, 0x63, 0x52, 0xe6, 0x4a, 0x53, 0x71, 0x3f,
	}
)

// keyed is a BLAKE3 that is used again and again under one key. One goroutine
// uses it at a time.
type keyed struct{ h *blake3.Hasher }

func newKeyed(key [32]byte) keyed {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	return keyed{h}
}

func (k keyed) sum(p []byte) (out Hash) {
	k.h.Reset()
	k.h.Write(p)
	k.h.Sum(out[:0])
	return out
}

// ChunkHash names the plain bytes of one chunk.
func ChunkHash(plain []byte) Hash { return newKeyed(dataKey).sum(plain) }
