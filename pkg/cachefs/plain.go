package cachefs

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"syscall"

	"p2pagent/pkg/pieces"
)

// Where links can't be made, as on FAT and on some network filesystems, a client
// moves a blob to the first file of a snapshot that needs it, and blobs/ stays empty
// (huggingface_hub, file_download.py, _create_symlink); HF_HUB_DISABLE_SYMLINKS does
// the same anywhere. So does Commit; and Begin takes what it finds there.

// plainFile is a file in a snapshot that is no link. Nothing says what it should be
// but its content, so each is hashed at most once for each sort of digest.
type plainFile struct {
	name  string
	found map[int]foundFile // by the length of the digest; what could not be read has no marks
}

// scanPlain lists the plain files in the snapshots of the repository.
func (a *adopter) scanPlain() error {
	a.plain = map[int64][]*plainFile{}
	return a.walk(path.Join(a.folder, snapshotsDir), func(name string, e fs.DirEntry) error {
		if !e.Type().IsRegular() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			a.plain[info.Size()] = append(a.plain[info.Size()], &plainFile{name: name, found: map[int]foundFile{}})
		}
		return nil
	})
}

// adoptPlain looks for a blob among the plain files of its length.
func (a *adopter) adoptPlain(ctx context.Context, b pieces.Blob) (bool, error) {
	for _, f := range a.plain[b.Size] {
		found, err := a.identify(ctx, f, b)
		if err != nil {
			return false, err
		}
		if found.Blob == b {
			_, err := a.own(ctx, b, place{name: f.name, stamp: found.stamp}, found.marks)
			return err == nil, err
		}
	}
	return false, nil
}

// identify finds out which blob a file is, named by the sort of digest that b has.
// One that can't be read, or changes meanwhile, is none.
func (a *adopter) identify(ctx context.Context, f *plainFile, b pieces.Blob) (foundFile, error) {
	sort := len(b.Digest.Bytes())
	if found, ok := f.found[sort]; ok {
		return found, nil
	}
	sum := b.NewHash()
	found, err := a.hashFound(ctx, f.name, b, sum)
	switch {
	case err == nil:
		found.Blob = pieces.Blob{Digest: digestOf(sum), Size: b.Size}
	case errors.Is(err, errWrong):
		a.log.Warn("a file in the cache is not usable", "file", f.name, "err", err)
	default:
		return foundFile{}, err
	}
	f.found[sort] = found
	return found, nil
}

func unsupportedLink(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported)
}

// moveToEntry makes a blob the file of a snapshot. It is proven in its new place
// before it moves, so that it is known in one of the two whenever the power goes.
func (c *Cache) moveToEntry(ctx context.Context, b pieces.Blob, blob, name string) error {
	w := c.findWhole(b)
	if w == nil {
		return ErrIncomplete
	}
	info, err := c.hub.Stat(blob)
	if err != nil {
		return err
	}
	if _, err := c.prove(ctx, b, place{name: name, stamp: stampOf(info)}, c.statements(w)); err != nil {
		return err
	}
	return c.hub.Move(blob, c.hub, name)
}

// plainBytes returns what removing the plain files of a snapshot gives back.
func (c *Cache) plainBytes(snapshot string) (freed int64, err error) {
	err = c.walk(snapshot, func(name string, e fs.DirEntry) error {
		if info, err := c.hub.Lstat(name); err == nil && info.Mode().IsRegular() {
			if st := info.Sys().(*syscall.Stat_t); st.Nlink == 1 {
				freed += st.Blocks * 512
			}
		}
		return nil
	})
	return freed, err
}
