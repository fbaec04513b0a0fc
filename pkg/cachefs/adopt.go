package cachefs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"slices"
	"syscall"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// adopter finds blobs that are on disk already and makes them ours.
type adopter struct {
	*Cache
	folder string                 // of the repository that wants them
	index  map[string][]string    // blob name -> folders that have a file of it; made when first needed
	plain  map[int64][]*plainFile // by length: files in snapshots of folder that are no links
}

// Has tells whether the repository has the blob, with the content that was found
// right when it was stored or adopted. It costs one look at the file's state.
func (c *Cache) Has(repo pieces.Repo, b pieces.Blob) bool {
	return c.hasIn(repo.Folder(), b)
}

func (c *Cache) hasIn(folder string, b pieces.Blob) bool {
	return c.is(c.recallWhole(b), func(p place) bool { return p.folder() == folder })
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
			return true, a.plantWhole(ctx, w, a.folder)
		}
	}
	return a.adoptPlain(ctx, b)
}

// adoptKnown is adopt for a blob that is known to be whole, in this repository or
// another: nothing is hashed.
func (a *adopter) adoptKnown(ctx context.Context, b pieces.Blob) (bool, error) {
	if a.hasIn(a.folder, b) {
		return true, nil
	}
	if w := a.findWhole(b); w != nil {
		return true, a.plantWhole(ctx, w, a.folder)
	}
	return false, nil
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
	if err := a.scanPlain(); err != nil {
		return err
	}
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
	name := blobName(folder, b.Digest)
	sum := b.NewHash()
	found, err := a.hashFound(ctx, name, b, sum)
	if err != nil {
		return nil, err
	}
	if err := b.Check(sum); err != nil {
		return nil, err
	}
	return a.own(ctx, b, place{name: name, stamp: found.stamp}, found.marks)
}

// hashFound feeds a file that somebody left to sum, and makes it durable first: a
// proof must not outlive what it proves. Of b only the size counts.
func (a *adopter) hashFound(ctx context.Context, name string, b pieces.Blob, sum hash.Hash) (foundFile, error) {
	f, err := a.hub.OpenFound(name)
	if err != nil {
		return foundFile{}, fmt.Errorf("%w: %w", errWrong, err)
	}
	defer f.Close()
	before, err := syncFound(f)
	if err != nil {
		return foundFile{}, err
	}
	if before.size != b.Size {
		return foundFile{}, fmt.Errorf("%w: %d bytes instead of %d", errWrong, before.size, b.Size)
	}
	marks, err := a.hashPieces(ctx, f, b, b.String(), sum)
	if err != nil {
		return foundFile{}, err
	}
	if after, err := syncFound(f); err != nil || after != before {
		return foundFile{}, errors.Join(err, fmt.Errorf("%w: it is being written", errWrong))
	}
	return foundFile{stamp: before, marks: marks}, nil
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
