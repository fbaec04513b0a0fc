package cachefs

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"p2pagent/pkg/pieces"
)

// Begin prepares for the blobs that a repository is to have. When it returns nil,
// every blob is either there (Has) or can be Put; what an earlier run journalled
// is held. Blobs that are on disk already, left by a Hub client, by another
// repository or by an earlier run, are adopted: hashed once unless their proof is
// valid, and linked. A file of the right name and wrong content is left alone
// until Complete replaces it.
//
// Free space, and what is left of the quota, are compared with what all blobs
// together still need before anything is written; *NoSpaceError otherwise. Begin again is harmless.
func (c *Cache) Begin(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	return c.diskError(0, c.begin(ctx, repo, blobs), "begin %s", repo)
}

func (c *Cache) begin(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	if err := c.usable(); err != nil {
		return err
	}
	if same, err := pieces.ParseRepo(repo.String()); err != nil || same != repo {
		return errors.Join(err, fmt.Errorf("not a repository's name"))
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
	return a.reserve(ctx, repo, missing)
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
func (a *adopter) reserve(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	c := a.Cache
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
		fresh, err := a.beginOne(ctx, b, repo)
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
	return c.checkQuota(blobs)
}

// checkQuota counts whole blobs by their length: what a partial one will be is
// taken from the moment that it is begun.
func (c *Cache) checkQuota(blobs []pieces.Blob) error {
	if c.quota == 0 {
		return nil
	}
	var need int64
	for _, b := range blobs {
		need += b.Size
	}
	r, err := c.room(blobs)
	if err != nil {
		return err
	}
	if need > r.Left() {
		return &NoSpaceError{Need: need, Free: r.Left(), Quota: r.Quota, Dir: c.hubDir}
	}
	return nil
}

// stillNeeds returns the bytes that no block is reserved for yet.
func (c *Cache) stillNeeds(b pieces.Blob) int64 {
	p := c.partial(b)
	if p == nil {
		return b.Size
	}
	info, err := c.state.Lstat(p.dataName())
	if err != nil {
		return b.Size
	}
	return max(0, b.Size-info.Sys().(*syscall.Stat_t).Blocks*512)
}

// beginOne notes that repo wants the blob, and makes its files when it is new. The
// caller holds c.taking: without a partial blob nobody makes one meanwhile, so
// what is not whole now stays so.
func (a *adopter) beginOne(ctx context.Context, b pieces.Blob, repo pieces.Repo) (fresh bool, err error) {
	c := a.Cache
	c.mu.Lock()
	p := c.partials[b]
	if p != nil {
		p.want(repo) // under c.mu: Complete looks at the list once it took p out
	}
	c.mu.Unlock()
	if p != nil {
		c.warmUp(p) // what an earlier run left may be hashed meanwhile
		return false, nil
	}
	// Another job may have completed it after Begin looked. A partial blob beside
	// the whole one would be fetched again, and that job would find it incomplete.
	if found, err := a.adoptKnown(ctx, b); found || err != nil {
		return false, err
	}
	p = newPartial(b, newNonce())
	p.want(repo)
	if p.journalled() {
		if err := c.makePartial(p); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.partials[b] = p
	return true, nil
}

func newNonce() uint64 {
	var raw [8]byte
	rand.Read(raw[:])
	return binary.LittleEndian.Uint64(raw[:])
}

// makePartial makes the data file, then the journal. A crash in between leaves a
// data file that no journal vouches for.
func (c *Cache) makePartial(p *partial) error {
	f, err := c.state.OpenFile(p.dataName(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	err = errors.Join(f.Allocate(p.blob.Size), f.Close())
	if err == nil {
		raw := encodeJournal(p.blob, p.nonce, nil)
		p.journalEnd = int64(len(raw))
		err = c.stage.WriteHint(c.state, p.journalName(), raw, 0o600)
	}
	if err != nil {
		return errors.Join(err, c.state.Remove(p.dataName()))
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

// Abandon drops a partial blob with all its pieces, for everyone who began it. A
// whole one stays.
func (c *Cache) Abandon(b pieces.Blob) error {
	return c.diskError(0, c.abandonAll([]pieces.Blob{b}), "abandon %s", b)
}

func (c *Cache) abandonAll(blobs []pieces.Blob) error {
	var errs []error
	for _, b := range blobs {
		c.mu.Lock()
		p := c.partials[b]
		delete(c.partials, b)
		c.mu.Unlock()
		if p != nil {
			c.bells.ring(b)
			errs = append(errs, c.abandon(p))
		}
	}
	return errors.Join(errs...)
}

// abandon waits for a Complete that is at work: it ends at the next piece.
func (c *Cache) abandon(p *partial) error {
	p.end()
	p.completing <- struct{}{}
	defer func() { <-p.completing }()
	return errors.Join(c.finish(p), c.state.Remove(p.dataName()))
}
