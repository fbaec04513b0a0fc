package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"p2pagent/pkg/pieces"
)

// View is one commit of a repository as this node knows it. It is shared: its
// outline must not be changed.
type View struct {
	Outline *pieces.Outline
	paths   map[string]int // index in Outline.Files

	mu     sync.Mutex
	landed map[string]bool // paths in the snapshot folder
	asked  map[string]bool // revisions that callers meant this commit by
	used   time.Time       // guarded by shelf.mu
}

func newView(o *pieces.Outline) *View {
	v := &View{Outline: o, paths: make(map[string]int, len(o.Files)), landed: map[string]bool{}, asked: map[string]bool{}}
	for i, f := range o.Files {
		v.paths[f.Path] = i
	}
	return v
}

// File returns the file of a path.
func (v *View) File(path string) (pieces.File, bool) {
	i, ok := v.paths[path]
	if !ok {
		return pieces.File{}, false
	}
	return v.Outline.Files[i], true
}

func (v *View) has(path string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.landed[path]
}

// land notes files that are in the snapshot now.
func (v *View) land(files []pieces.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, f := range files {
		v.landed[f.Path] = true
	}
}

// ask notes a revision, and tells whether it is new.
func (v *View) ask(revision string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	was := v.asked[revision]
	v.asked[revision] = true
	return !was
}

// missing is how many files are not in the snapshot.
func (v *View) missing() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.Outline.Files) - len(v.landed)
}

// revisions returns those to be written down: without any, the commit itself.
func (v *View) revisions() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.asked) == 0 {
		return []string{string(v.Outline.Commit)}
	}
	return slices.Sorted(maps.Keys(v.asked))
}

// shelf keeps what many requests for single files have in common.
type shelf struct {
	mu       sync.Mutex
	views    map[viewKey]*View
	meanings map[string]*meaning // by ref, and by the caller where it is for that one alone
	access   map[pieces.Repo]accessNote
	closed   map[pieces.Repo]time.Time // since when the Hub refuses it to this node's own rights
}

type viewKey struct {
	repo   pieces.Repo
	commit pieces.Commit
}

// meaning is what a revision means for a while.
type meaning struct {
	resolved
	made, used time.Time
}

// A revision keeps its meaning for meansFor, and longer while files are read by it:
// a download that is resumed must not go on in another commit.
const (
	meansFor  = time.Minute
	meansMost = time.Hour
)

// maxViews and maxMeanings bound what is kept; what is dropped is looked up again.
const (
	maxViews    = 16
	maxMeanings = 1024
)

func newShelf() *shelf {
	return &shelf{views: map[viewKey]*View{}, meanings: map[string]*meaning{}, access: map[pieces.Repo]accessNote{}, closed: map[pieces.Repo]time.Time{}}
}

func (s *shelf) view(repo pieces.Repo, commit pieces.Commit) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.views[viewKey{repo, commit}]
	if v != nil {
		v.used = time.Now()
	}
	return v
}

// keep puts a view on the shelf, or returns the one that is there.
func (s *shelf) keep(v *View) *View {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := viewKey{v.Outline.Repo, v.Outline.Commit}
	if old := s.views[key]; old != nil {
		return old
	}
	if len(s.views) >= maxViews {
		delete(s.views, slices.MinFunc(slices.Collect(maps.Keys(s.views)), func(a, b viewKey) int {
			return s.views[a].used.Compare(s.views[b].used)
		}))
	}
	v.used = time.Now()
	s.views[key] = v
	return v
}

// drop forgets what is in the cache of a repository.
func (s *shelf) drop(repo pieces.Repo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.views, func(k viewKey, _ *View) bool { return k.repo == repo })
}

// means returns what the ref means still, and makes it mean so longer when a
// file is read by it.
func (s *shelf) means(ref string, reading bool) (resolved, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.meanings[ref]
	if p == nil || !p.holds(time.Now()) {
		return resolved{}, false
	}
	if reading {
		p.used = time.Now()
	}
	return p.resolved, true
}

func (p *meaning) holds(now time.Time) bool {
	return now.Sub(p.made) < meansFor || now.Sub(p.used) < meansFor && now.Sub(p.made) < meansMost
}

func (s *shelf) fix(ref string, name resolved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.meanings) >= maxMeanings {
		maps.DeleteFunc(s.meanings, func(_ string, p *meaning) bool { return !p.holds(time.Now()) })
	}
	for old := range s.meanings {
		if len(s.meanings) < maxMeanings {
			break
		}
		delete(s.meanings, old)
	}
	s.meanings[ref] = &meaning{resolved: name, made: time.Now()}
}

// shareWait bounds work that is done for whoever asks.
const shareWait = 2 * time.Minute

