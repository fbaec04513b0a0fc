package cachefs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"p2pagent/pkg/pieces"
)

// Complete gives a blob its name in every repository that began it, once all its
// pieces are held and its digest is right. When it returns nil the blob is
// durable and proven. The outcomes:
//
//  1. nil: the blob is in blobs/ of each repository (also when it was before);
//  2. ErrNotBegun, ErrIncomplete: nothing to complete yet;
//  3. an error that wraps pieces.ErrDigest: every piece matched its statement but
//     the whole is wrong, so some statement lied. Nothing is published; the
//     pieces stay held until Forget;
//  4. a *NoSpaceError or the disk's error. After a failed sync nothing is
//     published. After an error in a later repository the blob is whole in the
//     earlier ones, and Begin tries the rest again.
func (c *Cache) Complete(ctx context.Context, b pieces.Blob) error {
	p := c.partial(b)
	if p == nil {
		if c.findWhole(b) != nil {
			return nil
		}
		return fmt.Errorf("complete %s: %w", b, ErrNotBegun)
	}
	if err := acquire(ctx, p.completing); err != nil {
		return fmt.Errorf("complete %s: %w", b, err)
	}
	defer func() { <-p.completing }()
	if c.partial(b) != p { // another call was faster
		return nil
	}
	return c.diskError("complete", b, 0, c.complete(ctx, p))
}

func (c *Cache) complete(ctx context.Context, p *partial) error {
	if err := c.usable(); err != nil {
		return err
	}
	if !p.full() {
		return ErrIncomplete
	}
	if err := c.checkDigest(ctx, p); err != nil {
		return err
	}
	return c.publish(p)
}

// checkDigest hashes what the running digest did not see yet.
func (c *Cache) checkDigest(ctx context.Context, p *partial) error {
	if err := acquire(ctx, p.hashing); err != nil {
		return err
	}
	defer func() { <-p.hashing }()
	if err := c.extendFile(ctx, p); err != nil {
		return err
	}
	if next, _ := p.nextToHash(); next != p.blob.Pieces() {
		return ErrIncomplete // some piece was forgotten meanwhile
	}
	return p.blob.Check(p.sum)
}

// publish syncs the file, proves it, and moves it to its name in one repository;
// from then on the blob is whole. The others get links.
func (c *Cache) publish(p *partial) error {
	repos := p.wanted()
	if len(repos) == 0 {
		return ErrNotBegun
	}
	h, err := c.openData(p)
	if err != nil {
		return err
	}
	defer c.handles.put(h)
	first := repos[0].Folder()
	if err := c.hub.MkdirAll(blobsOf(first), 0o777); err != nil {
		return err
	}
	at, err := syncAndStamp(h)
	if err != nil {
		return err
	}
	places := []place{{folder: first, stamp: at}}
	if err := c.writeProof(p.blob, places, p.list()); err != nil {
		return err
	}
	if err := c.moveIn(dataName(p.blob), blobName(first, p.blob.Digest)); err != nil {
		return err
	}
	w, rest := c.becomeWhole(p, places)
	return c.spread(w, rest, h)
}

// syncAndStamp makes the content durable before the file gets a name that means
// "whole". Renames and links leave the stamp as it is.
func syncAndStamp(h *handle) (stamp, error) {
	if err := h.file.Sync(); err != nil {
		return stamp{}, err
	}
	info, err := h.file.Stat()
	if err != nil {
		return stamp{}, err
	}
	return stampOf(info), nil
}

// moveIn renames a file of the state folder into the cache, durably. Whatever has
// the name, a wrong blob or a dangling link, is replaced in the same instant.
func (c *Cache) moveIn(from, to string) error {
	if err := c.stage.Move(from, c.hub, to); err != nil {
		return err
	}
	return c.hub.SyncDir(path.Dir(to))
}

// becomeWhole swaps the partial blob for the whole one and returns the
// repositories that still lack it: a Begin that comes later finds it whole.
func (c *Cache) becomeWhole(p *partial, places []place) (*whole, []pieces.Repo) {
	w := &whole{blob: p.blob, places: places}
	c.mu.Lock()
	delete(c.partials, p.blob)
	c.wholes[p.blob] = w
	c.mu.Unlock()
	p.unpin(c.handles)
	if p.journalled() {
		if err := c.state.Remove(journalName(p.blob)); err != nil {
			c.log.Warn("can't remove a journal", "blob", p.blob.String(), "err", err)
		}
	}
	return w, p.wanted()[1:]
}

// spread gives a whole blob its name in more repositories.
func (c *Cache) spread(w *whole, repos []pieces.Repo, h *handle) error {
	for _, r := range repos {
		var err error
		if w, err = c.plant(w, r.Folder(), h); err != nil {
			return err
		}
	}
	return nil
}

// plant puts a whole blob, open as h, into one more repository: as a link, or as
// a copy where links are refused (another owner's file, too many links).
func (c *Cache) plant(w *whole, folder string, h *handle) (*whole, error) {
	if err := c.hub.MkdirAll(blobsOf(folder), 0o777); err != nil {
		return nil, err
	}
	name := blobName(folder, w.blob.Digest)
	err := c.stage.Link(h.file, c.hub, name)
	if err != nil && !isNoSpace(err) {
		err = c.copyIn(h, w.blob, name)
	}
	if err == nil {
		err = c.hub.SyncDir(path.Dir(name))
	}
	if err != nil {
		return nil, err
	}
	info, err := c.hub.Stat(name)
	if err != nil {
		return nil, err
	}
	places := append(w.others(folder), place{folder: folder, stamp: stampOf(info)})
	if err := c.prove(w.blob, places, c.Statements(w.blob)); err != nil {
		return nil, err
	}
	return &whole{blob: w.blob, places: places}, nil
}

// others returns a copy of the places outside folder.
func (w *whole) others(folder string) []place {
	var out []place
	for _, p := range w.places {
		if p.folder != folder {
			out = append(out, p)
		}
	}
	return out
}

// copyIn copies an open blob, and checks the copy's digest on the way: what has
// a blob's name was hashed, always.
func (c *Cache) copyIn(h *handle, b pieces.Blob, name string) error {
	tmp := c.stage.Name()
	f, err := c.state.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	err = copyChecked(f, h.file, b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, c.state.Remove(tmp))
	}
	return c.stage.Move(tmp, c.hub, name)
}

func (p *partial) wanted() []pieces.Repo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]pieces.Repo(nil), p.repos...)
}

func (p *partial) unpin(hs *handles) {
	if _, h := p.takeUnsynced(); h != nil {
		hs.put(h)
	}
}
