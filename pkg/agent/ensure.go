package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"p2pagent/internal/tracing"
	"p2pagent/pkg/pieces"
)

// ensure is the job. It returns the first error; what it did stays.
func (a *Agent) ensure(ctx context.Context, j *job) error {
	var name resolved
	var listed listing
	if err := tracing.Do(ctx, "resolve", func(ctx context.Context) (err error) {
		name, err = a.nameOf(ctx, j)
		return err
	}); err != nil {
		return err
	}
	j.update(func(v *Job) { v.Commit, v.Notice = string(name.commit), name.notice })

	if err := tracing.Do(ctx, "list", func(ctx context.Context) (err error) {
		listed, err = a.list(ctx, j.req.Ref.Repo, name, j.caller, j.enter)
		return err
	}); err != nil {
		return err
	}
	a.noteOutline(j, listed.outline)
	files := j.choose(listed.outline.Files)
	if len(files) == 0 {
		return nothingMatched(j.req, len(listed.outline.Files))
	}
	if err := a.bring(ctx, j, listed, files); err != nil {
		return err
	}
	j.enter(Committing, "")
	if err := tracing.Do(ctx, "commit", func(ctx context.Context) error {
		path, err := a.opt.Cache.Commit(ctx, listed.outline, files, j.req.Ref.Revision)
		j.update(func(v *Job) { v.Path = path })
		return err
	}); err != nil {
		return err
	}
	if err := a.landed(ctx, listed.outline, files); err != nil {
		return err
	}
	a.learn(listed, files)
	return a.writeDown(j.req.Ref, listed)
}

// nameOf is what the request's revision means: what the request says, or else what
// it means upstream.
func (a *Agent) nameOf(ctx context.Context, j *job) (resolved, error) {
	if j.req.Commit != "" {
		return resolved{commit: j.req.Commit}, nil
	}
	return a.resolve(ctx, j.req.Ref, j.caller, j.enter)
}

func (a *Agent) noteOutline(j *job, o *pieces.Outline) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j.outline = o
}

// writeDown keeps what is known of a snapshot that is in the cache now.
func (a *Agent) writeDown(ref pieces.Ref, l listing) error {
	if err := a.keepAccess(l.outline.Repo); err != nil {
		return err
	}
	due := a.touch(l.outline.Repo, l.outline.Commit)
	if !l.seeded && due {
		return a.saveNotes()
	}
	if !l.seeded {
		return nil
	}
	// So that this member says the same of it to the next.
	return a.remember(note{Ref: ref.String(), Commit: string(l.outline.Commit), Seeded: true})
}

// choose returns the files that the request means. One file comes with those of
// the same content: a client that has the content asks for no other of its names.
func (j *job) choose(files []pieces.File) []pieces.File {
	if j.req.Path == "" {
		return j.filter.choose(files)
	}
	at := slices.IndexFunc(files, func(f pieces.File) bool { return f.Path == j.req.Path })
	if at < 0 {
		return nil
	}
	other := func(f pieces.File) bool { return f.Blob != files[at].Blob }
	return slices.DeleteFunc(slices.Clone(files), other)
}

func nothingMatched(r Request, files int) error {
	if files == 0 {
		return Errorf(NotFound, "the repository has no files at this revision")
	}
	if r.Path != "" {
		return Errorf(NotFound, "no file %q at this revision", r.Path)
	}
	return Errorf(Usage, "no file matches: %d files, include %s, exclude %s", files, quoted(r.Include, "everything"), quoted(r.Exclude, "nothing"))
}

func quoted(patterns []string, none string) string {
	if len(patterns) == 0 {
		return none
	}
	out := make([]string, len(patterns))
	for i, p := range patterns {
		out[i] = fmt.Sprintf("%q", p)
	}
	return strings.Join(out, " ")
}

