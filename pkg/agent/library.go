package agent

import (
	"context"
	"errors"
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
	all, err := a.opt.Cache.Holdings()
	if err != nil {
		return nil, err
	}
	out := make([]Snapshot, len(all))
	for i := range all {
		out[i] = a.describe(&all[i].Snapshot, "")
		out[i].Used = a.lastUse(&all[i])
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

// RemoveRequest asks for a snapshot to go.
type RemoveRequest struct {
	Ref    pieces.Ref
	DryRun bool
	// Force takes one that is pinned, and one with files that a process has open.
	Force bool
}

// Remove takes a snapshot, with the refs that mean it, out of the cache, the last
// copy in the swarm too. A repository that a job is writing to is left alone. A dry
// run only says what would go, and what is to be known before; what it would free
// is then an upper bound.
func (a *Agent) Remove(ctx context.Context, req RemoveRequest) (Removed, error) {
	s, err := a.opt.Cache.Snapshot(req.Ref)
	if err != nil {
		return Removed{}, err
	}
	out := Removed{Ref: req.Ref.String(), Commit: string(s.Commit), Freed: s.Size, DryRun: req.DryRun, PinnedBy: a.pinnedBy(s)}
	if busy := a.busy(req.Ref.Repo); busy != "" {
		return Removed{}, Errorf(Other, "remove %s: a job on %s is running", req.Ref, busy)
	}
	if req.DryRun {
		return a.foretell(ctx, s, out)
	}
	if len(out.PinnedBy) > 0 && !req.Force {
		return Removed{}, &Error{Kind: Other, Message: fmt.Sprintf("remove %s: it is pinned by %s", req.Ref, holders(out.PinnedBy)), Hint: "`p2pagent unpin` it first, or add --force"}
	}
	out.Freed, err = a.takeAway(s, req.Force)
	if busy, ok := errors.AsType[*busyError](err); ok {
		return Removed{}, &Error{Kind: Other, Message: fmt.Sprintf("remove %s: %v", req.Ref, busy), Err: err, Hint: "stop what uses it, or add --force: who has a file open keeps it until it is closed"}
	}
	if err != nil {
		return out, fmt.Errorf("remove %s: %w", req.Ref, err)
	}
	return out, nil
}

// foretell fills in what a dry run says.
func (a *Agent) foretell(ctx context.Context, s *cachefs.Snapshot, out Removed) (Removed, error) {
	var err error
	if out.InUse, err = a.opt.Cache.InUse(s.Repo, s.Commit); err != nil {
		return out, err
	}
	there, err := a.elsewhere(ctx, s)
	out.LastCopy = !there
	return out, err
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
