package cachefs

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// lfsFrom is the size from which a file is stored by SHA-256, and binarySuffixes
// are stored so at any size: the Hub's own .gitattributes does much the same.
const lfsFrom = 1 << 20

var binarySuffixes = []string{
	".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".gguf", ".ggml", ".gz", ".h5", ".joblib", ".mlmodel", ".model",
	".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar",
	".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst",
}

// ImportDir takes a folder into the cache as a snapshot of repo and returns its
// outline and path. It takes regular files only: links, which could lead out, are
// skipped, and so are .git and .cache, where tools keep what is not the model.
//
// The commit id is made from the content: the first 40 hexadecimal digits of the
// SHA-256 of the outline's encoding with forty zeros as its commit. The same
// files under the same name give the same commit on every machine.
func (c *Cache) ImportDir(ctx context.Context, dir string, repo pieces.Repo, revision string) (*pieces.Outline, string, error) {
	o, snapshot, err := c.importDir(ctx, dir, repo, revision)
	if err != nil {
		return nil, "", c.diskError("import "+dir+" as", repo, 0, err)
	}
	return o, snapshot, nil
}

func (c *Cache) importDir(ctx context.Context, dir string, repo pieces.Repo, revision string) (*pieces.Outline, string, error) {
	src, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	defer src.Close()
	o := &pieces.Outline{Repo: repo, Commit: pieces.Commit(strings.Repeat("0", 40))}
	names, err := regularFiles(src)
	if err != nil {
		return nil, "", err
	}
	if err := c.outlineOf(ctx, o, src, names); err != nil {
		return nil, "", err
	}
	if err := nameByContent(o); err != nil {
		return nil, "", err
	}
	for _, f := range o.Files {
		if err := c.importFile(ctx, src, f, repo); err != nil {
			return nil, "", fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	snapshot, err := c.commit(ctx, o, o.Files, revision)
	return o, snapshot, err
}

func regularFiles(src *os.Root) ([]string, error) {
	var out []string
	err := fs.WalkDir(src.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == ".git" || e.Name() == ".cache") {
			return fs.SkipDir
		}
		if e.Type().IsRegular() {
			out = append(out, name)
		}
		return pathOrDot(name)
	})
	if err == nil && len(out) == 0 {
		err = errors.New("no regular files")
	}
	return out, err
}

func pathOrDot(name string) error {
	if name == "." {
		return nil
	}
	return pieces.CheckPath(name)
}

func (c *Cache) outlineOf(ctx context.Context, o *pieces.Outline, src *os.Root, names []string) error {
	for _, name := range names {
		f, err := describeFile(ctx, src, name)
		if err != nil {
			return fmt.Errorf("file %q: %w", name, err)
		}
		o.Files = append(o.Files, f)
	}
	o.Sort()
	return nil
}

// describeFile computes what the Hub would list.
func describeFile(ctx context.Context, src *os.Root, name string) (pieces.File, error) {
	f, err := src.Open(name)
	if err != nil {
		return pieces.File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return pieces.File{}, err
	}
	if info.Size() < lfsFrom && !slices.Contains(binarySuffixes, strings.ToLower(path.Ext(name))) {
		d, err := gitDigest(ctx, f, info.Size())
		return pieces.File{Path: name, Blob: pieces.Blob{Digest: d, Size: info.Size()}, OID: d}, err
	}
	h := sha256.New()
	if n, err := copyContext(ctx, h, f); err != nil || n != info.Size() {
		return pieces.File{}, errors.Join(err, changed(n, info.Size()))
	}
	b := pieces.Blob{Digest: pieces.SHA256Digest([32]byte(h.Sum(nil))), Size: info.Size()}
	oid, err := pointerDigest(ctx, b)
	return pieces.File{Path: name, Blob: b, OID: oid}, err
}

func gitDigest(ctx context.Context, r io.Reader, size int64) (pieces.Digest, error) {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	n, err := copyContext(ctx, h, r)
	if err != nil || n != size {
		return pieces.Digest{}, errors.Join(err, changed(n, size))
	}
	return pieces.ParseDigest(hex.EncodeToString(h.Sum(nil)))
}

func changed(n, size int64) error {
	if n == size {
		return nil
	}
	return fmt.Errorf("changed while it was read: %d bytes, then %d", size, n)
}

// pointerDigest is the git id of the text that stands for an LFS file in git
// (git-lfs docs/spec.md).
func pointerDigest(ctx context.Context, b pieces.Blob) (pieces.Digest, error) {
	text := fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", b.Digest, b.Size)
	return gitDigest(ctx, strings.NewReader(text), int64(len(text)))
}

// copyContext is io.Copy that ends with the context.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	return io.CopyBuffer(onlyWriter{w}, contextReader{ctx, r}, make([]byte, writeStep))
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

func nameByContent(o *pieces.Outline) error {
	raw, err := o.Marshal()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	o.Commit = pieces.Commit(hex.EncodeToString(sum[:])[:40])
	return nil
}

// importFile brings one blob into the repository: adopted when it is there, else
// linked or copied from the folder and then adopted.
func (c *Cache) importFile(ctx context.Context, src *os.Root, f pieces.File, repo pieces.Repo) error {
	a := adopter{Cache: c, folder: repo.Folder()}
	found, err := a.adopt(ctx, f.Blob)
	if err != nil || found {
		return err
	}
	if err := c.bring(src, f, repo.Folder()); err != nil {
		return err
	}
	w, err := a.examine(ctx, repo.Folder(), f.Blob)
	if err == nil && w == nil {
		err = fmt.Errorf("changed while it was imported: %w", pieces.ErrDigest)
	}
	return err
}

// bring copies a file into blobs/. It does not link: the blob would change when
// somebody edits the file in place.
func (c *Cache) bring(src *os.Root, f pieces.File, folder string) error {
	if err := c.hub.MkdirAll(blobsOf(folder), 0o777); err != nil {
		return err
	}
	root := durable.At(src, nil)
	in, err := root.OpenFile(filepath.FromSlash(f.Path), os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	name := blobName(folder, f.Blob.Digest)
	if err := c.copyIn(&handle{file: in}, f.Blob, name); err != nil {
		return err
	}
	return c.hub.SyncDir(blobsOf(folder))
}
