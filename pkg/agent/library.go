package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Status says what this agent is and how it is.
func (a *Agent) Status() Status {
	s := Status{SchemaVersion: SchemaVersion, Started: a.started, Settled: a.settled(), Waiting: a.waiting(time.Now())}
	if a.opt.About != nil {
		s.About = a.opt.About()
	}
	if a.opt.Desired != nil {
		s.Desired = a.opt.Desired()
	}
	for _, p := range a.Peers() {
		if p.Banned != "" {
			s.Banned = append(s.Banned, p)
		} else {
			s.Members++
		}
	}
	a.mu.Lock()
	s.Jobs = len(a.jobs)
	a.mu.Unlock()
	return s
}

// settled asks without waiting: the millisecond lets an answer that is there win
// over the end of the context.
func (a *Agent) settled() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	return a.opt.Swarm.Settled(ctx) == nil
}

// Peers returns the other members.
func (a *Agent) Peers() []Peer {
	if a.opt.Peers == nil {
		return nil
	}
	return a.opt.Peers()
}

// List returns what is in the cache.
func (a *Agent) List() ([]Snapshot, error) {
	all, err := a.opt.Cache.List()
	if err != nil {
		return nil, err
	}
	out := make([]Snapshot, len(all))
	for i := range all {
		out[i] = a.describe(&all[i], "")
	}
	return out, nil
}

// describe puts a snapshot into the form of the control API. revision is what it
// was asked for by, or "".
func (a *Agent) describe(s *cachefs.Snapshot, revision string) Snapshot {
	out := Snapshot{
		Repo: s.Repo.String(), Commit: string(s.Commit), Path: s.Path, Revision: s.Revisions, RefTime: s.Updated,
		Files: len(s.Files), Size: s.Size, Complete: s.Complete, Seeded: a.seededCommit(s.Repo, s.Commit),
	}
	if revision == "" {
		revision = string(s.Commit)
		if len(s.Revisions) > 0 {
			revision = s.Revisions[0]
		}
	}
	out.Ref = pieces.Ref{Repo: s.Repo, Revision: revision}.String()
	if s.Outline != nil {
		out.Listed = len(s.Outline.Files)
	}
	out.PinnedBy = a.pinnedBy(s)
	out.Pinned = len(out.PinnedBy) > 0
	for _, r := range namesOf(s) {
		if _, ok := a.kept(pieces.Ref{Repo: s.Repo, Revision: r}); ok {
			out.Kept = true
		}
	}
	return out
}

// Show returns one snapshot and its files, in the order of their paths. Without
// an outline nobody can say which files belong to it, and there are none.
func (a *Agent) Show(ref pieces.Ref) (Snapshot, []File, error) {
	s, err := a.opt.Cache.Snapshot(ref)
	if err != nil {
		return Snapshot{}, nil, err
	}
	files := []File{}
	if s.Outline != nil {
		here := make(map[string]bool, len(s.Files))
		for _, f := range s.Files {
			here[f.Path] = true
		}
		for _, f := range s.Outline.Files {
			files = append(files, File{f.Path, f.Blob.Size, f.Blob.Digest.String(), f.Blob.Pieces(), here[f.Path]})
		}
	}
	out := a.describe(s, ref.Revision)
	if s.Outline == nil {
		return out, files, nil
	}
	out.Manifest, out.Proven, err = a.manifest(*s.Outline)
	return out, files, err
}

// manifest puts together what is known of a commit and names it.
func (a *Agent) manifest(o pieces.Outline) (id string, full bool, err error) {
	m := pieces.Manifest{Outline: o}
	for _, b := range pieces.Blobs(o.Files) {
		m.Proofs = append(m.Proofs, pieces.Proofs{Blob: b, Statements: a.opt.Cache.Statements(b)})
	}
	raw, err := m.Marshal()
	if err != nil {
		return "", false, fmt.Errorf("manifest of %s: %w", o.Repo, err)
	}
	return pieces.ManifestCID(raw).String(), m.Full(), nil
}

// Verify hashes every file of a snapshot again. watch, when not nil, is called
// from within Verify about twice a second.
func (a *Agent) Verify(ctx context.Context, ref pieces.Ref, watch func(Verifying)) ([]Problem, error) {
	s, err := a.opt.Cache.Snapshot(ref)
	if err != nil {
		return nil, err
	}
	v, last := Verifying{Total: s.Size}, time.Time{}
	found, err := a.opt.Cache.Verify(ctx, ref, func(n int64) {
		v.Done += n
		if watch != nil && time.Since(last) >= watchEvery {
			last = time.Now()
			watch(v)
		}
	})
	out := make([]Problem, len(found))
	for i, p := range found {
		out[i] = Problem{Path: p.Path, Reason: p.Err.Error()}
	}
	return out, err
}

// Remove takes a snapshot, with the refs that mean it, out of the cache. A
// repository that a job is writing to is left alone. A dry run only says what
// would go; what it would free is then an upper bound.
func (a *Agent) Remove(ref pieces.Ref, dryRun bool) (Removed, error) {
	s, err := a.opt.Cache.Snapshot(ref)
	if err != nil {
		return Removed{}, err
	}
	out := Removed{Ref: ref.String(), Commit: string(s.Commit), Freed: s.Size, DryRun: dryRun}
	if busy := a.busy(ref.Repo); busy != "" {
		return Removed{}, Errorf(Other, "remove %s: a job on %s is running", ref, busy)
	}
	if dryRun {
		return out, nil
	}
	if out.Freed, err = a.opt.Cache.Remove(ref); err != nil {
		return Removed{}, err
	}
	a.withdraw(s)
	a.shelf.drop(ref.Repo)
	if a.opt.OnRemoved != nil {
		a.opt.OnRemoved(ref.Repo, s.Commit)
	}
	if err := a.forget(ref, s.Commit); err != nil {
		return out, fmt.Errorf("remove %s: %w", ref, err)
	}
	return out, nil
}

// withdraw tells members what this one does not hold any more.
func (a *Agent) withdraw(s *cachefs.Snapshot) {
	if s.Outline == nil {
		return
	}
	a.opt.Swarm.Withdraw(slices.DeleteFunc(pieces.Blobs(s.Outline.Files), func(b pieces.Blob) bool {
		held := a.opt.Cache.Held(b)
		return held != nil && held.Count() > 0
	}))
}
