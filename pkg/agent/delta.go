package agent

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"p2pagent/internal/layout"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Deltas are how files of the Hub's store are made out of others that are here.
type Deltas struct {
	// Index remembers what files that are here are made of. nil has nothing copied.
	Index *layout.Index
	// Cuts are the rules by which writers cut files.
	Cuts []layout.Cut
}

const (
	// smallestDelta is the size below which looking for an older file costs more than
	// it saves.
	smallestDelta = 8 << 20
	// mostOlds is how many files a new one is made of, at most.
	mostOlds = 8
	// layoutWait bounds the question what the files of a job are made of: it is
	// worth less than the bytes that come meanwhile.
	layoutWait = 30 * time.Second
	// layoutsAtOnce bounds the files that are asked for at the same time.
	layoutsAtOnce = 4
)

// deltas are those of one job, by blob.
type deltas map[pieces.Blob]*layout.Delta

// compare finds what of the missing blobs other files here have, and what they have
// in common. Whatever fails is fetched as ever.
func (a *Agent) compare(ctx context.Context, j *job, l listing, missing []pieces.Blob) (deltas, *repeats) {
	files := a.comparable(l, missing)
	if len(files) == 0 {
		return nil, nil
	}
	older, wait := a.olderFiles(l.outline), layoutWait
	if a.opt.Deltas.Index.Empty() && len(older) == 0 {
		if wait = repeatsWait; a.opt.Layout == nil {
			return nil, nil // it is for those that ask the store
		}
	}
	j.enter("", "what files that are here have in common with "+l.outline.Repo.String())
	ctx, cancel := context.WithTimeoutCause(ctx, wait, Errorf(Stalled, "no answer in %v", wait))
	defer cancel()
	found := make([]compared, len(files))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(layoutsAtOnce)
	for i, f := range files {
		group.Go(func() (err error) {
			found[i], err = a.compareFile(ctx, j.caller, l.outline, f, older[f.Path])
			return err // the next would fail as slowly
		})
	}
	if err := group.Wait(); err != nil && context.Cause(j.ctx) == nil {
		a.log.Info("not all of what is here is copied", "repo", l.outline.Repo.String(), "error", err)
	}
	out := deltas{}
	var entries []layout.Entry
	for i, c := range found {
		if c.delta != nil && c.delta.Size() > 0 {
			out[files[i].Blob] = c.delta
		}
		if len(c.layout.Terms) > 0 {
			entries = append(entries, layout.Entry{Blob: files[i].Blob, Name: files[i].Xet, Layout: c.layout})
		}
	}
	return out, a.repeatsOf(entries)
}

// compared is what was found of a file.
type compared struct {
	layout layout.Layout // no terms: not known
	delta  *layout.Delta // nil: nothing is here
}

// comparable returns the missing files of which others may have something.
func (a *Agent) comparable(l listing, missing []pieces.Blob) (out []pieces.File) {
	if a.opt.Deltas.Index == nil || l.seeded {
		return nil
	}
	seen := make(map[pieces.Blob]bool)
	for _, f := range l.outline.Files {
		if ofStore(f) && !seen[f.Blob] && slices.Contains(missing, f.Blob) {
			seen[f.Blob] = true
			out = append(out, f)
		}
	}
	return out
}

// ofStore tells whether the file has a layout that is worth to know.
func ofStore(f pieces.File) bool { return !f.Xet.IsZero() && f.Blob.Size >= smallestDelta }

