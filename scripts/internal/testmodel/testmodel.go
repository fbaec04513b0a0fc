package testmodel

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Options say what to write.
type Options struct {
	Size   int64  // bytes of all shards together, headers included
	Shards int    // number of model-*.safetensors files
	Seed   uint64 // another seed makes another model of the same shape
	// Normal draws the weights from a normal distribution, as those of a trained model
	// are; else they are quicker to make.
	Normal bool
	// Twins adds two files that have bytes of the shards in them: see writeTwins.
	Twins bool
}

// minShard keeps room for a header and a tensor in every shard.
const minShard = 64 << 10

// File is one file that was written.
type File struct {
	Path   string // relative, with slashes
	Size   int64
	SHA256 string
}

// Write makes the model in dir, which is created when it is missing, and
// returns its files sorted by path. Nothing is synced: these are throw-away
// files. After an error dir holds some part of the model.
func Write(dir string, o Options) ([]File, error) {
	if o.Shards < 1 || o.Shards > 99999 || o.Size < int64(o.Shards)*minShard {
		return nil, fmt.Errorf("make model: %d shards of %d bytes in all: want at least one shard of %d bytes", o.Shards, o.Size, minShard)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make model: %w", err)
	}
	shards, weights := plan(o)
	files, err := writeShards(dir, o, shards)
	if err != nil {
		return nil, fmt.Errorf("make model: %w", err)
	}
	if o.Twins {
		twins, err := writeTwins(dir, o, shards)
		if err != nil {
			return nil, fmt.Errorf("make model: %w", err)
		}
		files = append(files, twins...)
	}
	for path, content := range smallFiles(o, weights) {
		f, err := writeSmall(dir, path, content)
		if err != nil {
			return nil, fmt.Errorf("make model: %w", err)
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return files, nil
}

// writeShards uses every core: hashing and filling memory are what takes time.
func writeShards(dir string, o Options, shards []shard) ([]File, error) {
	files, errs := make([]File, len(shards)), make([]error, len(shards))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for i, s := range shards {
		slots <- struct{}{}
		all.Go(func() {
			files[i], errs[i] = s.write(dir, func(w io.Writer) error { return o.writeWeights(w, s.bytes(), o.seedOf(i)) })
			<-slots
		})
	}
	all.Wait()
	return files, errors.Join(errs...)
}

func (o Options) seedOf(shard int) uint64 { return o.Seed + uint64(shard)<<32 }

func writeSmall(dir, path, content string) (File, error) {
	sum := sha256.Sum256([]byte(content))
	file := File{Path: path, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	return file, os.WriteFile(filepath.Join(dir, filepath.FromSlash(path)), []byte(content), 0o644)
}

// Sums returns the files in the form that sha256sum -c reads.
func Sums(files []File) string {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%s  %s\n", f.SHA256, f.Path)
	}
	return b.String()
}
