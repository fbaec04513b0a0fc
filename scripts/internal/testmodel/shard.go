package testmodel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
)

// hidden and rows give a tensor of 8 MiB: the usual order of size of one weight.
const (
	hidden      = 1024
	rows        = 4096
	tensorBytes = 2 * hidden * rows
	headerAlign = 8
)

// tensor is one entry of a shard's header.
type tensor struct {
	name  string
	shape []int64
	bytes int64
}

// shard is one safetensors file: 8 bytes of header length, the header in JSON
// padded with spaces, then the tensors back to back.
type shard struct {
	name    string
	header  []byte
	tensors []tensor
	size    int64
}

// plan shares the bytes among the shards and says which tensor is in which file.
func plan(o Options) (shards []shard, weights map[string]string) {
	weights = make(map[string]string)
	layer := 0
	for i := range o.Shards {
		size := o.Size / int64(o.Shards)
		if i == o.Shards-1 {
			size = o.Size - size*int64(o.Shards-1)
		}
		s := shard{name: fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, o.Shards), size: size}
		s.fill(&layer)
		for _, t := range s.tensors {
			weights[t.name] = s.name
		}
		shards = append(shards, s)
	}
	return shards, weights
}

// fill chooses the tensors so that the file has exactly its size. The header
// must be known to know what is left for tensors, and the tensors to know the
// header, so room for the header is guessed by the count and padded.
func (s *shard) fill(layer *int) {
	room := int64(512 + 160*(s.size/tensorBytes+1))
	room += (headerAlign - room%headerAlign) % headerAlign
	left := s.size - 8 - room
	if left%2 == 1 { // bfloat16 has two bytes
		room, left = room+1, left-1
	}
	for left > 0 {
		n := min(left, tensorBytes)
		t := tensor{name: fmt.Sprintf("model.layers.%d.mlp.down_proj.weight", *layer), shape: []int64{n / 2}, bytes: n}
		if n == tensorBytes {
			t.shape = []int64{rows, hidden}
		}
		s.tensors, left = append(s.tensors, t), left-n
		*layer++
	}
	s.header = s.encode(room)
}

func (s *shard) encode(room int64) []byte {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	head := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var at int64
	for _, t := range s.tensors {
		head[t.name] = entry{"BF16", t.shape, [2]int64{at, at + t.bytes}}
		at += t.bytes
	}
	text, err := json.Marshal(head)
	if err != nil || int64(len(text)) > room {
		panic(fmt.Sprintf("testmodel: header of %d bytes in %d: %v", len(text), room, err)) // a wrong guess in fill
	}
	out := binary.LittleEndian.AppendUint64(nil, uint64(room))
	out = append(out, text...)
	for int64(len(out)) < 8+room {
		out = append(out, ' ')
	}
	return out
}

// write writes the header, and the tensors by body.
func (s *shard) write(dir string, body func(io.Writer) error) (_ File, err error) {
	f, err := os.Create(filepath.Join(dir, s.name))
	if err != nil {
		return File{}, err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	digest := sha256.New()
	out := io.MultiWriter(f, digest)
	if _, err := out.Write(s.header); err != nil {
		return File{}, err
	}
	if err := body(out); err != nil {
		return File{}, err
	}
	return File{Path: s.name, Size: s.size, SHA256: hex.EncodeToString(digest.Sum(nil))}, nil
}

// bytes returns how long the tensors are.
func (s *shard) bytes() int64 { return s.size - int64(len(s.header)) }

func (o Options) writeWeights(w io.Writer, n int64, seed uint64) error {
	fill, buf := weights, make([]byte, 1<<20)
	if o.Normal {
		fill = normalWeights()
	}
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		seed = fill(buf, seed)
		if _, err := w.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
	}
	return nil
}

// normalWeights returns what fills buf with bfloat16 numbers of a normal
// distribution, mean 0 and deviation 0.02, as trained weights have: each of 65,536
// equally likely ones.
func normalWeights() func(buf []byte, state uint64) uint64 {
	var table [1 << 16]uint16
	for i := range table {
		p := (float64(i) + 0.5) / float64(len(table))
		table[i] = uint16(math.Float32bits(float32(0.02*math.Sqrt2*math.Erfinv(2*p-1))) >> 16)
	}
	return func(buf []byte, state uint64) uint64 {
		for i := 0; i+8 <= len(buf); i += 8 {
			var z uint64
			z, state = next(state)
			for k := range 4 {
				binary.LittleEndian.PutUint16(buf[i+2*k:], table[uint16(z>>(16*k))])
			}
		}
		return state
	}
}

// next is a step of splitmix64.
func next(state uint64) (value, after uint64) {
	state += 0x9e3779b97f4a7c15
	z := state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31, state
}

// weights fills buf with bfloat16 numbers of ±2^-7 to ±2^-5, as weights are,
// and never NaN: random sign, mantissa and last bit of the exponent. The
// generator is splitmix64, one step for four numbers.
func weights(buf []byte, state uint64) uint64 {
	for i := 0; i+8 <= len(buf); i += 8 {
		var z uint64
		z, state = next(state)
		binary.LittleEndian.PutUint64(buf[i:], z&0x80ff80ff80ff80ff|0x3c003c003c003c00)
	}
	return state
}
