package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
)

// Old is a file of another snapshot of the repository that is here.
type Old struct {
	Commit  pieces.Commit
	File    pieces.File
	Content io.ReaderAt
}

// Patch is what of a new file can be made out of an old one. It compares what it
// copies with what upstream says of the new file.
type Patch interface {
	seeder.Source
	// Covers tells whether the bytes [off, off+n) can be copied.
	Covers(off, n int64) bool
}

// smallestPatch is the size below which looking for an older file costs more than
// it saves: with one piece, nothing but an unchanged file could be copied.
const smallestPatch = 8 << 20

// patch makes pieces of the missing blobs out of older files of the same path,
// before anybody is asked for them. Whatever fails here is fetched as ever.
func (a *Agent) patch(ctx context.Context, j *job, l listing, missing []pieces.Blob) error {
	if a.opt.Patch == nil || l.seeded {
		return nil
	}
	older := a.olderFiles(l.outline)
	for _, f := range l.outline.Files {
		old, ok := older[f.Path]
		if !ok || f.Xet.IsZero() || f.Blob.Size < smallestPatch || !slices.Contains(missing, f.Blob) {
			continue
		}
		j.enter(Adopting, "what "+l.outline.Repo.String()+"@"+string(old.Commit[:12])+" has of "+f.Path)
		if err := a.patchFile(ctx, l.outline, f, old); err != nil {
			if context.Cause(ctx) != nil {
				return context.Cause(ctx)
			}
			a.log.Info("nothing copied from an older file", "path", f.Path, "old", old.File.Blob.String(), "error", err)
			if !a.is(err, Integrity) {
				return nil // it is not this file's fault: the next would fail as slowly
			}
		}
	}
	return nil
}

// olderFiles finds, for each path, a file of another content that is here: of the
// newest other snapshot of the repository. Other repositories have files of the same
// path too, but each question about one costs the Hub a token for every member.
func (a *Agent) olderFiles(o *pieces.Outline) map[string]Old {
	all, err := a.opt.Cache.List()
	if err != nil {
		return nil
	}
	all = slices.DeleteFunc(all, func(s cachefs.Snapshot) bool { return s.Repo != o.Repo || s.Commit == o.Commit })
	slices.SortStableFunc(all, func(x, y cachefs.Snapshot) int { return y.Updated.Compare(x.Updated) })
	out := make(map[string]Old)
	for _, s := range all {
		for _, f := range s.Files {
			if _, ok := out[f.Path]; ok || f.Xet.IsZero() || f.Blob.Size < smallestPatch || !a.opt.Cache.Has(s.Repo, f.Blob) {
				continue
			}
			out[f.Path] = Old{Commit: s.Commit, File: f, Content: &blobContent{a.opt.Cache, f.Blob}}
		}
	}
	return out
}

// patchFile puts the pieces that can be copied whole.
func (a *Agent) patchFile(ctx context.Context, o *pieces.Outline, f pieces.File, old Old) error {
	p, err := a.opt.Patch(ctx, o, f, old)
	if err != nil {
		return err
	}
	held := a.opt.Cache.Held(f.Blob)
	need := func(b pieces.Blob, i int) bool {
		off, n := b.Piece(i)
		return (held == nil || !held.Has(i)) && p.Covers(off, n)
	}
	for _, e := range pieces.Extents([]pieces.Blob{f.Blob}, 0) {
		if err := a.opt.Seeder.Fetch(ctx, p, e, need, putFunc(a.opt.Cache.Put), nil); err != nil {
			return err
		}
	}
	return nil
}

// blobContent reads a whole blob of the cache.
type blobContent struct {
	cache Store
	blob  pieces.Blob
}

// ReadAt implements io.ReaderAt.
func (c *blobContent) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		if off >= c.blob.Size {
			return n, io.EOF
		}
		var k int
		k, err = c.readPiece(p[n:], off)
		n, off = n+k, off+int64(k)
	}
	return n, err
}

// readPiece reads to the end of the piece at most.
func (c *blobContent) readPiece(p []byte, off int64) (int, error) {
	index := int(off / c.blob.PieceSize())
	rc, err := c.cache.OpenPiece(c.blob, index)
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	at, ok := rc.(io.ReaderAt)
	if !ok {
		return 0, fmt.Errorf("read piece %d of %s: %w", index, c.blob, errors.ErrUnsupported)
	}
	start, length := c.blob.Piece(index)
	n, err := at.ReadAt(p[:min(int64(len(p)), start+length-off)], off-start)
	if err == io.EOF && n > 0 {
		err = nil // the end of the piece
	}
	return n, err
}