// compareFile finds out what a file is made of and what of it is here. older is the
// one of the same path, if there is one: its layout may be unknown.
func (a *Agent) compareFile(ctx context.Context, caller *Rights, o *pieces.Outline, f, older pieces.File) (compared, error) {
	now, err := a.layoutOf(ctx, caller, o, f)
	if err != nil {
		return compared{}, err
	}
	if older.Xet != (pieces.Digest{}) {
		if _, err := a.layoutOf(ctx, caller, o, older); err != nil { // by the right to the new commit
			a.log.Info("an older file is not compared with", "path", f.Path, "error", err)
		}
	}
	var olds []layout.Old
	for _, name := range a.opt.Deltas.Index.Sharing(now, f.Xet, 4*mostOlds) {
		if old, ok := a.oldFile(name); ok && len(olds) < mostOlds {
			olds = append(olds, old)
		}
	}
	if len(olds) == 0 {
		return compared{layout: now}, nil
	}
	d, err := layout.Compare(ctx, now, olds, a.opt.Deltas.Cuts)
	if err != nil {
		return compared{layout: now}, fmt.Errorf("compare %s with files that are here: %w", f.Path, err)
	}
	return compared{now, d}, nil
}

// oldFile returns a file that the index knows, if it is still here.
func (a *Agent) oldFile(name pieces.Digest) (layout.Old, bool) {
	e, ok := a.opt.Deltas.Index.Get(name)
	if !ok {
		return layout.Old{}, false
	}
	held := a.opt.Cache.Held(e.Blob)
	if held == nil || !held.Full() {
		return layout.Old{}, false
	}
	return layout.Old{Layout: e.Layout, Name: name, Raw: &blobContent{a.opt.Cache, e.Blob}, Sound: a.sound.of(a.opt.Cache, e.Blob)}, true
}

func layoutKey(o *pieces.Outline, name pieces.Digest) string {
	return "layout/" + o.Repo.String() + "/" + string(o.Commit) + "/" + name.String()
}

// layoutOf returns what a file is made of: as this member knows, or as one member
// asks the store for all, by its own rights or the caller's.
func (a *Agent) layoutOf(ctx context.Context, caller *Rights, o *pieces.Outline, f pieces.File) (layout.Layout, error) {
	if e, ok := a.opt.Deltas.Index.Get(f.Xet); ok {
		return e.Layout, nil
	}
	raw, err := a.layoutRecordOf(ctx, caller, o, f)
	if err != nil {
		return layout.Layout{}, err
	}
	l, err := layout.Parse(raw)
	if err != nil {
		return l, Errorf(Integrity, "layout of %s from the swarm: %w", f.Path, err)
	}
	if l.Size != f.Blob.Size {
		return l, Errorf(Integrity, "layout of %s from the swarm: of %d bytes, not %d", f.Path, l.Size, f.Blob.Size)
	}
	if err := a.opt.Deltas.Index.Put(layout.Entry{Blob: f.Blob, Name: f.Xet, Layout: l}); err != nil {
		a.log.Info("layout not noted", "path", f.Path, "error", err) // a full disk, say: it is asked for again
	}
	return l, nil
}

func (a *Agent) layoutRecordOf(ctx context.Context, caller *Rights, o *pieces.Outline, f pieces.File) ([]byte, error) {
	key := layoutKey(o, f.Xet)
	if a.opt.Layout == nil {
		return a.opt.Swarm.Record(ctx, key, Forever, nil)
	}
	return a.ask(ctx, key, Forever, question{o.Repo, caller, func(ctx context.Context, r *Rights) ([]byte, error) {
		l, err := r.Layout(ctx, o, f)
		if err != nil {
			return nil, err
		}
		return l.Marshal(), nil
	}})
}

// layoutRecord answers other members.
func (a *Agent) layoutRecord(rest string) ([]byte, error) {
	name, err := pieces.ParseDigest(rest[strings.LastIndexByte(rest, '/')+1:])
	if err != nil || a.opt.Deltas.Index == nil {
		return nil, errUnknownRecord
	}
	e, ok := a.opt.Deltas.Index.Get(name)
	if !ok {
		return nil, errUnknownRecord
	}
	return e.Layout.Marshal(), nil
}

// learnWait bounds the questions about the files of one snapshot.
const learnWait = 10 * time.Minute