// bring makes every wanted blob be in the cache.
func (a *Agent) bring(ctx context.Context, j *job, l listing, files []pieces.File) error {
	repo, wanted := l.outline.Repo, pieces.Blobs(files)
	j.update(func(v *Job) {
		v.Files, v.Total = len(files), sizeOf(wanted)
		v.Status, v.Waiting = Checking, "room for the files, and what is here of them"
	})
	if err := a.passGate(ctx, j, wanted); err != nil {
		return err
	}
	if err := tracing.Do(ctx, "adopt", func(ctx context.Context) error { return a.begin(ctx, j, repo, wanted) }); err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(b pieces.Blob) bool { return a.opt.Cache.Has(repo, b) })
	if len(missing) == 0 {
		return nil
	}
	if err := a.settle(ctx, j.enter); err != nil {
		return err
	}
	defer a.sound.use()()
	ds, rs := a.compare(ctx, j, l, missing)
	j.enter(Fetching, "")
	paths, taken, last := pathsOf(files), takings{}, time.Now()
	err := a.opt.Swarm.Fetch(ctx, a.transferOf(j, l, missing, ds, rs), func(p Progress) {
		for i, g := range p.Gaps {
			p.Gaps[i].Path = paths[g.Blob]
		}
		j.update(func(v *Job) { v.take(p) })
		now := time.Now()
		taken.note(p.Peers, last, now)
		last = now
	})
	taken.trace(ctx)
	return nameFile(err, paths)
}

func (a *Agent) transferOf(j *job, l listing, missing []pieces.Blob, ds deltas, rs *repeats) Transfer {
	o := l.outline
	t := Transfer{Name: o.Repo.String() + "@" + string(o.Commit), Blobs: missing, Extents: extentsFor(o, missing), Local: a.localOf(o, ds)}
	if up := a.upstreamFor(j, l, ds, rs); up != nil {
		t.Upstream = up
	}
	if l.seeded {
		t.Patience = seededPatience
	}
	return t
}

// pathsOf names every blob by the first file that has it.
func pathsOf(files []pieces.File) map[pieces.Blob]string {
	out := make(map[pieces.Blob]string, len(files))
	for _, f := range files {
		if _, ok := out[f.Blob]; !ok {
			out[f.Blob] = f.Path
		}
	}
	return out
}

// nameFile says which file the blob is that did not match its digest.
func nameFile(err error, paths map[pieces.Blob]string) error {
	wrong, ok := errors.AsType[*pieces.MismatchError](err)
	if !ok || paths[wrong.Blob] == "" {
		return err
	}
	return fmt.Errorf("%s: %w", paths[wrong.Blob], err)
}

// seededPatience is how long a transfer that no upstream can help may go without
// a byte: its seeders are gone, and a stated failure is better than a long wait.
const seededPatience = time.Minute

// begin adopts what is here. It is not asked to when all is committed, which
// keeps a repeated fetch from touching the disk.
func (a *Agent) begin(ctx context.Context, j *job, repo pieces.Repo, wanted []pieces.Blob) error {
	open := slices.DeleteFunc(slices.Clone(wanted), func(b pieces.Blob) bool { return a.opt.Cache.Has(repo, b) })
	if len(open) > 0 {
		a.setHashing("") // what an earlier job left
		j.enter(Adopting, "what is on the disk to be hashed")
		if err := a.beginWithRoom(ctx, j, repo, open); err != nil {
			return err
		}
	}
	a.count(j, repo, wanted)
	return nil
}

// count notes what is here before the network is asked.
func (a *Agent) count(j *job, repo pieces.Repo, wanted []pieces.Blob) {
	here, missing := a.have(repo, wanted)
	j.update(func(v *Job) { v.Here, v.found, v.Completed, v.Missing = here, here, here, missing })
}

// have counts the bytes that are here and the pieces that are not.
func (a *Agent) have(repo pieces.Repo, blobs []pieces.Blob) (bytes int64, missing int) {
	for _, b := range blobs {
		if a.opt.Cache.Has(repo, b) {
			bytes += b.Size
			continue
		}
		held := a.opt.Cache.Held(b)
		if held == nil {
			missing += b.Pieces()
			continue
		}
		missing += b.Pieces() - held.Count()
		for i := range held.All() {
			_, n := b.Piece(i)
			bytes += n
		}
	}
	return bytes, missing
}

// extentsFor divides the whole outline, so that members which want different
// files mean the same extents, and keeps those with something missing in them.
func extentsFor(o *pieces.Outline, missing []pieces.Blob) []pieces.Extent {
	want := make(map[pieces.Blob]bool, len(missing))
	for _, b := range missing {
		want[b] = true
	}
	return slices.DeleteFunc(pieces.Extents(pieces.Blobs(o.Files), 0), func(e pieces.Extent) bool {
		return !slices.ContainsFunc(e.Spans, func(s pieces.Span) bool { return want[s.Blob] })
	})
}

func sizeOf(blobs []pieces.Blob) int64 {
	var n int64
	for _, b := range blobs {
		n += b.Size
	}
	return n
}
