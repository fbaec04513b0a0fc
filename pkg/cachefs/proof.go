package cachefs

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"strings"
	"syscall"

	"p2pagent/pkg/pieces"
)

// stamp tells one state of one file from any other: who replaces or changes the
// file changes the stamp.
type stamp struct {
	inode uint64
	size  int64
	mtime int64 // nanoseconds
}

func stampOf(info fs.FileInfo) stamp {
	return stamp{inode: info.Sys().(*syscall.Stat_t).Ino, size: info.Size(), mtime: info.ModTime().UnixNano()}
}

// place is where a whole blob lies: its name in the cache, and the state in which the
// file's digest was found right. The name is that of a blob, or, where links don't
// work, of the first file of a snapshot that needs it.
type place struct {
	name string
	stamp
}

// folder returns the folder of the repository that the place belongs to.
func (p place) folder() string {
	folder, _, _ := strings.Cut(p.name, "/")
	return folder
}

// proof is what a proof file says: a blob is whole, where, and what its pieces are.
//
//	header (see journal.go; another magic, nonce 0) · number of places (4)
//	place   length (2) · name · inode (8) · size (8) · modification time (8)
//	record  one for each piece, ascending
//	crc32c over all of it (4)
//
// It is written without a sync: a torn one is noticed and only costs hashing the
// blob again.
type proof struct {
	blob       pieces.Blob
	places     []place
	statements []pieces.Statement
}

func (p *proof) encode() []byte {
	out, seed := appendHeader(nil, proofMagic, p.blob, 0)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(p.places)))
	for _, at := range p.places {
		out = binary.LittleEndian.AppendUint16(out, uint16(len(at.name)))
		out = append(out, at.name...)
		out = binary.LittleEndian.AppendUint64(out, at.inode)
		out = binary.LittleEndian.AppendUint64(out, uint64(at.size))
		out = binary.LittleEndian.AppendUint64(out, uint64(at.mtime))
	}
	for _, s := range p.statements {
		out = appendRecord(out, seed, pieceRecord(s))
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

var errProof = errors.New("bad proof")

func parseProof(in []byte) (*proof, error) {
	h, err := parseHeader(in, proofMagic)
	if err != nil {
		return nil, err
	}
	end := len(in) - 4
	if h.nonce != 0 || end < headerSize+4 || crc32.Checksum(in[:end], castagnoli) != binary.LittleEndian.Uint32(in[end:]) {
		return nil, errProof
	}
	p := &proof{blob: h.blob}
	rest, err := p.parsePlaces(in[headerSize:end])
	if err != nil {
		return nil, err
	}
	return p, p.parseStatements(rest, h.sum)
}

func (p *proof) parsePlaces(in []byte) (rest []byte, err error) {
	n := binary.LittleEndian.Uint32(in)
	in = in[4:]
	for range n {
		if len(in) < 2 || len(in) < 2+int(binary.LittleEndian.Uint16(in))+24 {
			return nil, errProof
		}
		end := 2 + int(binary.LittleEndian.Uint16(in))
		name, tail := string(in[2:end]), in[end:]
		p.places = append(p.places, place{name: name, stamp: stamp{
			inode: binary.LittleEndian.Uint64(tail),
			size:  int64(binary.LittleEndian.Uint64(tail[8:])),
			mtime: int64(binary.LittleEndian.Uint64(tail[16:])),
		}})
		in = tail[24:]
	}
	return in, nil
}

func (p *proof) parseStatements(in []byte, seed uint32) error {
	n := p.blob.Pieces()
	if len(in) != n*recordSize {
		return errProof
	}
	p.statements = make([]pieces.Statement, n)
	for i := range p.statements {
		r, err := parseRecord(in[i*recordSize:], seed)
		if err != nil {
			return errProof
		}
		if p.statements[i], err = r.statement(p.blob); err != nil || r.number != i {
			return errProof
		}
	}
	return nil
}
