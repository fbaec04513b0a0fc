package cachefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"p2pagent/pkg/pieces"
)

// Begin prepares for the pieces of blobs that a repository is to have. When it
// returns nil, every blob is either there (Has) or can be Put; what an earlier
// run journalled is held. Blobs that are on disk already, left by a Hub client,
// by another repository or by an earlier run, are adopted: hashed once unless
// their proof is valid, and linked. A file of the right name and wrong content
// is left alone until Complete replaces it.
//
// Free space is compared with what all blobs together still need before anything
// is written; *NoSpaceError otherwise. Begin again is harmless.
func (c *Cache) Begin(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	if err := c.begin(ctx, repo, blobs); err != nil {
		return c.diskError("begin", repo, 0, err)
	}
	return nil
}

func (c *Cache) begin(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	if err := c.usable(); err != nil {
		return err
	}
	if _, err := pieces.ParseFolder(repo.Folder()); err != nil {
		return err
	}
	var missing []pieces.Blob
	a := adopter{Cache: c, folder: repo.Folder()}
	for _, b := range distinct(blobs) {
		found, err := a.adopt(ctx, b)
		if err != nil {
			return fmt.Errorf("adopt %s: %w", b, err)
		}
		if !found {
			missing = append(missing, b)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return c.reserve(ctx, repo, missing)
}

func distinct(blobs []pieces.Blob) []pieces.Blob {
	seen := make(map[pieces.Blob]bool, len(blobs))
	var out []pieces.Blob
	for _, b := range blobs {
		if !seen[b] {
			seen[b] = true
			out = append(out, b)
		}
	}
	return out
}

// reserve makes room for all blobs or for none.
func (c *Cache) reserve(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	if err := acquire(ctx, c.taking); err != nil {
		return err
	}
	defer func() { <-c.taking }()
	if err := c.checkRoom(blobs); err != nil {
		return err
	}
	if err := c.tag(); err != nil {
		return err
	}
	var made []pieces.Blob
	for _, b := range blobs {
		fresh, err := c.begun(b, repo)
		if err != nil {
			return errors.Join(err, c.abandonAll(made))
		}
		if fresh {
			made = append(made, b)
		}
	}
	if len(made) == 0 {
		return nil
	}
	return c.state.SyncDir(partialDir)
}

func (c *Cache) checkRoom(blobs []pieces.Blob) error {
	var need int64
	for _, b := range blobs {
		need += c.stillNeeds(b)
	}
	free, err := c.free()
	if err != nil {
		return err
	}
	if need > free {
		return &NoSpaceError{Need: need, Free: free, Dir: c.hubDir}
	}
	return nil
}

// stillNeeds returns the bytes that no block is reserved for yet.
func (c *Cache) stillNeeds(b pieces.Blob) int64 {
	if c.partial(b) == nil {
		return b.Size
	}
	info, err := c.state.Lstat(dataName(b))
	if err != nil {
		return b.Size
	}
	return max(0, b.Size-info.Sys().(*syscall.Stat_t).Blocks*512)
}

// begun registers that repo wants the blob and makes its files when it is new.
func (c *Cache) begun(b pieces.Blob, repo pieces.Repo) (fresh bool, err error) {
	c.mu.Lock()
	p := c.partials[b]
	if p != nil {
		p.want(repo)
	}
	c.mu.Unlock()
	if p != nil {
		return false, nil
	}
	p = newPartial(b)
	p.want(repo)
	if p.journalled() {
		if err := c.makePartial(p); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partials[b] = p // reserve holds c.taking: nobody else made one
	return true, nil
}

func (c *Cache) makePartial(p *partial) error {
	f, err := c.state.OpenFile(dataName(p.blob), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Allocate(p.blob.Size), f.Close()); err != nil {
		return errors.Join(err, c.state.Remove(dataName(p.blob)))
	}
	raw := encodeJournal(p.blob, nil)
	p.journalEnd = int64(len(raw))
	err = c.stage.WriteFileNoSync(c.state, journalName(p.blob), raw, 0o600, false)
	if err != nil {
		return errors.Join(err, c.state.Remove(dataName(p.blob)))
	}
	return nil
}

// tag marks the cache as one, as Hub clients do, so that backups leave it out.
func (c *Cache) tag() error {
	if _, err := c.hub.Lstat(tagName); err == nil {
		return nil
	}
	return c.stage.WriteFile(c.hub, tagName, []byte(tagContent), 0o666)
}

// Abandon drops a partial blob with all its pieces. A whole one stays.
func (c *Cache) Abandon(b pieces.Blob) error {
	return c.diskError("abandon", b, 0, c.abandonAll([]pieces.Blob{b}))
}

func (c *Cache) abandonAll(blobs []pieces.Blob) error {
	var errs []error
	for _, b := range blobs {
		c.mu.Lock()
		p := c.partials[b]
		delete(c.partials, b)
		c.mu.Unlock()
		if p == nil {
			continue
		}
		p.unpin(c.handles)
		c.handles.forget(b)
		if p.journalled() {
			errs = append(errs, c.state.Remove(journalName(b)))
		}
		errs = append(errs, c.state.Remove(dataName(b)))
	}
	return errors.Join(errs...)
}
