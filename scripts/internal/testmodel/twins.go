package testmodel

import (
	"io"
	"os"
	"path/filepath"
)

// writeTwins writes two files that have bytes of the shards: twin.safetensors is the
// first shard with other names of its tensors, so with another header;
// mixed.safetensors has a run of the first shard, as many new bytes, and a run of the
// last shard.
func writeTwins(dir string, o Options, shards []shard) ([]File, error) {
	first, last := shards[0], shards[len(shards)-1]
	twin := first.renamed("twin.safetensors", "copy.of.")
	a, err := twin.write(dir, func(w io.Writer) error { return o.writeWeights(w, twin.bytes(), o.seedOf(0)) })
	if err != nil {
		return nil, err
	}
	n := last.bytes() / 4 &^ 1
	mixed := shard{name: "mixed.safetensors", tensors: []tensor{{"mixed", []int64{3 * n / 2}, 3 * n}}}
	mixed.header = mixed.encode(248)
	mixed.size = int64(len(mixed.header)) + 3*n
	b, err := mixed.write(dir, func(w io.Writer) error {
		if err := copyRun(w, dir, first, n/2, n); err != nil {
			return err
		}
		if err := o.writeWeights(w, n, o.seedOf(len(shards))); err != nil {
			return err
		}
		return copyRun(w, dir, last, 2*n, n)
	})
	return []File{a, b}, err
}

// renamed is the shard with a word before the names of its tensors.
func (s shard) renamed(file, prefix string) shard {
	tensors := make([]tensor, 0, len(s.tensors))
	for _, t := range s.tensors {
		t.name = prefix + t.name
		tensors = append(tensors, t)
	}
	room := int64(len(s.header) - 8 + len(tensors)*len(prefix))
	room += (headerAlign - room%headerAlign) % headerAlign
	n := s.bytes()
	s.name, s.tensors = file, tensors
	s.header = s.encode(room)
	s.size = int64(len(s.header)) + n
	return s
}

// copyRun copies n bytes of a shard that was written.
func copyRun(w io.Writer, dir string, s shard, off, n int64) error {
	f, err := os.Open(filepath.Join(dir, s.name))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, io.NewSectionReader(f, off, n))
	return err
}
