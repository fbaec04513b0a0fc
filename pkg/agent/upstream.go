package agent

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"p2pagent/internal/layout"
	"p2pagent/internal/tracing"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
)

// upstream fetches extents of one repository at one commit from the Hub. It is
// where the three parts meet that don't know each other: the swarm decides which
// extent, the seeder cuts it, the Hub client opens the files.
type upstream struct {
	agent   *Agent
	job     *job
	outline *pieces.Outline
	deltas  deltas
	repeats *repeats                    // nil: its files have nothing in common
	caller  *Rights                     // of the job; may be nil
	files   map[pieces.Blob]pieces.File // one file for each blob; any will do
	came    func(n int64)               // told how many bytes came

	mu      sync.Mutex
	sources map[*Rights]seeder.Source
}

// upstreamFor returns nil when the Hub can't be asked for these blobs.
func (a *Agent) upstreamFor(j *job, l listing, ds deltas, rs *repeats) *upstream {
	if a.opt.Hub == nil || l.seeded {
		return nil
	}
	shared := a.shareCount(j, l.outline.Commit)
	u := &upstream{
		agent: a, job: j, outline: l.outline, deltas: ds, repeats: rs, caller: j.caller,
		files:   make(map[pieces.Blob]pieces.File, len(l.outline.Files)),
		came:    func(n int64) { a.brought.Add(n); shared.Add(n) },
		sources: map[*Rights]seeder.Source{},
	}
	for _, f := range l.outline.Files {
		if _, ok := u.files[f.Blob]; !ok {
			u.files[f.Blob] = f
		}
	}
	return u
}

// Fetch implements Upstream.
func (u *upstream) Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool,
	put func(context.Context, pieces.Verified) error, progress func(n int64)) error {
	began := time.Now()
	ctx, span := tracing.Start(tracing.Within(ctx, u.job.ctx), "extent", "bytes", e.Size())
	err := u.agent.opt.Seeder.Fetch(ctx, u, e, need, putFunc(put), func(n int64) {
		u.came(n)
		if progress != nil {
			progress(n)
		}
	})
	span.End(err)
	if err == nil {
		u.agent.extents.Observe(time.Since(began))
	}
	return err
}

// Behind names the pieces that an extent is better fetched after: they have bytes of
// it.
func (u *upstream) Behind(e pieces.Extent) []pieces.Span { return u.repeats.behind(e) }

// delta says what of bytes of a blob is here: in files that were here before or,
// when these have nothing of the blob, in what has come of the job's others.
func (u *upstream) delta(ctx context.Context, b pieces.Blob, off, n int64) *layout.Delta {
	if d := u.deltas[b]; d != nil {
		return d
	}
	return u.repeats.delta(ctx, layout.Place{Blob: b, Span: layout.Span{Off: off, N: n}})
}

// Open implements seeder.Source, and notes in the job which host the bytes come
// from.
func (u *upstream) Open(ctx context.Context, b pieces.Blob, off, n int64) (body io.ReadCloser, err error) {
	err = u.agent.byRights(u.outline.Repo, u.caller, func(r *Rights) (err error) {
		body, err = u.source(r).Open(ctx, b, off, n)
		return err
	})
	if err != nil {
		u.job.update(func(v *Job) { v.trouble = err.Error() })
		return nil, err
	}
	from, ok := body.(interface{ Host() string })
	u.job.update(func(v *Job) {
		if v.trouble = ""; ok {
			v.Host = from.Host()
		}
	})
	return body, nil
}

// source returns what opens the blobs by some rights: plain HTTP, unless a better
// way is known. It lives as long as the job, for it remembers what failed.
func (u *upstream) source(r *Rights) seeder.Source {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.sources[r]
	if s == nil {
		s = &plain{r.Hub, u.outline, u.files}
		if r.Source != nil {
			s = r.Source(Opening{Outline: u.outline, Plain: s, Doubt: u.agent.opt.Swarm.Doubt, Delta: u.delta})
		}
		u.sources[r] = s
	}
	return s
}

// plain is a seeder.Source by plain HTTP.
type plain struct {
	hub     Hub
	outline *pieces.Outline
	files   map[pieces.Blob]pieces.File
}

// Open implements seeder.Source.
func (p *plain) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	o := p.outline
	f, ok := p.files[b]
	if !ok {
		return nil, fmt.Errorf("open blob %s: not in %s at %s", b, o.Repo, o.Commit)
	}
	return p.hub.Open(ctx, o.Repo, o.Commit, f, off, n)
}

// putFunc implements seeder.Sink.
type putFunc func(context.Context, pieces.Verified) error

func (f putFunc) Put(ctx context.Context, v pieces.Verified) error { return f(ctx, v) }
