package hubtest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"p2pagent/pkg/pieces"
)

// Content is what a file holds. ReadAt must be safe for concurrent use.
type Content interface {
	io.ReaderAt
	Size() int64
}

// Bytes is content held in memory.
func Bytes(b []byte) Content { return memory(b) }

type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m memory) writeTo(w io.Writer, off, n int64) (int64, error) {
	k, err := w.Write(m[off : off+n])
	return int64(k), err
}

// period is the length after which generated content repeats: a prime just over
// 1 MiB, so that no two of the first million pieces of a blob are alike and yet
// any range is written to a socket straight from one small buffer.
const period = 1<<20 + 7

// Generated returns content that depends on the seed and the size alone and looks
// random. It needs 1 MiB of memory whatever its size.
func Generated(seed uint64, size int64) Content {
	return &generated{seed: seed, size: size, pattern: sync.OnceValue(func() []byte { return patternOf(seed, size) })}
}

type generated struct {
	seed    uint64
	size    int64
	pattern func() []byte
}

func patternOf(seed uint64, size int64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	binary.LittleEndian.PutUint64(key[8:], uint64(size))
	p := make([]byte, min(period, size))
	rand.NewChaCha8(key).Read(p)
	return p
}

func (g *generated) Size() int64 { return g.size }

func (g *generated) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < g.size {
		from := g.pattern()[off%period:]
		k := copy(p[n:], from[:min(int64(len(from)), g.size-off)])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (g *generated) writeTo(w io.Writer, off, n int64) (done int64, err error) {
	for done < n && err == nil {
		var k int
		from := g.pattern()[(off+done)%period:]
		k, err = w.Write(from[:min(int64(len(from)), n-done)])
		done += int64(k)
	}
	return done, err
}

// OnDisk is content in a file, which must not change. It is opened for each
// request: what is served leaves by sendfile where the connection allows it, and
// a repository of thousands of files holds none of them open.
func OnDisk(path string) (Content, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("content %s: not a regular file", path)
	}
	return &disk{path: path, size: info.Size()}, nil
}

type disk struct {
	path string
	size int64
}

func (d *disk) Size() int64 { return d.size }

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, off)
}

func (d *disk) writeTo(w io.Writer, off, n int64) (int64, error) {
	f, err := os.Open(d.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(w, io.LimitReader(f, n))
}

// FromDir lists the regular files below a directory as a repository's files;
// symbolic links are followed, so that a snapshot of a cache can be served.
func FromDir(dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := OnDisk(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		files = append(files, File{Path: filepath.ToSlash(rel), Content: content})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	return files, nil
}

// writerTo is content that can write a range of itself without a copy.
type writerTo interface {
	writeTo(w io.Writer, off, n int64) (int64, error)
}

func writeRange(w io.Writer, c Content, off, n int64) (int64, error) {
	if t, ok := c.(writerTo); ok {
		return t.writeTo(w, off, n)
	}
	return io.CopyBuffer(w, io.NewSectionReader(c, off, n), make([]byte, 256<<10))
}

// digests of generated content are kept for the life of the process: a test
// binary that serves one model from many servers hashes it once.
var digests sync.Map // generatedKey -> string

type generatedKey struct {
	seed uint64
	size int64
}

func sha256Of(c Content) string {
	g, ok := c.(*generated)
	if !ok {
		return sum(sha256.New(), c)
	}
	key := generatedKey{g.seed, g.size}
	if d, ok := digests.Load(key); ok {
		return d.(string)
	}
	d := sum(sha256.New(), c)
	digests.Store(key, d)
	return d
}

func gitSHA1(c Content) string {
	h := sha1.New()
	h.Write([]byte("blob " + strconv.FormatInt(c.Size(), 10) + "\x00"))
	return sum(h, c)
}

func sum(h hash.Hash, c Content) string {
	if _, err := writeRange(h, c, 0, c.Size()); err != nil {
		panic("hubtest: read content: " + err.Error())
	}
	return hex.EncodeToString(h.Sum(nil))
}

// pointer is the text that git holds in place of an LFS file.
func pointer(digest string, size int64) Content {
	return memory(fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", digest, size))
}

func mustDigest(s string) pieces.Digest {
	d, err := pieces.ParseDigest(s)
	if err != nil {
		panic("hubtest: " + err.Error())
	}
	return d
}
