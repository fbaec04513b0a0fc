package cachefs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
	"time"

	"p2pagent/pkg/pieces"
)

// Holding is a snapshot as an eviction sees it.
type Holding struct {
	Snapshot
	// Ours tells whether this package committed it, rather than a Hub client alone.
	Ours bool
	// Read is when one of its files was last read, as the filesystem keeps it: with
	// relatime, the usual mount, that may be a day late. Or when it was made.
	Read  time.Time
	Names []Name
}

// Name is a file of the cache that a snapshot needs: a blob, or an entry that is no
// link. Several snapshots of a repository may need one, and several names may be
// links to one file.
type Name struct {
	Path  string // in the cache
	Inode uint64
	Bytes int64 // of disk
	Links int   // names that the file has, in the cache or not
}

// Holdings returns every snapshot in the cache, as List does.
func (c *Cache) Holdings() ([]Holding, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	out := make([]Holding, len(all))
	for i, s := range all {
		out[i] = Holding{Snapshot: s, Read: s.Updated}
		if err := c.measureNames(&out[i]); err != nil {
			return nil, fmt.Errorf("measure %s@%s: %w", s.Repo, s.Commit, err)
		}
		_, err := c.state.Lstat(outlineName(s.Repo, s.Commit))
		out[i].Ours = err == nil
	}
	return out, nil
}

// measureNames fills Names and Read.
func (c *Cache) measureNames(h *Holding) error {
	seen := map[string]bool{}
	return c.walk(snapshotName(h.Repo.Folder(), h.Commit), func(name string, _ fs.DirEntry) error {
		if target, err := c.hub.Readlink(name); err == nil {
			name = path.Join(path.Dir(name), target)
		}
		info, err := c.hub.Lstat(name)
		if err != nil || !info.Mode().IsRegular() || seen[name] {
			return nil // dangling, gone, or counted
		}
		seen[name] = true
		st := info.Sys().(*syscall.Stat_t)
		h.Names = append(h.Names, Name{Path: name, Inode: st.Ino, Bytes: st.Blocks * 512, Links: int(st.Nlink)})
		if read := time.Unix(st.Atim.Unix()); read.After(h.Read) {
			h.Read = read
		}
		return nil
	})
}

// Unfinished returns the blobs of which pieces are kept for a later Begin, with
// when they were last written, in no order. What nobody will ask for again should
// be abandoned: it takes room.
func (c *Cache) Unfinished() map[pieces.Blob]time.Time {
	c.mu.Lock()
	all := make([]*partial, 0, len(c.partials))
	for _, p := range c.partials {
		all = append(all, p)
	}
	c.mu.Unlock()
	out := make(map[pieces.Blob]time.Time, len(all))
	for _, p := range all {
		var written time.Time
		if info, err := c.state.Lstat(p.dataName()); err == nil {
			written = info.ModTime()
		}
		out[p.blob] = written
	}
	return out
}

// Room is how much there is of the disk, and how much the cache takes.
type Room struct {
	Used  int64 // bytes of content: whole blobs, whoever put them there, and what partial ones will be
	Quota int64 // most of that; 0 without a quota
	Free  int64 // bytes that an ordinary user can still write to the disk
	Disk  int64 // bytes of it
}

// Left returns how much more the cache may take.
func (r Room) Left() int64 {
	if r.Quota == 0 {
		return r.Free
	}
	return max(0, min(r.Free, r.Quota-r.Used))
}

// Room looks through the folders of blobs: one stat for each blob.
func (c *Cache) Room() (Room, error) {
	r, err := c.room(nil)
	if err != nil {
		return r, fmt.Errorf("measure room of %s: %w", c.hubDir, err)
	}
	return r, nil
}

// room leaves out what the given blobs will be.
func (c *Cache) room(without []pieces.Blob) (Room, error) {
	u, err := c.Usage()
	if err != nil {
		return Room{}, err
	}
	r := Room{Used: u.Whole + c.reservedBytes(without), Quota: c.quota}
	free, err := c.free()
	disk, derr := c.disk()
	r.Free, r.Disk = free, disk
	return r, errors.Join(err, derr)
}

// reservedBytes is what partial blobs will be once they are whole.
func (c *Cache) reservedBytes(without []pieces.Blob) (sum int64) {
	skip := make(map[pieces.Blob]bool, len(without))
	for _, b := range without {
		skip[b] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := range c.partials {
		if !skip[b] {
			sum += b.Size
		}
	}
	return sum
}
