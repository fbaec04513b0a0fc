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
//	header  magic (8) · digest length (1) · digest (32) · blob size (8) · nonce (8) · zero (3) · crc32c (4)
//	record  kind (1) · zero (3) · number (4) · payload (192) · crc32c (4)
//
// The checksum of a record starts from the header's, so a record can't be taken
// for one of another blob, nor of an earlier attempt at the same. The kinds:
//
//	1  piece   number is its index; payload: id (32), maker (32), signature (64),
//	           the borders around it (32, 32) or zeros
//	2  digest  the running digest after that many pieces; payload: length (1), the state as
//	           crypto/sha256 or crypto/sha1 marshal it. A state that can't be read only costs
//	           hashing the pieces again.
const (
	headerSize  = 64
	recordSize  = 204
	payloadSize = 192

	// Room for a record for each piece of the largest blob, and as many of digests.
	maxJournalBytes = headerSize + 2*recordSize*(pieces.MaxBlobSize/pieces.MaxPieceSize)

	journalMagic = "p2pjrn\x00\x02"
	proofMagic   = "p2pprf\x00\x03"

	kindPiece  = 1
	kindDigest = 2
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errHeader  = errors.New("bad header")
	errRecord  = errors.New("bad record")
)

// header is what the records that follow are about.
type header struct {
	blob  pieces.Blob
	nonce uint64
	sum   uint32 // the header's checksum, from which the records' start
}

// appendHeader also returns the checksum that the records start from.
func appendHeader(out []byte, magic string, b pieces.Blob, nonce uint64) ([]byte, uint32) {
	var h [headerSize]byte
	copy(h[:8], magic)
	h[8] = byte(copy(h[9:41], b.Digest.Bytes()))
	binary.LittleEndian.PutUint64(h[41:], uint64(b.Size))
	binary.LittleEndian.PutUint64(h[49:], nonce)
	sum := crc32.Checksum(h[:60], castagnoli)
	binary.LittleEndian.PutUint32(h[60:], sum)
	return append(out, h[:]...), sum
}

func parseHeader(in []byte, magic string) (header, error) {
	if len(in) < headerSize || string(in[:8]) != magic || in[8] > 32 {
		return header{}, errHeader
	}
	digest, err := pieces.ParseDigest(hex.EncodeToString(in[9 : 9+in[8]]))
	size := binary.LittleEndian.Uint64(in[41:])
	if err != nil || size > pieces.MaxBlobSize {
		return header{}, errHeader
	}
	h := header{blob: pieces.Blob{Digest: digest, Size: int64(size)}, nonce: binary.LittleEndian.Uint64(in[49:])}
	again, sum := appendHeader(nil, magic, h.blob, h.nonce)
	if string(again) != string(in[:headerSize]) {
		return header{}, errHeader
	}
	h.sum = sum
	return h, nil
}

// record is one record as it lies on disk, the checksum apart.
type record struct {
	kind    byte
	number  int
	payload [payloadSize]byte
}

func appendRecord(out []byte, seed uint32, r record) []byte {
	start := len(out)
	out = append(out, r.kind, 0, 0, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(r.number))
	out = append(out, r.payload[:]...)
	return binary.LittleEndian.AppendUint32(out, crc32.Update(seed, castagnoli, out[start:]))
}

func parseRecord(in []byte, seed uint32) (record, error) {
	if len(in) < recordSize {
		return record{}, errRecord
	}
	r := record{kind: in[0], number: int(binary.LittleEndian.Uint32(in[4:])), payload: [payloadSize]byte(in[8:])}
	if string(appendRecord(nil, seed, r)) != string(in[:recordSize]) {
		return record{}, errRecord
	}
	return r, nil
}

func pieceRecord(s pieces.Statement) record {
	r := record{kind: kindPiece, number: s.Index}
	copy(r.payload[:32], s.ID[:])
	copy(r.payload[32:64], s.Maker[:])
	copy(r.payload[64:128], s.Sig[:])
	copy(r.payload[128:160], s.Before[:])
	copy(r.payload[160:], s.After[:])
	return r
}

func (r record) statement(b pieces.Blob) (pieces.Statement, error) {
	if r.kind != kindPiece || r.number >= b.Pieces() {
		return pieces.Statement{}, errRecord
	}
	return pieces.Statement{
		Blob: b, Index: r.number,
		Mark:  pieces.Mark{ID: pieces.ID(r.payload[:32]), Before: pieces.Border(r.payload[128:160]), After: pieces.Border(r.payload[160:])},
		Maker: pieces.Maker(r.payload[32:64]), Sig: [64]byte(r.payload[64:128]),
	}, nil
}

// digestRecord returns false when the state does not fit, which no hash in use
// comes near to.
func digestRecord(hashed int, state []byte) (record, bool) {
	r := record{kind: kindDigest, number: hashed}
	if len(state) >= payloadSize {
		return r, false
	}
	r.payload[0] = byte(copy(r.payload[1:], state))
	return r, true
}

func (r record) digest(b pieces.Blob) ([]byte, error) {
	n := int(r.payload[0])
	if r.kind != kindDigest || r.number > b.Pieces() || n >= payloadSize {
		return nil, errRecord
	}
	return r.payload[1 : 1+n], nil
}

// journal is what a journal says about a partial blob.
type journal struct {
	header
	statements []pieces.Statement // in the order they were written; the last one of a piece counts
	hashed     int                // pieces that state covers
	state      []byte
	good       int // bytes up to the first record that is torn or bad
}

// parseJournal reads as far as the records are good: what follows a bad one is
// not believed.
func parseJournal(in []byte) (*journal, error) {
	h, err := parseHeader(in, journalMagic)
	if err != nil {
		return nil, err
	}
	j := &journal{header: h, good: headerSize}
	for {
		r, err := parseRecord(in[j.good:], h.sum)
		if err != nil || j.add(r) != nil {
			return j, nil
		}
		j.good += recordSize
	}
}

func (j *journal) add(r record) error {
	if r.kind == kindDigest {
		state, err := r.digest(j.blob)
		if err == nil {
			j.hashed, j.state = r.number, state
		}
		return err
	}
	s, err := r.statement(j.blob)
	if err == nil {
		j.statements = append(j.statements, s)
	}
	return err
}

// encodeJournal writes a journal of pieces alone.
func encodeJournal(b pieces.Blob, nonce uint64, statements []pieces.Statement) []byte {
	out, seed := appendHeader(make([]byte, 0, headerSize+len(statements)*recordSize), journalMagic, b, nonce)
	for _, s := range statements {
		out = appendRecord(out, seed, pieceRecord(s))
	}
	return out
}
