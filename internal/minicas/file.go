package minicas

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"p2pagent/pkg/pieces"
)

// How a file is cut.
const (
	// ChunkSize is the plain length of a chunk, the most that clients accept.
	ChunkSize = 128 << 10
	// MaxPlain is the plain length of a xorb: a piece of the largest blobs, so that
	// what a client asks for at once comes with few of them.
	MaxPlain = 16 << 20

	headerSize = 8 // of a record: version, length, scheme, length
	stride     = headerSize + ChunkSize
	chunks     = MaxPlain / ChunkSize
)

// File is a file as the store has it.
type File struct {
	Name string      // in the store, 64 hex digits: the Hub's xetHash
	Blob pieces.Blob // by its SHA-256
}

// xorbs is how many there are.
func (f File) xorbs() int64 { return (f.Blob.Size + MaxPlain - 1) / MaxPlain }

// nameSize is how much of a blob's digest is in the name of a xorb; its number
// fills the rest of the 32 bytes.
const nameSize = 24

// xorbName returns the name of the i-th xorb.
func (f File) xorbName(i int64) string {
	var raw [nameSize + 8]byte
	copy(raw[:nameSize], f.Blob.Digest.Bytes())
	binary.BigEndian.PutUint64(raw[nameSize:], uint64(i))
	return hex.EncodeToString(raw[:])
}

// Xorb finds a xorb of the file by its name.
func (f File) Xorb(name string) (Xorb, bool) {
	raw, err := hex.DecodeString(name)
	if err != nil || len(raw) != nameSize+8 {
		return Xorb{}, false
	}
	i := binary.BigEndian.Uint64(raw[nameSize:])
	if i >= uint64(f.xorbs()) || name != f.xorbName(int64(i)) {
		return Xorb{}, false
	}
	return f.xorb(int64(i)), true
}

func (f File) xorb(i int64) Xorb {
	from := i * MaxPlain
	return Xorb{from: from, plain: min(MaxPlain, f.Blob.Size-from)}
}

// span is a range of chunks, end left out, or of bytes, end included.
type span struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"`
}

type term struct {
	Hash   string `json:"hash"`
	Length int64  `json:"unpacked_length"`
	Range  span   `json:"range"`
}

type fetchRange struct {
	Chunks span `json:"chunks"`
	Bytes  span `json:"bytes"`
}

type fetch struct {
	URL    string       `json:"url"`
	Ranges []fetchRange `json:"ranges"`
}

type fetchV1 struct {
	Range    span   `json:"range"`
	URL      string `json:"url"`
	URLRange span   `json:"url_range"`
}

// Reconstruction tells how to put a range of a file together. Either Xorbs or
// Fetches is set, by the version of the question.
type Reconstruction struct {
	Skip    int64                `json:"offset_into_first_range"`
	Terms   []term               `json:"terms"`
	Xorbs   map[string][]fetch   `json:"xorbs,omitempty"`      // version 2
	Fetches map[string][]fetchV1 `json:"fetch_info,omitempty"` // version 1
}

// Reconstruct answers for the bytes [first, last] of the file, both in it; what is
// to be fetched are whole chunks, as at the Hub. url gives the address of a xorb.
func (f File) Reconstruct(version int, first, last int64, url func(xorb string) string) Reconstruction {
	r := Reconstruction{Skip: first % ChunkSize, Xorbs: map[string][]fetch{}, Fetches: map[string][]fetchV1{}}
	for i := first / MaxPlain; i <= last/MaxPlain; i++ {
		x, name := f.xorb(i), f.xorbName(i)
		part := span{max(first-x.from, 0) / ChunkSize, min(last-x.from, x.plain-1)/ChunkSize + 1}
		begin, end := part.Start*ChunkSize, min(part.End*ChunkSize, x.plain)
		bytes := span{part.Start * stride, end + part.End*headerSize - 1}
		r.Terms = append(r.Terms, term{name, end - begin, part})
		if version == 1 {
			r.Fetches[name] = []fetchV1{{part, url(name), bytes}}
		} else {
			r.Xorbs[name] = []fetch{{url(name), []fetchRange{{part, bytes}}}}
		}
	}
	return r
}

// IsName tells whether a word can be the name of a file or a xorb.
func IsName(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
