package cachefs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// Snapshot is what the cache has of one commit.
type Snapshot struct {
	Repo      pieces.Repo
	Commit    pieces.Commit
	Revisions []string        // references that point at the commit, sorted
	Updated   time.Time       // when the reference that was asked for was last written; for a commit id, the snapshot's folder
	Path      string          // absolute
	Outline   *pieces.Outline // nil when nobody knows what belongs to the commit
	Files     []pieces.File   // files of the outline that are there with the right length
	Complete  bool            // Files are all of the outline; their content is Verify's business
	Size      int64           // bytes that the entries refer to, each blob once
}

// Snapshot returns what the cache has of a ref, or ErrNotCached. It opens no blob.
func (c *Cache) Snapshot(ref pieces.Ref) (*Snapshot, error) {
	if err := pieces.CheckRevision(ref.Revision); err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	commit, updated, err := c.lookup(ref)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	revisions, err := c.revisions(ref.Repo)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	s, err := c.describe(ref.Repo, commit, revisions[commit])
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	if !updated.IsZero() {
		s.Updated = updated
	}
	return s, nil
}

// lookup turns a ref into a commit by what is on disk.
func (c *Cache) lookup(ref pieces.Ref) (pieces.Commit, time.Time, error) {
	if pieces.IsCommit(ref.Revision) {
		return pieces.Commit(ref.Revision), time.Time{}, nil
	}
	name := refName(ref.Repo.Folder(), ref.Revision)
	commit, err := c.readRef(name)
	if err != nil {
		return "", time.Time{}, err
	}
	info, err := c.hub.Stat(name)
	if err != nil {
		return "", time.Time{}, err
	}
	return commit, info.ModTime(), nil
}

const maxRefBytes = 1 << 10

// readRef forgives the newline that some tools leave.
func (c *Cache) readRef(name string) (pieces.Commit, error) {
	raw, err := c.hub.ReadFile(name, maxRefBytes)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotCached, err)
	}
	return pieces.ParseCommit(strings.TrimSpace(string(raw)))
}

// revisions returns which references point at which commit.
func (c *Cache) revisions(repo pieces.Repo) (map[pieces.Commit][]string, error) {
	out := map[pieces.Commit][]string{}
	root := path.Join(repo.Folder(), refsDir)
	err := c.walk(root, func(name string, _ fs.DirEntry) error {
		if commit, err := c.readRef(name); err == nil {
			revision := strings.TrimPrefix(name, root+"/")
			out[commit] = append(out[commit], revision)
		}
		return nil
	})
	for _, list := range out {
		slices.Sort(list)
	}
	return out, err
}

// walk calls fn for everything below a folder that is not a folder itself.
func (c *Cache) walk(dir string, fn func(name string, e fs.DirEntry) error) error {
	entries, err := c.hub.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.IsDir() {
			err = c.walk(name, fn)
		} else {
			err = fn(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) describe(repo pieces.Repo, commit pieces.Commit, revisions []string) (*Snapshot, error) {
	name := snapshotName(repo.Folder(), commit)
	info, err := c.hub.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && !info.IsDir()) {
		return nil, ErrNotCached
	}
	if err != nil {
		return nil, err
	}
	s := &Snapshot{
		Repo: repo, Commit: commit, Revisions: revisions, Updated: info.ModTime(),
		Path:    filepath.Join(c.hubDir, filepath.FromSlash(name)),
		Outline: c.outline(repo, commit),
	}
	if err := c.measure(s, name); err != nil {
		return nil, err
	}
	return s, nil
}

// entry is what lies under a file's name in a snapshot.
type entry struct {
	size   int64
	target string // last part of where the link points; "." for a plain file
}

func (e entry) fits(b pieces.Blob) bool {
	return e.size == b.Size && (e.target == "." || e.target == b.String())
}

// measure fills Files, Complete and Size.
func (c *Cache) measure(s *Snapshot, name string) error {
	found, seen := map[string]entry{}, map[uint64]bool{}
	err := c.walk(name, func(at string, _ fs.DirEntry) error {
		info, err := c.hub.Stat(at)
		if err != nil || !info.Mode().IsRegular() {
			return nil // dangling: as good as missing
		}
		target, _ := c.hub.Readlink(at)
		found[strings.TrimPrefix(at, name+"/")] = entry{size: info.Size(), target: path.Base(target)}
		if at := stampOf(info); !seen[at.inode] {
			seen[at.inode] = true
			s.Size += at.size
		}
		return nil
	})
	if err != nil || s.Outline == nil {
		return err
	}
	for _, f := range s.Outline.Files {
		if e, ok := found[f.Path]; ok && e.fits(f.Blob) {
			s.Files = append(s.Files, f)
		}
	}
	s.Complete = len(s.Files) == len(s.Outline.Files)
	return nil
}

// List returns every snapshot in the cache, sorted by repository and commit. A
// repository that can't be read is left out, with a line in the log.
func (c *Cache) List() ([]Snapshot, error) {
	folders, err := c.repoFolders()
	if err != nil {
		return nil, fmt.Errorf("list cache %s: %w", c.hubDir, err)
	}
	var out []Snapshot
	for _, folder := range folders {
		repo, _ := pieces.ParseFolder(folder)
		list, err := c.listRepo(repo)
		if err != nil {
			c.log.Warn("can't list a repository", "repo", repo.String(), "err", err)
		}
		out = append(out, list...)
	}
	return out, nil
}

func (c *Cache) listRepo(repo pieces.Repo) ([]Snapshot, error) {
	revisions, err := c.revisions(repo)
	if err != nil {
		return nil, err
	}
	entries, err := c.hub.ReadDir(path.Join(repo.Folder(), snapshotsDir))
	if err != nil {
		return nil, err
	}
	var out []Snapshot
	for _, e := range entries {
		commit, err := pieces.ParseCommit(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		s, err := c.describe(repo, commit, revisions[commit])
		if errors.Is(err, ErrNotCached) {
			continue // removed since
		}
		if err != nil {
			return out, err
		}
		out = append(out, *s)
	}
	return out, nil
}
