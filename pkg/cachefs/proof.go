package cachefs

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
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

// place is where a whole blob lies: the folder of a repository, and the state in
// which the file's digest was found right.
type place struct {
	folder string
	stamp
}

// A proof file says that a blob is whole, where, and what its pieces are:
//
//	header (see journal.go, another magic) · number of places (4)
//	place   length (1) · folder · inode (8) · size (8) · modification time (8)
//	record  one for each piece, ascending
//	crc32c over all of it (4)
//
// It is written without a sync: a torn one is noticed and only costs hashing the
// blob again.
func encodeProof(b pieces.Blob, places []place, statements []pieces.Statement) []byte {
	out := appendHeader(nil, proofMagic, b)
	seed := binary.LittleEndian.Uint32(out[60:])
	out = binary.LittleEndian.AppendUint32(out, uint32(len(places)))
	for _, p := range places {
		out = append(out, byte(len(p.folder)))
		out = append(out, p.folder...)
		out = binary.LittleEndian.AppendUint64(out, p.inode)
		out = binary.LittleEndian.AppendUint64(out, uint64(p.size))
		out = binary.LittleEndian.AppendUint64(out, uint64(p.mtime))
	}
	for _, s := range statements {
		out = appendRecord(out, seed, s)
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

var errProof = errors.New("bad proof")

func parseProof(in []byte) (pieces.Blob, []place, []pieces.Statement, error) {
	b, seed, err := parseHeader(in, proofMagic)
	if err != nil {
		return pieces.Blob{}, nil, nil, err
	}
	end := len(in) - 4
	if end < headerSize+4 || crc32.Checksum(in[:end], castagnoli) != binary.LittleEndian.Uint32(in[end:]) {
		return pieces.Blob{}, nil, nil, errProof
	}
	places, rest, err := parsePlaces(in[headerSize:end])
	if err != nil || len(rest) != b.Pieces()*recordSize {
		return pieces.Blob{}, nil, nil, errProof
	}
	statements := make([]pieces.Statement, b.Pieces())
	for i := range statements {
		s, err := parseRecord(rest[i*recordSize:], seed, b)
		if err != nil || s.Index != i {
			return pieces.Blob{}, nil, nil, errProof
		}
		statements[i] = s
	}
	return b, places, statements, nil
}

func parsePlaces(in []byte) (places []place, rest []byte, err error) {
	n := binary.LittleEndian.Uint32(in)
	in = in[4:]
	for range n {
		if len(in) < 1 || len(in) < 1+int(in[0])+24 {
			return nil, nil, errProof
		}
		folder, tail := string(in[1:1+in[0]]), in[1+in[0]:]
		places = append(places, place{folder: folder, stamp: stamp{
			inode: binary.LittleEndian.Uint64(tail),
			size:  int64(binary.LittleEndian.Uint64(tail[8:])),
			mtime: int64(binary.LittleEndian.Uint64(tail[16:])),
		}})
		in = tail[24:]
	}
	return places, in, nil
}
