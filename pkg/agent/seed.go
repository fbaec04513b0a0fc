package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"p2pagent/pkg/pieces"
)

// SeedRequest asks this node to hold and offer a snapshot: one of the Hub or of
// the swarm when Dir is empty, else what is in the folder.
type SeedRequest struct {
	Ref   pieces.Ref // what to hold, or the name that Dir gets
	Dir   string     // absolute
	Tied  bool       // see Request
	Watch func(Job)  // see Request
}

// Seed makes a snapshot be here and remembers, over restarts, that it was told
// to. On return members can fetch it; a name given to a folder is known to all
// that ask, also when the Hub does not know it.
func (a *Agent) Seed(ctx context.Context, r SeedRequest) (Result, error) {
	if r.Dir != "" {
		return a.seedDir(ctx, r)
	}
	res, err := a.Ensure(ctx, Request{Ref: r.Ref, Tied: r.Tied, Watch: r.Watch})
	if err != nil {
		return Result{}, err
	}
	seeded := a.seededCommit(r.Ref.Repo, pieces.Commit(res.Commit))
	return res, a.remember(note{Ref: res.Ref, Commit: res.Commit, Seeded: seeded, Kept: true})
}

func (a *Agent) seedDir(ctx context.Context, r SeedRequest) (Result, error) {
	if !filepath.IsAbs(r.Dir) {
		return Result{}, Errorf(Usage, "seed %s: want an absolute folder", r.Dir)
	}
	if pieces.IsCommit(r.Ref.Revision) {
		return Result{}, Errorf(Usage, "seed %s as %s: the commit comes from the content; name a branch, or nothing", r.Dir, r.Ref)
	}
	started := time.Now()
	stop := a.watchImport(r)
	outline, path, err := a.opt.Cache.ImportDir(ctx, r.Dir, r.Ref.Repo, r.Ref.Revision)
	stop()
	if err != nil {
		return Result{}, fmt.Errorf("seed %s as %s: %w", r.Dir, r.Ref, err)
	}
	a.opt.Swarm.Offer(pieces.Blobs(outline.Files))
	a.touch(outline.Repo, outline.Commit)
	err = a.remember(note{Ref: r.Ref.String(), Commit: string(outline.Commit), Seeded: true, Kept: true})
	return Result{
		Ref: r.Ref.String(), Commit: string(outline.Commit), Path: path, Files: len(outline.Files),
		Total: outline.Size(), Here: outline.Size(), Seconds: time.Since(started).Seconds(),
	}, err
}

// watchImport reports that the import goes on, until the returned function is
// called; that waits for the last report.
func (a *Agent) watchImport(r SeedRequest) (stop func()) {
	if r.Watch == nil {
		return func() {}
	}
	v := Job{ID: "seed", Ref: r.Ref.String(), Status: Adopting, Waiting: "the files of " + r.Dir + " to be hashed", Started: time.Now(), Callers: 1}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			a.remark(&v, time.Now())
			r.Watch(v)
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(quit); <-done }
}