// learn finds out, while nobody waits for it, what the files that came are made of:
// later ones are compared with them. No caller's right is used: the job is over.
func (a *Agent) learn(l listing, files []pieces.File) {
	if a.opt.Deltas.Index == nil || l.seeded || a.opt.Offline || a.shelf.isClosed(l.outline.Repo) {
		return
	}
	unknown := slices.DeleteFunc(slices.Clone(files), func(f pieces.File) bool {
		_, known := a.opt.Deltas.Index.Get(f.Xet)
		return known || !ofStore(f)
	})
	if len(unknown) == 0 {
		return
	}
	a.work.Go(func() {
		ctx, cancel := context.WithTimeoutCause(a.base, learnWait, Errorf(Stalled, "not done in %v", learnWait))
		defer cancel()
		for _, f := range unknown {
			if _, err := a.layoutOf(ctx, nil, l.outline, f); err != nil {
				a.log.Debug("layout not learned", "path", f.Path, "error", err)
				return
			}
		}
	})
}

// olderFiles finds, for each path, a file of another content that is here and has a
// name in the store: of the newest other snapshot of the repository.
func (a *Agent) olderFiles(o *pieces.Outline) map[string]pieces.File {
	all, err := a.opt.Cache.List()
	if err != nil {
		return nil
	}
	all = slices.DeleteFunc(all, func(s cachefs.Snapshot) bool { return s.Repo != o.Repo || s.Commit == o.Commit })
	slices.SortStableFunc(all, func(x, y cachefs.Snapshot) int { return y.Updated.Compare(x.Updated) })
	out := make(map[string]pieces.File)
	for _, s := range all {
		for _, f := range s.Files {
			if _, ok := out[f.Path]; !ok && ofStore(f) && a.opt.Cache.Has(s.Repo, f.Blob) {
				out[f.Path] = f
			}
		}
	}
	return out
}

// local implements Local: what of a job's blobs is in other files here.
type local struct {
	deltas
	seeder  Seeder
	index   *layout.Index
	outline *pieces.Outline
}

// localOf returns nil when nothing is here.
func (a *Agent) localOf(o *pieces.Outline, ds deltas) Local {
	if len(ds) == 0 {
		return nil
	}
	return &local{ds, a.opt.Seeder, a.opt.Deltas.Index, o}
}

func (l *local) Gaps(b pieces.Blob, index int) (out []pieces.Part) {
	off, n := b.Piece(index)
	for _, g := range l.deltas[b].Gaps(off, n) {
		out = append(out, pieces.Part{Off: g.Off - off, N: g.N})
	}
	return out
}

func (l *local) Fill(b pieces.Blob, index int, data []byte) error {
	var at int64
	off, n := b.Piece(index)
	for _, g := range append(l.Gaps(b, index), pieces.Part{Off: n}) {
		if at < g.Off {
			if _, err := l.deltas[b].ReadAt(data[at:g.Off], off+at); err != nil {
				return fmt.Errorf("fill piece %d of %s: %w", index, b, err)
			}
		}
		at = g.Off + g.N
	}
	return nil
}

func (l *local) Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool, put func(context.Context, pieces.Verified) error) error {
	here := func(b pieces.Blob, i int) bool { return need(b, i) && len(l.Gaps(b, i)) == 0 }
	return l.seeder.Fetch(ctx, l.deltas, e, here, putFunc(put), nil)
}

// Drop also forgets the layouts by which that was done: they are asked for again.
func (l *local) Drop(b pieces.Blob) {
	d := l.deltas[b]
	if d == nil {
		return
	}
	names := d.Clear()
	for _, f := range l.outline.Files {
		if f.Blob == b {
			names = append(names, f.Xet)
		}
	}
	for _, name := range names {
		l.index.Forget(name)
	}
}

// Open implements seeder.Source, for bytes that are all here.
func (ds deltas) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(&within{ctx, io.NewSectionReader(ds[b], off, n)}), nil
}

// within ends a reader with its context.
type within struct {
	ctx context.Context
	io.Reader
}

func (w *within) Read(p []byte) (int, error) {
	if context.Cause(w.ctx) != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Reader.Read(p)
}
