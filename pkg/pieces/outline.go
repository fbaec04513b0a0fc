package pieces

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits on what a listing may contain. They bound memory, not taste: the
// largest repositories on the Hub have about 10^5 files.
const (
	MaxFiles        = 1 << 18
	MaxOutlineBytes = 64 << 20
)

// ErrBadOutline marks a listing that can't be a Hub repository.
var ErrBadOutline = errors.New("bad outline")

// File is one entry of an outline.
type File struct {
	Path string
	Blob Blob
	// OID is the git object id that the Hub's listing gives: for an LFS file the
	// SHA-1 of its pointer, otherwise the same as Blob.Digest. The cache's
	// trees/ files need it.
	OID Digest
	// Xet names the content in the Hub's content-addressed store, by the 64 digits
	// that the Hub prints; zero for a file that is not there. It is a hint where to
	// read: what is read is compared with Blob.Digest.
	Xet Digest
}

// LFS tells whether the file's content is stored apart from git.
func (f File) LFS() bool { return !f.Blob.Digest.Git() }

// Outline is what the Hub states about one commit: every path with size and
// digest, sorted by path.
type Outline struct {
	Repo   Repo
	Commit Commit
	Files  []File
}

// Validate refuses an outline with unsafe or clashing paths, with odd sizes or
// digests, unsorted, or over the limits. Errors wrap ErrBadOutline or ErrBadPath.
func (o *Outline) Validate() error {
	if err := o.validate(); err != nil {
		return fmt.Errorf("outline of %s at %s: %w", o.Repo, o.Commit, err)
	}
	return nil
}

func (o *Outline) validate() error {
	if r, err := ParseRepo(o.Repo.String()); err != nil || r != o.Repo {
		return fmt.Errorf("repository %q: %w", o.Repo, ErrBadOutline)
	}
	if !IsCommit(string(o.Commit)) {
		return fmt.Errorf("commit %q: %w", o.Commit, ErrBadOutline)
	}
	if len(o.Files) > MaxFiles {
		return fmt.Errorf("%d files, more than %d: %w", len(o.Files), MaxFiles, ErrBadOutline)
	}
	if !slices.IsSortedFunc(o.Files, byPath) {
		return fmt.Errorf("files not sorted by path: %w", ErrBadOutline)
	}
	paths := make([]string, len(o.Files))
	sizes := make(map[Digest]int64, len(o.Files))
	for i, f := range o.Files {
		if err := f.validate(sizes); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		paths[i] = f.Path
	}
	return checkClash(paths)
}

func byPath(a, b File) int { return strings.Compare(a.Path, b.Path) }

// validate also refuses one digest with two sizes: it could not be one blob.
func (f File) validate(sizes map[Digest]int64) error {
	if err := CheckPath(f.Path); err != nil {
		return err
	}
	if f.Blob.Size < 0 || f.Blob.Size > MaxBlobSize {
		return fmt.Errorf("size %d: %w", f.Blob.Size, ErrBadOutline)
	}
	if f.Blob.Digest.IsZero() || !f.OID.Git() || (f.Blob.Digest.Git() && f.OID != f.Blob.Digest) {
		return fmt.Errorf("digest %q with git id %q: %w", f.Blob.Digest, f.OID, ErrBadOutline)
	}
	if !f.Xet.IsZero() && (f.Xet.Git() || !f.LFS()) {
		return fmt.Errorf("xet name %q of %q: %w", f.Xet, f.Blob.Digest, ErrBadOutline)
	}
	if size, seen := sizes[f.Blob.Digest]; seen && size != f.Blob.Size {
		return fmt.Errorf("digest %s has sizes %d and %d: %w", f.Blob.Digest, size, f.Blob.Size, ErrBadOutline)
	}
	sizes[f.Blob.Digest] = f.Blob.Size
	return nil
}

// Sort brings the files into the order that Validate wants.
func (o *Outline) Sort() { slices.SortFunc(o.Files, byPath) }

// Blobs returns the distinct blobs of the given files in their order.
func Blobs(files []File) []Blob {
	var out []Blob
	seen := make(map[Blob]bool, len(files))
	for _, f := range files {
		if !seen[f.Blob] {
			seen[f.Blob] = true
			out = append(out, f.Blob)
		}
	}
	return out
}

// Size returns the bytes of all distinct blobs.
func (o *Outline) Size() int64 {
	var total int64
	for _, b := range Blobs(o.Files) {
		total += b.Size
	}
	return total
}
