package agent

import (
	"context"
	"fmt"
	"io"

	"p2pagent/internal/layout"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
)

// upstream fetches extents of one repository at one commit from the Hub. It is
// where the three parts meet that don't know each other: the swarm decides which
// extent, the seeder cuts it, the Hub client opens the files.
type upstream struct {
	hub    Hub
	seeder Seeder
	repo   pieces.Repo
	commit pieces.Commit
	files  map[pieces.Blob]pieces.File // one file for each blob; any will do
	source seeder.Source               // what opens the blobs: this, unless a better way is known
	came   func(n int64)               // told how many bytes came
}

// upstreamFor returns nil when the Hub can't be asked for these blobs.
func (a *Agent) upstreamFor(j *job, l listing, ds deltas) *upstream {
	if a.opt.Hub == nil || l.seeded {
		return nil
	}
	shared := a.shareCount(j, l.outline.Commit)
	u := &upstream{
		hub: a.opt.Hub, seeder: a.opt.Seeder, repo: l.outline.Repo, commit: l.outline.Commit,
		files: make(map[pieces.Blob]pieces.File, len(l.outline.Files)),
		came:  func(n int64) { a.brought.Add(n); shared.Add(n) },
	}
	for _, f := range l.outline.Files {
		if _, ok := u.files[f.Blob]; !ok {
			u.files[f.Blob] = f
		}
	}
	u.source = u
	if a.opt.Source != nil {
		u.source = a.opt.Source(Opening{Outline: l.outline, Plain: u, Doubt: a.opt.Swarm.Doubt,
			Delta: func(b pieces.Blob) *layout.Delta { return ds[b] }})
	}
	u.source = &witness{u.source, j}
	return u
}

// witness notes in the job which host the bytes come from.
type witness struct {
	seeder.Source
	job *job
}

// Open implements seeder.Source.
func (w *witness) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	body, err := w.Source.Open(ctx, b, off, n)
	if err != nil {
		return nil, err
	}
	if from, ok := body.(interface{ Host() string }); ok {
		w.job.update(func(v *Job) { v.Host = from.Host() })
	}
	return body, nil
}

// Fetch implements Upstream.
func (u *upstream) Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool,
	put func(context.Context, pieces.Verified) error, progress func(n int64)) error {
	return u.seeder.Fetch(ctx, u.source, e, need, putFunc(put), func(n int64) {
		u.came(n)
		if progress != nil {
			progress(n)
		}
	})
}

// Open implements seeder.Source by plain HTTP.
func (u *upstream) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	f, ok := u.files[b]
	if !ok {
		return nil, fmt.Errorf("open blob %s: not in %s at %s", b, u.repo, u.commit)
	}
	return u.hub.Open(ctx, u.repo, u.commit, f, off, n)
}

// putFunc implements seeder.Sink.
type putFunc func(context.Context, pieces.Verified) error

func (f putFunc) Put(ctx context.Context, v pieces.Verified) error { return f(ctx, v) }
