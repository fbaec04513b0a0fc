package cachefs

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// A file of lfsFrom bytes or more is named by its SHA-256, and so are, at any
// size, files that can't be text: much as the Hub's own .gitattributes has it.
const lfsFrom = 1 << 20

var binarySuffixes = []string{
	".7z", ".arrow", ".bin", ".bz2", ".ckpt", ".ftz", ".ggml", ".gguf", ".gz", ".h5", ".joblib", ".mlmodel", ".model",
	".msgpack", ".npy", ".npz", ".onnx", ".ot", ".parquet", ".pb", ".pickle", ".pkl", ".pt", ".pth", ".rar",
	".safetensors", ".tar", ".tflite", ".tgz", ".wasm", ".xz", ".zip", ".zst",
}

// ImportDir takes a folder into the cache as a snapshot of repo, with proofs, and
// returns its outline and path. It takes regular files only: links, which could
// lead out, are skipped, and so are .git and .cache, where tools keep what is not
// the model. Files are cloned where the filesystem can share blocks, else linked,
// else copied. Who edits a linked file in place edits the blob too; that is
// noticed, and ends its being offered.
//
// The commit id is made from the content: the first 40 hexadecimal digits of the
// SHA-256 of the outline's encoding with forty zeros as its commit. The same
// files under the same name give the same commit on every machine.
func (c *Cache) ImportDir(ctx context.Context, dir string, repo pieces.Repo, revision string) (*pieces.Outline, string, error) {
	o, snapshot, err := c.importDir(ctx, dir, repo, revision)
	return o, snapshot, c.diskError(0, err, "import %s as %s", dir, repo)
}

func (c *Cache) importDir(ctx context.Context, dir string, repo pieces.Repo, revision string) (*pieces.Outline, string, error) {
	if err := c.usable(); err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	defer root.Close()
	i := importer{Cache: c, src: durable.At(root, nil), folder: repo.Folder()}
	o, err := i.survey(ctx, root.FS(), repo)
	if err != nil {
		return nil, "", err
	}
	if err := pieces.CheckRevision(revision); err != nil {
		return nil, "", err
	}
	if err := i.checkRoom(); err != nil {
		return nil, "", err
	}
	for _, f := range i.files {
		if err := i.bring(ctx, f); err != nil {
			return nil, "", fmt.Errorf("file %q: %w", f.Path, err)
		}
	}
	snapshot, err := c.commit(ctx, o, o.Files, revision)
	return o, snapshot, err
}

// importer brings the files of one folder into one repository.
type importer struct {
	*Cache
	src    *durable.Root
	folder string
	files  []foundFile
}

// foundFile is a file that was hashed, and the state it was in.
type foundFile struct {
	pieces.File
	stamp
	marks []pieces.Mark
}

// survey hashes everything once and names it by its content.
func (i *importer) survey(ctx context.Context, tree fs.FS, repo pieces.Repo) (*pieces.Outline, error) {
	names, err := regularFiles(tree)
	if err != nil {
		return nil, err
	}
	o := &pieces.Outline{Repo: repo, Commit: pieces.Commit(strings.Repeat("0", 40))}
	for _, name := range names {
		f, err := i.describe(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", name, err)
		}
		i.files = append(i.files, f)
		o.Files = append(o.Files, f.File)
	}
	o.Sort()
	raw, err := o.Marshal()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	o.Commit = pieces.Commit(hex.EncodeToString(sum[:])[:40])
	return o, nil
}

func regularFiles(tree fs.FS) ([]string, error) {
	var out []string
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == ".git" || e.Name() == ".cache"):
			return fs.SkipDir
		case e.Type().IsRegular():
			out = append(out, name)
			return pieces.CheckPath(name)
		}
		return nil
	})
	if err == nil && len(out) == 0 {
		err = errors.New("no regular files (links are not followed)")
	}
	return out, err
}

