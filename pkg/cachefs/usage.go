package cachefs

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Usage is what the cache holds on the disk, in bytes of content.
type Usage struct {
	Whole   int64 // of blobs in the Hub's cache, whoever put them there
	Partial int64 // of pieces held of blobs that are not whole
}

// Usage looks through the folders of blobs: one stat for each blob.
func (c *Cache) Usage() (Usage, error) {
	u := Usage{Partial: c.partialBytes()}
	folders, err := c.repoFolders()
	if err != nil {
		return u, fmt.Errorf("measure cache %s: %w", c.hubDir, err)
	}
	seen := map[uint64]bool{}
	for _, folder := range folders {
		u.Whole += c.blobBytes(folder, seen)
	}
	return u, nil
}

// blobBytes leaves out what went away meanwhile, what can't be read, and what
// another repository has linked.
func (c *Cache) blobBytes(folder string, seen map[uint64]bool) (sum int64) {
	entries, _ := c.hub.ReadDir(blobsOf(folder))
	for _, e := range entries {
		if info, err := c.hub.Lstat(path.Join(blobsOf(folder), e.Name())); err == nil && info.Mode().IsRegular() && !seen[stampOf(info).inode] {
			seen[stampOf(info).inode] = true
			sum += info.Size()
		}
	}
	return sum
}

func (c *Cache) partialBytes() (sum int64) {
	c.mu.Lock()
	all := make([]*partial, 0, len(c.partials))
	for _, p := range c.partials {
		all = append(all, p)
	}
	c.mu.Unlock()
	for _, p := range all {
		sum += p.heldBytes()
	}
	return sum
}

func (p *partial) heldBytes() (sum int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.held.All() {
		_, n := p.blob.Piece(i)
		sum += n
	}
	return sum
}

// Writable tells why nothing can be written: a sync that failed, a state that
// takes no file, a cache that is read-only now.
func (c *Cache) Writable() error {
	err := c.usable()
	if err == nil {
		err = c.probe()
	}
	if err == nil {
		err = os.NewSyscallError("access", unix.Access(c.hubDir, unix.W_OK)) // no file of ours in there
	}
	if err != nil {
		return fmt.Errorf("write to cache %s: %w", c.hubDir, err)
	}
	return nil
}

// probe makes a file where whatever a crash leaves is swept at the next start.
func (c *Cache) probe() error {
	name := path.Join(stageDir, "probe-"+rand.Text())
	f, err := c.state.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), c.state.Remove(name))
}
