package agent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Content reads one file of a commit while it lands, or after. It is not safe for
// concurrent use.
type Content struct {
	agent *Agent
	view  *View
	token string
	file  pieces.File
	blob  *cachefs.Content
	job   *job
	left  func() // ends being counted as a reader

	at   int    // index of the piece that is preferred
	done func() // ends that
}

// Read returns a reader of a file of the commit; the caller closes it. Nothing is
// fetched before its first Await or Start. The token, "" for none, is that of
// whoever reads: where the Hub refuses the file to this node it is fetched by that
// right.
func (a *Agent) Read(v *View, f pieces.File, token string) *Content {
	if a.Open(v) {
		token = "" // all readers share one job
	}
	return &Content{agent: a, view: v, token: token, file: f, blob: a.opt.Cache.Content(f.Blob), left: a.reading(v.Outline.Repo, v.Outline.Commit)}
}

// Start has the file brought here, if it is not. It goes on when the Content is
// closed, and ends in the cache.
func (c *Content) Start() error {
	if c.job != nil || c.here() {
		return nil
	}
	o := c.view.Outline
	j, err := c.agent.join(context.Background(), Request{Ref: pieces.Ref{Repo: o.Repo, Revision: string(o.Commit)}, Path: c.file.Path, token: c.token}, filter{})
	if err != nil {
		return err
	}
	c.agent.leave(j, false)
	c.job = j
	return nil
}

// Here tells whether the repository has the content, of this file or another one.
func (c *Content) Here() bool { return c.agent.opt.Cache.Has(c.view.Outline.Repo, c.file.Blob) }

// here tells whether the file is in the snapshot.
func (c *Content) here() bool { return c.view.has(c.file.Path) && c.Here() }

// Whole returns the file when all of it is here, nil otherwise. It is closed with
// the Content.
func (c *Content) Whole() *os.File {
	if !c.here() {
		return nil
	}
	return c.blob.Whole()
}

var errEnded = errors.New("the job has ended")

// Await waits until the byte at off can be read, and returns how many there are in
// a row. Until then, and until the next Await, what is to be read next is brought
// first. It fails with the cause of ctx's end or with why the file can't be had.
func (c *Content) Await(ctx context.Context, off int64) (int64, error) {
	if err := c.Start(); err != nil {
		return 0, err
	}
	c.prefer(off)
	if c.job == nil {
		return c.blob.Await(ctx, off)
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.job.ctx, func() { cancel(errEnded) })()
	n, err := c.blob.Await(working, off)
	if !errors.Is(err, errEnded) {
		return n, err
	}
	<-c.job.done // at once: the work is over
	if c.job.err != nil {
		return 0, c.job.err
	}
	if n, err = c.blob.Await(ctx, off); err != nil {
		return 0, fmt.Errorf("read %s: %w", c.file.Path, err)
	}
	return n, nil
}

// prefer has the piece at off, and those behind it, brought first.
func (c *Content) prefer(off int64) {
	at := int(off / c.file.Blob.PieceSize())
	if c.done != nil && at == c.at {
		return
	}
	before := c.done
	c.at, c.done = at, c.agent.opt.Prefer(c.file.Blob, at)
	if before != nil {
		before()
	}
}

// ReadAt reads bytes that Await has promised.
func (c *Content) ReadAt(b []byte, off int64) (int, error) { return c.blob.ReadAt(b, off) }

// Close ends the preference and closes the file. What is being fetched goes on.
func (c *Content) Close() error {
	if c.done != nil {
		c.done()
	}
	defer c.left()
	return c.blob.Close()
}