// describe finds out what the Hub would list.
func (i *importer) describe(ctx context.Context, name string) (foundFile, error) {
	f, err := i.src.OpenFound(name)
	if err != nil {
		return foundFile{}, err
	}
	defer f.Close()
	at, err := syncFound(f)
	if err != nil {
		return foundFile{}, err
	}
	found := foundFile{stamp: at}
	b := pieces.Blob{Size: at.size}
	lfs := at.size >= lfsFrom || slices.Contains(binarySuffixes, strings.ToLower(path.Ext(name)))
	sum := gitHash(at.size)
	if lfs {
		sum = sha256.New()
	}
	if found.marks, err = i.hashPieces(ctx, f, b, name, sum); err != nil {
		return foundFile{}, err
	}
	b.Digest = digestOf(sum)
	found.File = pieces.File{Path: name, Blob: b, OID: b.Digest}
	if lfs {
		found.OID = pointerDigest(b)
	}
	return found, nil
}

// gitHash names content as git does.
func gitHash(size int64) hash.Hash {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", size)
	return h
}

func digestOf(h hash.Hash) pieces.Digest {
	d, err := pieces.ParseDigest(hex.EncodeToString(h.Sum(nil)))
	if err != nil {
		panic(err) // both hashes have a length that digests have
	}
	return d
}

// pointerDigest is the git id of the text that stands for an LFS file in git
// (git-lfs docs/spec.md).
func pointerDigest(b pieces.Blob) pieces.Digest {
	text := fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", b.Digest, b.Size)
	h := gitHash(int64(len(text)))
	h.Write([]byte(text))
	return digestOf(h)
}

// checkRoom compares free space with what must be copied, which is everything new
// when the folder is on another filesystem.
func (i *importer) checkRoom() error {
	from, err := i.src.Stat(".")
	if err != nil {
		return err
	}
	to, err := i.hub.Stat(".")
	if err != nil {
		return err
	}
	if from.Sys().(*syscall.Stat_t).Dev == to.Sys().(*syscall.Stat_t).Dev {
		return nil
	}
	var missing []pieces.Blob
	for _, f := range i.files {
		if i.findWhole(f.Blob) == nil {
			missing = append(missing, f.Blob)
		}
	}
	return i.Cache.checkRoom(distinct(missing))
}

// bring gives one file's content its name in the repository.
func (i *importer) bring(ctx context.Context, f foundFile) error {
	if i.hasIn(i.folder, f.Blob) {
		return nil
	}
	in, err := i.src.OpenFound(f.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := i.hub.MkdirAll(blobsOf(i.folder), 0o777); err != nil {
		return err
	}
	name := blobName(i.folder, f.Blob.Digest)
	if err := i.place(ctx, in, f, name); err != nil {
		return err
	}
	if err := i.hub.SyncDir(blobsOf(i.folder)); err != nil {
		return err
	}
	info, err := i.hub.Stat(name)
	if err != nil {
		return err
	}
	at := stampOf(info)
	if at.inode == f.inode { // a link: what was hashed is this very file as it was then
		at = f.stamp
	}
	_, err = i.own(ctx, f.Blob, place{name: name, stamp: at}, f.marks)
	return err
}

// place makes the blob a clone, a link or a copy of the file, and makes sure that
// it is still what was hashed.
func (i *importer) place(ctx context.Context, in *durable.File, f foundFile, name string) error {
	if err := f.unchanged(in); err != nil {
		return err
	}
	err := i.stage.Make(i.hub, name, 0o666, func(out *durable.File) error {
		if err := out.CloneFrom(in); err != nil {
			return err
		}
		return errors.Join(f.unchanged(in), out.Sync())
	})
	if err == nil {
		return nil
	}
	if err := f.unchanged(in); err != nil {
		return err
	}
	if err := i.stage.Link(in, i.hub, name); err == nil || isNoSpace(err) {
		return err
	}
	return i.copyIn(ctx, in, f.Blob, name)
}

func (f foundFile) unchanged(in *durable.File) error {
	info, err := in.Stat()
	if err == nil && stampOf(info) != f.stamp {
		err = fmt.Errorf("changed while it was imported: %w", pieces.ErrDigest)
	}
	return err
}
