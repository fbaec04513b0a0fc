package cachefs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

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
	p, ok := w.in(folder)
	return ok && c.inPlace(b, p)
}

// adopt tells whether the repository has the blob when it returns.
func (a *adopter) adopt(ctx context.Context, b pieces.Blob) (bool, error) {
	if found, err := a.adoptKnown(ctx, b); found || err != nil {
		return found, err
	}
	folders, err := a.candidates(b)
	if err != nil {
		return false, err
	}
	for _, folder := range folders {
		w, err := a.examine(ctx, folder, b)
		switch {
		case err != nil:
			return false, err
		case w == nil:
		case folder == a.folder:
			return true, nil
		default:
			return true, a.plantWhole(ctx, w)
		}
	}
	return false, nil
}

// adoptKnown is adopt for a blob that is known to be whole, in this repository or
// another: nothing is hashed.
func (a *adopter) adoptKnown(ctx context.Context, b pieces.Blob) (bool, error) {
	if a.hasIn(a.folder, b) {
		return true, nil
	}
	if w := a.findWhole(b); w != nil {
		return true, a.plantWhole(ctx, w)
	}
	return false, nil
}

func (a *adopter) plantWhole(ctx context.Context, w *whole) error {
	h, err := a.openWhole(w)
	if err != nil {
		return err
	}
	defer h.release()
	return a.plant(ctx, w, a.folder, h)
}

// candidates returns the folders that have a file under the blob's name, the
// wanting repository's own first.
func (a *adopter) candidates(b pieces.Blob) ([]string, error) {
	if a.index == nil {
		if err := a.scan(); err != nil {
			return nil, err
		}
	}
	folders := a.index[b.String()]
	if i := slices.Index(folders, a.folder); i > 0 {
		folders[0], folders[i] = folders[i], folders[0]
	}
	return folders, nil
}

// scan lists the blobs of all repositories: one listing each is cheaper than one
// look for each blob in each.
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

// errWrong tells why a file that was found is not used.
var errWrong = errors.New("not usable")

// examine hashes a blob that somebody left, and proves it when it is right. It
// returns nil without an error when it is wrong or can't be read.
func (a *adopter) examine(ctx context.Context, folder string, b pieces.Blob) (*whole, error) {
	w, err := a.tryExamine(ctx, folder, b)
	if errors.Is(err, errWrong) || errors.Is(err, pieces.ErrDigest) {
		a.log.Warn("a blob in the cache is wrong; not using it", "folder", folder, "blob", b.String(), "err", err)
		return nil, nil
	}
	return w, err
}

func (a *adopter) tryExamine(ctx context.Context, folder string, b pieces.Blob) (*whole, error) {
	f, err := a.hub.OpenFound(blobName(folder, b.Digest))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWrong, err)
	}
	defer f.Close()
	before, err := syncFound(f)
	if err != nil {
		return nil, err
	}
	if before.size != b.Size {
		return nil, fmt.Errorf("%w: %d bytes instead of %d", errWrong, before.size, b.Size)
	}
	marks, err := a.hash(ctx, f, b)
	if err != nil {
		return nil, err
	}
	if after, err := syncFound(f); err != nil || after != before {
		return nil, errors.Join(err, fmt.Errorf("%w: it is being written", errWrong))
	}
	return a.own(ctx, b, place{folder: folder, stamp: before}, marks)
}

// syncFound makes a file durable that somebody else may not have synced: a proof
// must not outlive what it proves. A filesystem mounted read-only has nothing to
// sync.
func syncFound(f *durable.File) (stamp, error) {
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EINVAL) {
		return stamp{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return stamp{}, err
	}
	if !info.Mode().IsRegular() {
		return stamp{}, fmt.Errorf("%w: not a regular file", errWrong)
	}
	return stampOf(info), nil
}

// own proves a blob that was found right, and ends a partial one of it.
func (c *Cache) own(ctx context.Context, b pieces.Blob, at place, marks []pieces.Mark) (*whole, error) {
	if c.signer.Maker() == (pieces.Maker{}) {
		return nil, errors.New("options: Signer must be set to adopt blobs")
	}
	statements := make([]pieces.Statement, len(marks))
	for i, m := range marks {
		statements[i] = c.signer.State(b, i, m)
	}
	w, err := c.prove(ctx, b, at, statements)
	if err != nil {
		return nil, err
	}
	return w, c.abandonAll([]pieces.Blob{b})
}
