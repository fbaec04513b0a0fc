package cachefs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// adopter finds blobs that are on disk already and makes them ours.
type adopter struct {
	*Cache
	folder string              // of the repository that wants them
	index  map[string][]string // blob name -> folders that have a file of it; made when first needed
}

// Has tells whether the repository has the blob, with the content that was found
// right when it was stored or adopted. It costs one look at the file's state.
func (c *Cache) Has(repo pieces.Repo, b pieces.Blob) bool {
	return c.hasIn(repo.Folder(), b)
}

func (c *Cache) hasIn(folder string, b pieces.Blob) bool {
	w := c.recallWhole(b)
	if w == nil {
		return false
	}
	for _, p := range w.places {
		if p.folder == folder {
			return c.inPlace(b, p)
		}
	}
	return false
}

// adopt tells whether the repository has the blob when it returns.
func (a *adopter) adopt(ctx context.Context, b pieces.Blob) (bool, error) {
	if a.hasIn(a.folder, b) {
		return true, nil
	}
	if w := a.findWhole(b); w != nil {
		return true, a.plantWhole(w)
	}
	folders, err := a.candidates(b)
	if err != nil {
		return false, err
	}
	for _, folder := range folders {
		w, err := a.examine(ctx, folder, b)
		if err != nil {
			return false, err
		}
		if w != nil {
			if folder == a.folder {
				return true, nil
			}
			return true, a.plantWhole(w)
		}
	}
	return false, nil
}

func (a *adopter) plantWhole(w *whole) error {
	h, err := a.openWhole(w)
	if err != nil {
		return err
	}
	defer a.handles.put(h)
	_, err = a.plant(w, a.folder, h)
	return err
}

// candidates returns the folders that have a file under the blob's name, the
// wanting repository's own first.
func (a *adopter) candidates(b pieces.Blob) ([]string, error) {
	if a.index == nil {
		if err := a.scan(); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, folder := range a.index[b.String()] {
		if folder == a.folder {
			out = append([]string{folder}, out...)
		} else {
			out = append(out, folder)
		}
	}
	return out, nil
}

func (a *adopter) scan() error {
	a.index = map[string][]string{}
	folders, err := a.repoFolders()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		entries, err := a.hub.ReadDir(blobsOf(folder))
		if err != nil {
			a.log.Warn("can't list blobs", "folder", folder, "err", err)
			continue
		}
		for _, e := range entries {
			if _, err := pieces.ParseDigest(e.Name()); err == nil {
				a.index[e.Name()] = append(a.index[e.Name()], folder)
			}
		}
	}
	return nil
}

// repoFolders lists the repositories in the cache.
func (c *Cache) repoFolders() ([]string, error) {
	entries, err := c.hub.ReadDir(".")
	var out []string
	for _, e := range entries {
		if _, err := pieces.ParseFolder(e.Name()); err == nil && e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// examine hashes a blob that somebody left, and proves it when it is right. It
// returns nil without an error when it is wrong or can't be read.
func (a *adopter) examine(ctx context.Context, folder string, b pieces.Blob) (*whole, error) {
	f, err := a.hub.OpenFile(blobName(folder, b.Digest), os.O_RDONLY, 0)
	if err != nil {
		a.log.Warn("can't read a blob", "folder", folder, "blob", b.String(), "err", err)
		return nil, nil
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil || !before.Mode().IsRegular() || before.Size() != b.Size {
		a.log.Warn("a blob has the wrong length", "folder", folder, "blob", b.String())
		return nil, err
	}
	statements, err := a.restate(ctx, f, b)
	if errors.Is(err, pieces.ErrDigest) {
		a.log.Warn("a blob has the wrong content", "folder", folder, "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	after, err := f.Stat()
	if err != nil || stampOf(after) != stampOf(before) {
		return nil, err // somebody is writing it
	}
	return a.own(b, place{folder: folder, stamp: stampOf(before)}, statements)
}

// own proves a blob that was found right, and ends a partial one of it.
func (c *Cache) own(b pieces.Blob, at place, statements []pieces.Statement) (*whole, error) {
	places := []place{at}
	if err := c.prove(b, places, statements); err != nil {
		return nil, err
	}
	return &whole{blob: b, places: places}, c.abandonAll([]pieces.Blob{b})
}

// restate reads a blob once and returns own statements on its pieces, or an error
// that wraps pieces.ErrDigest when it is not what its name says.
func (c *Cache) restate(ctx context.Context, r io.ReaderAt, b pieces.Blob) ([]pieces.Statement, error) {
	buf := make([]byte, min(b.PieceSize(), b.Size))
	digest := b.NewHash()
	statements := make([]pieces.Statement, b.Pieces())
	for i := range statements {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		off, n := b.Piece(i)
		if _, err := io.ReadFull(io.NewSectionReader(r, off, n), buf[:n]); err != nil {
			return nil, fmt.Errorf("read piece %d: %w", i, err)
		}
		id := hashBoth(digest, buf[:n])
		statements[i] = c.signer.State(b, i, id)
		c.onAdopt(b, off+n)
	}
	return statements, b.Check(digest)
}

// hashBoth feeds the digest and returns the piece's id.
func hashBoth(digest io.Writer, data []byte) pieces.ID {
	digest.Write(data)
	return pieces.ID(sha256.Sum256(data))
}

// copyChecked copies a blob and compares its digest.
func copyChecked(dst *durable.File, src io.ReaderAt, b pieces.Blob) error {
	buf := make([]byte, writeStep)
	sum := b.NewHash()
	for off := int64(0); off < b.Size; {
		n, err := src.ReadAt(buf[:min(int64(len(buf)), b.Size-off)], off)
		if n == 0 && err != nil {
			return err
		}
		sum.Write(buf[:n])
		if _, err := dst.WriteAt(buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return b.Check(sum)
}
