package cachefs

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"

	"p2pagent/pkg/pieces"
)

// The journal of a partial blob and the proof of a whole one hold the same
// records behind different headers. All numbers are little-endian.
//
//	header  magic (8) · digest length (1) · digest (32) · blob size (8) · zero (11) · crc32c (4)
//	record  kind (1) · zero (3) · piece index (4) · id (32) · maker (32) · signature (64) · crc32c (4)
//
// A record's checksum starts from the header's, so a record can't be taken for
// one of another blob.
const (
	headerSize = 64
	recordSize = 140

	journalMagic  = "p2pjrn\x00\x01"
	proofMagic    = "p2pprf\x00\x01"
	journalSuffix = ".journal"

	kindPiece = 1 // the only kind so far; others end the reading
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errHeader  = errors.New("bad header")
	errRecord  = errors.New("bad record")
)

func appendHeader(out []byte, magic string, b pieces.Blob) []byte {
	start := len(out)
	out = append(out, magic...)
	raw := b.Digest.Bytes()
	out = append(out, byte(len(raw)))
	out = append(out, raw...)
	out = append(out, make([]byte, 32-len(raw))...)
	out = binary.LittleEndian.AppendUint64(out, uint64(b.Size))
	out = append(out, make([]byte, 11)...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli))
}

// parseHeader returns the blob and the checksum that the records start from.
func parseHeader(in []byte, magic string) (pieces.Blob, uint32, error) {
	if len(in) < headerSize || string(in[:8]) != magic || in[8] > 32 {
		return pieces.Blob{}, 0, errHeader
	}
	sum := binary.LittleEndian.Uint32(in[60:])
	if crc32.Checksum(in[:60], castagnoli) != sum {
		return pieces.Blob{}, 0, errHeader
	}
	size := binary.LittleEndian.Uint64(in[41:])
	digest, err := digestFrom(in[9 : 9+in[8]])
	if err != nil || size > pieces.MaxBlobSize {
		return pieces.Blob{}, 0, errHeader
	}
	return pieces.Blob{Digest: digest, Size: int64(size)}, sum, nil
}

func appendRecord(out []byte, seed uint32, s pieces.Statement) []byte {
	start := len(out)
	out = append(out, kindPiece, 0, 0, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(s.Index))
	out = append(out, s.ID[:]...)
	out = append(out, s.Maker[:]...)
	out = append(out, s.Sig[:]...)
	return binary.LittleEndian.AppendUint32(out, crc32.Update(seed, castagnoli, out[start:]))
}

func parseRecord(in []byte, seed uint32, b pieces.Blob) (pieces.Statement, error) {
	if len(in) < recordSize || crc32.Update(seed, castagnoli, in[:136]) != binary.LittleEndian.Uint32(in[136:]) {
		return pieces.Statement{}, errRecord
	}
	s := pieces.Statement{
		Blob: b, Index: int(binary.LittleEndian.Uint32(in[4:])),
		ID: pieces.ID(in[8:40]), Maker: pieces.Maker(in[40:72]), Sig: [64]byte(in[72:136]),
	}
	if in[0] != kindPiece || s.Index >= b.Pieces() {
		return pieces.Statement{}, errRecord
	}
	return s, nil
}

// parseJournal returns what a journal proves and how many of its bytes do so.
// Whatever follows the first record that is torn or bad is not believed.
func parseJournal(in []byte) (b pieces.Blob, statements []pieces.Statement, good int, err error) {
	b, seed, err := parseHeader(in, journalMagic)
	if err != nil {
		return pieces.Blob{}, nil, 0, err
	}
	good = headerSize
	for good < len(in) {
		s, err := parseRecord(in[good:], seed, b)
		if err != nil {
			break
		}
		statements = append(statements, s)
		good += recordSize
	}
	return b, statements, good, nil
}

// encodeJournal is the inverse of parseJournal.
func encodeJournal(b pieces.Blob, statements []pieces.Statement) []byte {
	out := appendHeader(make([]byte, 0, headerSize+len(statements)*recordSize), journalMagic, b)
	seed := binary.LittleEndian.Uint32(out[60:])
	for _, s := range statements {
		out = appendRecord(out, seed, s)
	}
	return out
}

func digestFrom(raw []byte) (pieces.Digest, error) {
	return pieces.ParseDigest(hex.EncodeToString(raw))
}