// share does something once for all that ask for it at the same time. It goes on
// when they leave, for others may come.
func (a *Agent) share(ctx context.Context, key string, do func(context.Context) (any, error)) (any, error) {
	result := a.flights.DoChan(key, func() (any, error) {
		a.mu.Lock()
		if a.stopped {
			a.mu.Unlock()
			return nil, errStopping
		}
		a.work.Add(1)
		a.mu.Unlock()
		defer a.work.Done()
		ctx, cancel := context.WithTimeoutCause(a.base, shareWait, Errorf(Stalled, "no answer in %v", shareWait))
		defer cancel()
		return do(ctx)
	})
	select {
	case r := <-result:
		return r.Val, r.Err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// View returns the commit that a ref means, with its listing. A branch keeps its
// meaning for a minute, and for up to an hour while files are read by it (reading). It is
// looked up once for all callers, by one member for the whole swarm; when ctx
// ends first the next caller finds it further on.
//
// The token, "" for none, is the caller's. It is shown to the Hub alone, where that
// refuses the repository to this node, and forgotten with the answer; what was found by
// it is known to the swarm, so who may have it is for MayRead to say.
func (a *Agent) View(ctx context.Context, ref pieces.Ref, token string, reading bool) (*View, error) {
	name, err := a.meaning(ctx, ref, token, reading)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	v, err := a.viewOf(ctx, ref.Repo, name, token)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", ref, err)
	}
	if !pieces.IsCommit(ref.Revision) && v.ask(ref.Revision) && v.missing() == 0 {
		if err := a.complete(a.base, v); err != nil { // who only reads is not to suffer
			a.log.Warn("a snapshot of which every file is here can't be named", "ref", ref.String(), "error", err)
		}
	}
	return v, nil
}

// meaning returns the commit of a ref. One that was found without the Hub, because
// that refused it to the caller, is no answer for another caller.
func (a *Agent) meaning(ctx context.Context, ref pieces.Ref, token string, reading bool) (resolved, error) {
	all, one := ref.String(), ref.String()+" "+tokenName(token)
	for _, key := range []string{all, one} {
		if name, ok := a.shelf.means(key, reading); ok {
			return name, nil
		}
	}
	name, err := a.share(ctx, "meaning/"+one, func(ctx context.Context) (any, error) {
		caller, done := a.lender.borrow(token)
		defer done()
		name, err := a.resolve(ctx, ref, caller, untold)
		switch {
		case err == nil && name.closed:
			a.shelf.fix(one, name)
		case err == nil:
			a.shelf.fix(all, name)
		}
		return name, err
	})
	if err != nil {
		return resolved{}, err
	}
	return name.(resolved), nil
}

// viewOf returns the listing of a commit, and what of it is here.
func (a *Agent) viewOf(ctx context.Context, repo pieces.Repo, name resolved, token string) (*View, error) {
	if v := a.shelf.view(repo, name.commit); v != nil {
		return v, nil
	}
	v, err := a.share(ctx, outlineKey(repo, name.commit)+" "+tokenName(token), func(ctx context.Context) (any, error) {
		caller, done := a.lender.borrow(token)
		defer done()
		l, err := a.list(ctx, repo, name, caller, untold)
		if err != nil {
			return nil, err
		}
		v := newView(l.outline)
		if s, err := a.opt.Cache.Snapshot(pieces.Ref{Repo: repo, Revision: string(name.commit)}); err == nil {
			v.land(s.Files)
		}
		return a.shelf.keep(v), nil
	})
	if err != nil {
		return nil, err
	}
	return v.(*View), nil
}

// landed notes files that a job has committed. When they are the last ones of a
// commit that callers read file by file, the snapshot becomes a full one, and the
// branches that they asked for mean it. Until then a branch that the cache does
// not know yet means what is here of it, as Hub clients do it, and one that it
// knows stays.
func (a *Agent) landed(ctx context.Context, o *pieces.Outline, files []pieces.File) error {
	v := a.shelf.view(o.Repo, o.Commit)
	if v == nil {
		return nil
	}
	v.land(files)
	if v.missing() == 0 {
		return a.complete(ctx, v)
	}
	for _, revision := range v.revisions() {
		if _, err := a.opt.Cache.Snapshot(pieces.Ref{Repo: o.Repo, Revision: revision}); err == nil {
			continue
		}
		if _, err := a.opt.Cache.Commit(ctx, o, files, revision); err != nil {
			return err
		}
	}
	return nil
}

// complete makes a snapshot of which every file is here a full one.
func (a *Agent) complete(ctx context.Context, v *View) error {
	for _, revision := range v.revisions() {
		if _, err := a.opt.Cache.Commit(ctx, v.Outline, v.Outline.Files, revision); err != nil {
			a.shelf.drop(v.Outline.Repo) // somebody took files away: what is here must be looked at again
			return err
		}
	}
	return nil
}
