package cachefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"p2pagent/pkg/pieces"
)

// Problem is one file of a snapshot that is not as it should be.
type Problem struct {
	Path string // in the snapshot
	Err  error  // wraps pieces.ErrDigest, fs.ErrNotExist or the disk's error
}

// Verify hashes every file of a snapshot and compares it with what the outline
// says, or, when there is none, with the name of the blob that the entry links
// to. progress may be nil; it hears of bytes as they are hashed. A blob that is
// found wrong is not offered any more. Files of the outline that are missing are
// problems only when the snapshot claims to be whole (it has a trees/ file).
func (c *Cache) Verify(ctx context.Context, ref pieces.Ref, progress func(n int64)) ([]Problem, error) {
	s, err := c.Snapshot(ref)
	if err != nil {
		return nil, err
	}
	files, err := c.expected(s)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", ref, err)
	}
	var out []Problem
	good := map[pieces.Blob]uint64{}
	name := snapshotName(s.Repo.Folder(), s.Commit)
	for _, f := range files {
		err := c.verifyFile(ctx, path.Join(name, f.Path), f.Blob, good, progress)
		if ctx.Err() != nil {
			return out, fmt.Errorf("verify %s: %w", ref, context.Cause(ctx))
		}
		if err != nil {
			out = append(out, Problem{Path: f.Path, Err: err})
		}
	}
	return out, nil
}

// expected returns what the snapshot should hold.
func (c *Cache) expected(s *Snapshot) ([]pieces.File, error) {
	folder := s.Repo.Folder()
	if s.Outline == nil {
		return c.namedFiles(snapshotName(folder, s.Commit))
	}
	if _, err := c.hub.Lstat(treeName(folder, s.Commit)); err == nil {
		return s.Outline.Files, nil
	}
	return slices.DeleteFunc(slices.Clone(s.Outline.Files), func(f pieces.File) bool {
		_, err := c.hub.Lstat(path.Join(snapshotName(folder, s.Commit), f.Path))
		return errors.Is(err, fs.ErrNotExist)
	}), nil
}

// namedFiles makes an outline out of the names of blobs.
func (c *Cache) namedFiles(snapshot string) ([]pieces.File, error) {
	var out []pieces.File
	err := c.walk(snapshot, func(name string, e fs.DirEntry) error {
		target, err := c.hub.Readlink(name)
		if err != nil {
			return nil // a plain file: nothing says what it should be
		}
		d, err := pieces.ParseDigest(path.Base(target))
		if err != nil {
			return nil
		}
		f := pieces.File{Path: strings.TrimPrefix(name, snapshot+"/"), Blob: pieces.Blob{Digest: d}}
		if info, err := c.hub.Stat(name); err == nil {
			f.Blob.Size = info.Size()
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// verifyFile hashes one entry, unless it is the same file as one that was good.
func (c *Cache) verifyFile(ctx context.Context, name string, b pieces.Blob, good map[pieces.Blob]uint64, progress func(int64)) error {
	info, err := c.hub.Stat(name)
	if err != nil {
		return err
	}
	inode := stampOf(info).inode
	if seen, ok := good[b]; ok && seen == inode {
		return nil
	}
	if err := c.rehash(ctx, name, b, progress); err != nil {
		if w := c.recallWhole(b); w != nil && errors.Is(err, pieces.ErrDigest) && w.hasInode(inode) {
			c.withdraw(w, "its content is wrong")
		}
		return err
	}
	good[b] = inode
	return nil
}

func (w *whole) hasInode(inode uint64) bool {
	return slices.ContainsFunc(w.places, func(p place) bool { return p.inode == inode })
}

// rehash compares a file with a blob's length and digest.
func (c *Cache) rehash(ctx context.Context, name string, b pieces.Blob, progress func(int64)) error {
	f, err := c.hub.OpenFound(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != b.Size {
		return fmt.Errorf("%d bytes instead of %d: %w", info.Size(), b.Size, pieces.ErrDigest)
	}
	return scan(ctx, f, b, func(_ int64, chunk []byte) error {
		if progress != nil {
			progress(int64(len(chunk)))
		}
		return nil
	})
}
