package seeder

import (
	"context"
	"errors"
	"fmt"
	"io"

	"p2pagent/pkg/pieces"
)

// run is a sequence of needed pieces, fetched by one request and, when that
// breaks, by further ones from where it stopped.
type run struct {
	*fetch
	cutter *pieces.Cutter
	index  int // of the piece being read
}

// sinkError carries a store's error past the retries, which are for upstream.
type sinkError struct{ error }

func (e sinkError) Unwrap() error { return e.error }

func (r *run) retry(ctx context.Context) error {
	patience := newPatience(r.seeder.options)
	for r.wanted(r.index) {
		before := r.cutter.Offset()
		err := r.attempt(ctx)
		if err == nil {
			return nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if sink, ok := errors.AsType[sinkError](err); ok {
			return sink.error
		}
		if tainted(err) {
			r.startOver()
		}
		wait, err := patience.after(err, r.cutter.Offset()-before)
		if err != nil {
			return err
		}
		r.seeder.options.Logger.Info("upstream broke", "blob", r.blob.String(), "offset", r.cutter.Offset(), "wait", wait, "error", patience.last)
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}

// tainted tells whether what was read of the piece at hand is not to be used.
func tainted(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Tainted() bool
	}](err)
	return ok && e.Tainted()
}

// startOver drops what was read of the piece at hand.
func (r *run) startOver() {
	r.seeder.options.Buffers.Put(r.cutter.Abandon())
	r.cutter = r.newCutter(r.index)
}

func (r *run) wanted(index int) bool { return index < r.end && r.need(r.blob, index) }

// attempt opens one request and reads it to its end or until it breaks. It
// returns nil too when the next piece has come another way.
func (r *run) attempt(ctx context.Context) error {
	last := r.index + 1
	for r.wanted(last) {
		last++
	}
	offset := r.cutter.Offset()
	length := min(int64(last)*r.blob.PieceSize(), r.blob.Size) - offset
	body, err := r.src.Open(ctx, r.blob, offset, length)
	if err != nil {
		return fmt.Errorf("open at %d: %w", offset, err)
	}
	// A source that forgets its context must not keep us waiting.
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer func() {
		stop()
		body.Close()
	}()
	return r.read(ctx, &counted{body, r.progress}, last)
}

func (r *run) read(ctx context.Context, body io.Reader, last int) error {
	for first := true; r.index < last && (first || r.need(r.blob, r.index)); first = false {
		r.orient()
		piece, err := r.cutter.Next(body)
		if err != nil {
			return fmt.Errorf("read at %d: %w", r.cutter.Offset(), err)
		}
		err = r.sink.Put(ctx, piece)
		r.seeder.options.Buffers.Put(piece.Bytes())
		if err != nil {
			return sinkError{err}
		}
		r.index++
	}
	return nil
}

// orient tells the cutter where in the digest it is, as soon as that is known.
func (r *run) orient() {
	if index, ok := r.cutter.Lacks(); ok {
		if border, ok := r.seeder.options.Border(r.blob, index); ok {
			r.cutter.From(border)
		}
	}
}

// counted reports the bytes that pass, but for those that were here.
type counted struct {
	io.Reader
	progress func(int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 && !copied(c.Reader) {
		c.progress(int64(n))
	}
	return n, err
}

func copied(r io.Reader) bool {
	c, ok := r.(interface{ Copied() bool })
	return ok && c.Copied()
}
