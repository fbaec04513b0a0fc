package cachefs

import (
	"context"
	"errors"
	"path"

	"p2pagent/internal/durable"
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
//  4. a *NoSpaceError or the disk's error. After a failed sync of the file nothing
//     is published. After an error in a later repository the blob is whole in the
//     earlier ones, and Begin tries the rest again.
func (c *Cache) Complete(ctx context.Context, b pieces.Blob) error {
	return c.diskError(b.Size, c.complete(ctx, b), "complete %s", b)
}

func (c *Cache) complete(ctx context.Context, b pieces.Blob) error {
	for {
		p, err := c.writable(b)
		if p == nil {
			return err
		}
		if err := acquire(ctx, p.completing); err != nil {
			return err
		}
		err = c.completeOne(ctx, p)
		<-p.completing
		if !errors.Is(err, errOver) {
			return err
		}
	}
}

// completeOne fails with errOver when the partial ended meanwhile. The caller
// holds p.completing.
func (c *Cache) completeOne(ctx context.Context, p *partial) error {
	if err := p.checkFull(); err != nil {
		return err
	}
	if err := c.checkDigest(ctx, p); err != nil {
		return err
	}
	return c.publish(ctx, p)
}

func (p *partial) checkFull() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over:
		return errOver
	case !p.held.Full():
		return ErrIncomplete
	case len(p.repos) == 0: // left by an earlier run, and nobody wants it in this one
		return ErrNotBegun
	}
	return nil
}

// checkDigest hashes what the running digest did not see yet.
func (c *Cache) checkDigest(ctx context.Context, p *partial) error {
	if err := c.extendFile(ctx, p); err != nil {
		return err
	}
	if err := acquire(ctx, p.hashing); err != nil {
		return err
	}
	defer func() { <-p.hashing }()
	if err := p.checkFull(); err != nil {
		return err // some piece was forgotten meanwhile
	}
	if next, _ := p.nextToHash(); next != p.blob.Pieces() {
		return ErrIncomplete
	}
	return p.blob.Check(p.sum)
}

// publish syncs the file, proves it, and moves it to its name in one repository;
// from then on the blob is whole. The others get links.
func (c *Cache) publish(ctx context.Context, p *partial) error {
	h, err := c.openData(p, p.createFlag())
	if err != nil {
		return err
	}
	defer h.release()
	first := p.wanted()[0].Folder()
	if err := c.hub.MkdirAll(blobsOf(first), 0o777); err != nil {
		return err
	}
	at, err := c.settleFile(h.file, blobName(first, p.blob.Digest))
	if err != nil {
		return err
	}
	w, err := c.moveIn(ctx, p, at)
	if err != nil {
		return err
	}
	return c.spread(ctx, w, p.wanted()[1:], h)
}

// moveIn proves the blob and renames it to its name, in this order: a proof that
// nothing matches is harmless, a blob without one would be hashed again.
func (c *Cache) moveIn(ctx context.Context, p *partial, at place) (*whole, error) {
	proving := c.provingOf(p.blob)
	if err := acquire(ctx, proving); err != nil {
		return nil, err
	}
	defer func() { <-proving }()
	places := []place{at}
	if other := c.findWhole(p.blob); other != nil { // another repository has it since
		places = append(c.others(other, at.name), at)
	}
	if err := c.writeProof(&proof{blob: p.blob, places: places, statements: p.list()}); err != nil {
		return nil, err
	}
	if err := c.state.Move(p.dataName(), c.hub, at.name); err != nil {
		return nil, err
	}
	if err := c.hub.SyncDir(path.Dir(at.name)); err != nil {
		return nil, err
	}
	return c.becomeWhole(p, places), nil
}

// settleFile makes the content durable before the file gets a name that means
// "whole". Neither rename nor link changes the stamp.
func (c *Cache) settleFile(f *durable.File, name string) (place, error) {
	f.InheritGroup(c.hub, path.Dir(name))
	if err := f.Sync(); err != nil {
		return place{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return place{}, err
	}
	return place{name: name, stamp: stampOf(info)}, nil
}

// becomeWhole swaps the partial blob for the whole one. A Begin that comes later
// finds it whole; the list of those that came before is final.
func (c *Cache) becomeWhole(p *partial, places []place) *whole {
	w := &whole{blob: p.blob, places: places}
	c.mu.Lock()
	delete(c.partials, p.blob)
	c.wholes[p.blob] = w
	c.mu.Unlock()
	c.bells.ring(p.blob)
	if err := c.finish(p); err != nil {
		c.log.Warn("can't remove a journal", "blob", p.blob.String(), "err", err)
	}
	return w
}

// finish ends a partial blob that is not in c.partials any more and removes its
// journal.
func (c *Cache) finish(p *partial) error {
	p.end()
	p.flushing <- struct{}{} // held for one flush at a time
	defer func() { <-p.flushing }()
	if h := p.takePin(); h != nil {
		h.release()
	}
	c.handles.forget(p)
	if !p.journalled() {
		return nil
	}
	return c.state.Remove(p.journalName())
}

// spread gives a whole blob, open as h, its name in more repositories.
func (c *Cache) spread(ctx context.Context, w *whole, repos []pieces.Repo, h *handle) error {
	for _, r := range repos {
		if err := c.plant(ctx, w, r.Folder(), h); err != nil {
			return err
		}
	}
	return nil
}

// plantWhole puts a whole blob into blobs/ of a repository.
func (c *Cache) plantWhole(ctx context.Context, w *whole, folder string) error {
	h, err := c.openWhole(w)
	if err != nil {
		return err
	}
	defer h.release()
	return c.plant(ctx, w, folder, h)
}

// plant puts a whole blob into one more repository: as a link, or as a copy where
// links are refused (another owner's file, too many links).
func (c *Cache) plant(ctx context.Context, w *whole, folder string, h *handle) error {
	if err := c.hub.MkdirAll(blobsOf(folder), 0o777); err != nil {
		return err
	}
	name := blobName(folder, w.blob.Digest)
	err := c.stage.Link(h.file, c.hub, name)
	if err != nil && !isNoSpace(err) {
		err = c.copyIn(ctx, h.file, w.blob, name)
	}
	if err != nil {
		return err
	}
	if err := c.hub.SyncDir(blobsOf(folder)); err != nil {
		return err
	}
	info, err := c.hub.Stat(name)
	if err != nil {
		return err
	}
	_, err = c.prove(ctx, w.blob, place{name: name, stamp: stampOf(info)}, c.statements(w))
	return err
}

// copyIn copies an open blob, durably but for its name, and checks the copy's
// digest on the way: what has a blob's name was hashed, always.
func (c *Cache) copyIn(ctx context.Context, src *durable.File, b pieces.Blob, name string) error {
	return c.stage.Make(c.hub, name, 0o666, func(dst *durable.File) error {
		err := scan(ctx, src, b, func(off int64, chunk []byte) error {
			_, err := dst.WriteAt(chunk, off)
			return err
		})
		if err != nil {
			return err
		}
		return dst.Sync()
	})
}
