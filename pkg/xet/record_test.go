package xet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/pierrec/lz4/v4"
)

// The first four are of zig-xet, the last of draft-denis-xet.
func TestGroups(t *testing.T) {
	for _, test := range [][2]string{
		{"00010203040506070809", "00040801050902060307"},
		{"000102030405060708090a0b0c", "0004080c01050902060a03070b"},
		{"000102030405060708090a0b0c0d0e", "0004080c0105090d02060a0e03070b"},
		{"0001020304050607", "0004010502060307"},
		{"101112132021222330313233", "102030112131122232132333"},
	} {
		plain, _ := hex.DecodeString(test[0])
		got := make([]byte, len(plain))
		Regroup(got, plain)
		if hex.EncodeToString(got) != test[1] {
			t.Errorf("%s: grouped %x", test[0], got)
		}
	}
	for n := range 300 {
		plain := splitmix64(uint64(n), n)
		grouped, back := make([]byte, n), make([]byte, n)
		Regroup(grouped, plain)
		ungroup(back, grouped)
		if !bytes.Equal(back, plain) {
			t.Errorf("%d bytes come back changed", n)
		}
	}
}

func frames() map[string][]lz4.Option {
	return map[string][]lz4.Option{
		"as the official client":  usual,
		"block of 4 MiB":          {lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block4Mb)},
		"several blocks":          {lz4.ChecksumOption(false), lz4.BlockSizeOption(lz4.Block64Kb)},
		"checksum of the content": {lz4.ChecksumOption(true)},
		"checksums of blocks":     {lz4.BlockChecksumOption(true)},
		"size of the content":     {lz4.SizeOption(100_000), lz4.ChecksumOption(false)},
	}
}

func TestRecords(t *testing.T) {
	for name, data := range map[string][]byte{
		"text": pseudoText(1, 100_000), "weights": bfloats(2, 100_000), "noise": splitmix64(3, 100_000), "zeros": make([]byte, 100_000),
	} {
		var stored []byte
		for _, s := range []Scheme{None, LZ4, BG4LZ4} {
			stored = append(stored, record(t, s, data)...)
		}
		for _, o := range frames() {
			stored = append(stored, record(t, LZ4, data, o...)...)
			stored = append(stored, record(t, BG4LZ4, data, o...)...)
		}
		for how, in := range map[string]io.Reader{"at once": bytes.NewReader(stored), "byte by byte": iotest.OneByteReader(bytes.NewReader(stored))} {
			d, count := NewRecords(), 0
			d.Reset(in)
			for ; ; count++ {
				plain, hash, err := d.Next()
				if err == io.EOF {
					break
				}
				if err != nil || !bytes.Equal(plain, data) || hash != ChunkHash(data) {
					t.Fatalf("%s %s: record %d: %v", name, how, count, err)
				}
			}
			if count != 15 || d.Stored() != int64(len(stored)) {
				t.Errorf("%s %s: %d records, %d of %d bytes", name, how, count, d.Stored(), len(stored))
			}
		}
	}
}

func TestRecordsSkip(t *testing.T) {
	a, b := pseudoText(1, 5000), splitmix64(2, 6000)
	stored := append(record(t, LZ4, a), record(t, None, b)...)
	d := NewRecords()
	d.Reset(bytes.NewReader(append(stored, "XETBLOB\x01 and what else a footer has"...)))
	if err := d.Skip(); err != nil {
		t.Fatal(err)
	}
	if plain, _, err := d.Next(); err != nil || !bytes.Equal(plain, b) {
		t.Errorf("second record: %v", err)
	}
	if _, _, err := d.Next(); err != io.EOF {
		t.Errorf("at the footer: %v", err)
	}
	if d.Stored() != int64(len(stored)) {
		t.Errorf("%d bytes, want %d", d.Stored(), len(stored))
	}
}

func TestBadRecords(t *testing.T) {
	data := pseudoText(1, 9000)
	lz := record(t, LZ4, data)
	change := func(b []byte, at int, to byte) []byte {
		b = bytes.Clone(b)
		b[at] = to
		return b
	}
	body := func(s Scheme, plain int, b []byte) []byte { return append(AppendHeader(nil, s, len(b), plain), b...) }
	whole := lz[recordHeader:]
	for name, test := range map[string]struct {
		stored []byte
		want   error
	}{
		"version":                {change(lz, 0, 1), ErrRecord},
		"scheme":                 {change(lz, 4, 3), ErrRecord},
		"no plain bytes":         {body(LZ4, 0, whole), ErrRecord},
		"plain too long":         {body(LZ4, MaxChunk+1, whole), ErrRecord},
		"no body":                {body(None, 0, nil), ErrRecord},
		"body too long":          {AppendHeader(nil, LZ4, maxBody+1, 10), ErrRecord},
		"lengths differ":         {body(None, 8999, data), ErrRecord},
		"one byte too few":       {body(LZ4, 9001, whole), ErrRecord},
		"one byte too many":      {body(LZ4, 8999, whole), ErrRecord},
		"no magic":               {change(lz, recordHeader, 5), ErrRecord},
		"no end mark":            {body(LZ4, 9000, whole[:len(whole)-4]), ErrRecord},
		"something behind it":    {body(LZ4, 9000, append(bytes.Clone(whole), 0)), ErrRecord},
		"a frame of two":         {body(LZ4, 9000, append(bytes.Clone(whole), whole...)), ErrRecord},
		"a legacy frame":         {body(LZ4, 4, []byte{2, 0x21, 0x4c, 0x18, 1, 0, 0, 0}), ErrRecord},
		"an empty frame":         {body(LZ4, 9, frame(t, nil, usual...)), ErrRecord},
		"checksum of the frame":  {change(record(t, LZ4, data, lz4.ChecksumOption(true)), len(record(t, LZ4, data, lz4.ChecksumOption(true)))-1, 0x55), ErrRecord},
		"cut in the body":        {lz[:len(lz)-1], io.ErrUnexpectedEOF},
		"cut in the header":      {lz[:7], io.ErrUnexpectedEOF},
		"a body that never ends": {AppendHeader(nil, LZ4, maxBody, 10), io.ErrUnexpectedEOF},
	} {
		d := NewRecords()
		d.Reset(bytes.NewReader(test.stored))
		if _, _, err := d.Next(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// Whatever byte of a record is flipped, the chunk is refused or has another hash.
func TestFlippedByteIsSeen(t *testing.T) {
	data := bfloats(5, 3000)
	for _, s := range []Scheme{None, LZ4, BG4LZ4} {
		stored, d := record(t, s, data), NewRecords()
		for i := range stored {
			stored[i] ^= 0x10
			d.Reset(bytes.NewReader(stored))
			plain, hash, err := d.Next()
			if err == nil && hash == ChunkHash(data) && !bytes.Equal(plain, data) {
				t.Errorf("scheme %d: byte %d flipped: other bytes, same hash", s, i)
			}
			if err == nil && hash == ChunkHash(data) && s == None {
				t.Errorf("scheme %d: byte %d flipped, not seen", s, i)
			}
			stored[i] ^= 0x10
		}
	}
}
