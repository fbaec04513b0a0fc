package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"p2pagent/internal/evict"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// PruneRequest says how much is to go.
type PruneRequest struct {
	// Target is how many bytes the cache may hold afterwards; nil goes down to the
	// low watermark, and without one to what must stay.
	Target *int64 `json:"target,omitempty"`
	// Force takes last copies in the swarm too, and what was used a moment ago.
	Force  bool `json:"force,omitempty"`
	DryRun bool `json:"dry_run,omitempty"`
}

// Verdict is what a prune decided on one snapshot, or on the pieces of a blob that
// no job is after any more.
type Verdict struct {
	Ref    string    `json:"ref,omitempty"`
	Repo   string    `json:"repo,omitempty"`
	Commit string    `json:"commit,omitempty"`
	Blob   string    `json:"blob,omitempty"` // of pieces: its digest
	Size   int64     `json:"size"`           // bytes
	Used   time.Time `json:"used"`
	Gone   bool      `json:"gone"`  // removed, or would be
	Freed  int64     `json:"freed"` // bytes of disk; of a dry run what it would be
	Stays  Reason    `json:"stays,omitempty"`
	Detail string    `json:"detail,omitempty"`
}

// Pruned is what a prune did, or would do.
type Pruned struct {
	Used     int64     `json:"used"`   // bytes in the cache before
	Target   int64     `json:"target"` // as asked, or as the watermark says
	Freed    int64     `json:"freed"`
	DryRun   bool      `json:"dry_run"`
	Verdicts []Verdict `json:"snapshots"` // in the order in which they were looked at
}

// Prune removes snapshots, the least lately used first, until the cache is small
// enough: what is pinned, kept, desired, in use, used a moment ago or not this
// agent's stays, and so does the last copy in the swarm. One runs at a time. watch,
// when not nil, hears each verdict from within Prune.
func (a *Agent) Prune(ctx context.Context, req PruneRequest, watch func(Verdict)) (Pruned, error) {
	room, err := a.opt.Cache.Room()
	if err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	target := a.lowMark(room)
	if req.Target != nil {
		target = *req.Target
	}
	waiting, cancel := context.WithTimeoutCause(ctx, pruneWait, Errorf(Stalled, "another eviction has been at work for %v", pruneWait))
	defer cancel()
	if err := a.takeTurn(waiting); err != nil {
		return Pruned{}, fmt.Errorf("prune: %w", err)
	}
	defer a.endTurn()
	out, err := a.evict(ctx, room.Used-target, req.Force, req.DryRun, watch)
	out.Used, out.Target = room.Used, target
	if err != nil {
		return out, fmt.Errorf("prune: %w", err)
	}
	return out, nil
}

// sweep is one run through what is here.
type sweep struct {
	*Agent
	need   int64 // bytes still to be given back
	force  bool
	dry    bool
	watch  func(Verdict)
	ledger *evict.Ledger
	out    Pruned
}

// pruneWait is how long somebody who typed prune waits for an eviction to end.
const pruneWait = 10 * time.Second

// takeTurn waits for the right to evict: one has it at a time.
func (a *Agent) takeTurn(ctx context.Context) error {
	select {
	case a.evicting <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Agent) endTurn() { <-a.evicting }

// evict gives back so many bytes of disk, or as many as may go. The caller has the
// turn.
func (a *Agent) evict(ctx context.Context, need int64, force, dry bool, watch func(Verdict)) (Pruned, error) {
	all, err := a.opt.Cache.Holdings()
	if err != nil {
		return Pruned{}, err
	}
	a.forgetUse(all)
	s := &sweep{Agent: a, need: need, force: force, dry: dry, watch: watch, out: Pruned{DryRun: dry}}
	s.dropUnfinished()
	order, byKey := a.candidates(all)
	s.ledger = evict.NewLedger(order)
	evict.Order(order)
	for _, c := range order {
		if ctx.Err() != nil {
			return s.out, context.Cause(ctx)
		}
		s.judge(ctx, byKey[c.Key])
	}
	return s.out, nil
}

func (a *Agent) candidates(all []cachefs.Holding) ([]evict.Snapshot, map[string]*cachefs.Holding) {
	out, byKey := make([]evict.Snapshot, len(all)), map[string]*cachefs.Holding{}
	for i := range all {
		h := &all[i]
		out[i] = evict.Snapshot{Key: useKey(h.Repo, h.Commit), Used: a.lastUse(h)}
		for _, n := range h.Names {
			out[i].Names = append(out[i].Names, evict.Name(n))
		}
		byKey[out[i].Key] = h
	}
	return out, byKey
}

func (s *sweep) note(v Verdict) {
	if v.Gone {
		s.need -= v.Freed
		s.out.Freed += v.Freed
	}
	s.out.Verdicts = append(s.out.Verdicts, v)
	if s.watch != nil {
		s.watch(v)
	}
}

// judge decides on one snapshot, and removes it if it may go.
func (s *sweep) judge(ctx context.Context, h *cachefs.Holding) {
	key := useKey(h.Repo, h.Commit)
	v := Verdict{
		Ref: s.describe(&h.Snapshot, "").Ref, Repo: h.Repo.String(), Commit: string(h.Commit),
		Size: h.Size, Used: s.lastUse(h), Freed: s.ledger.Frees(key),
	}
	if v.Stays, v.Detail = s.stays(h, s.force); v.Stays == "" && s.need <= 0 {
		v.Stays = StaysUnneeded
	}
	if v.Stays == "" {
		s.tryTo(ctx, h, &v)
	}
	if v.Gone = v.Stays == ""; v.Gone {
		s.ledger.Remove(key)
	} else {
		v.Freed = 0
	}
	s.note(v)
}

// tryTo removes a snapshot that may go as far as this member alone can tell, or
// finds out why it must not.
func (s *sweep) tryTo(ctx context.Context, h *cachefs.Holding, v *Verdict) {
	var err error
	if s.dry {
		v.Stays, v.Detail, err = s.wouldStay(ctx, &h.Snapshot)
	} else {
		v.Freed, v.Stays, v.Detail, err = s.evictOne(ctx, &h.Snapshot)
	}
	if err != nil {
		v.Stays, v.Detail = StaysFailed, err.Error()
		s.log.Warn("can't evict a snapshot", "ref", v.Ref, "commit", v.Commit, "error", err)
	}
}

const noOtherCopy = "no other member in sight holds it"

// wouldStay is evictOne for a dry run.
func (s *sweep) wouldStay(ctx context.Context, snap *cachefs.Snapshot) (Reason, string, error) {
	if why, err := s.opt.Cache.InUse(snap.Repo, snap.Commit); why != "" || err != nil {
		return StaysInUse, why, err
	}
	if s.force {
		return "", "", nil
	}
	if there, err := s.elsewhere(ctx, snap); !there && !s.mayGoLast(snap) {
		return StaysLastCopy, noOtherCopy, err
	}
	return "", "", nil
}

func (s *sweep) evictOne(ctx context.Context, snap *cachefs.Snapshot) (freed int64, stays Reason, detail string, err error) {
	if !s.force {
		stay, ok, err := s.letGo(ctx, snap)
		if ok {
			defer stay()
		} else if !s.mayGoLast(snap) {
			return 0, StaysLastCopy, noOtherCopy, err
		}
	}
	freed, err = s.takeAway(snap, false)
	if busy, ok := errors.AsType[*busyError](err); ok {
		return 0, StaysInUse, busy.why, nil
	}
	if err == nil {
		s.log.Info("evicted", "repo", snap.Repo.String(), "commit", string(snap.Commit), "freed", freed)
	}
	return freed, "", "", err
}

// mayGoLast tells whether this may be the last copy that goes: the operator said so,
// and the Hub has another.
func (a *Agent) mayGoLast(s *cachefs.Snapshot) bool {
	return a.opt.Eviction.LastCopies && !a.seededCommit(s.Repo, s.Commit)
}

// busyError tells who works with a snapshot.
type busyError struct{ why string }

func (e *busyError) Error() string { return "in use: " + e.why }

// takeAway removes a snapshot in which nobody is at work; force passes over files
// that are open.
func (a *Agent) takeAway(s *cachefs.Snapshot, force bool) (freed int64, err error) {
	open, busy := a.closeRepo(s.Repo, s.Commit)
	if busy != "" {
		return 0, &busyError{busy}
	}
	defer open()
	if !force {
		why, err := a.opt.Cache.InUse(s.Repo, s.Commit)
		if err != nil {
			return 0, err
		}
		if why != "" {
			return 0, &busyError{why}
		}
	}
	ref := pieces.Ref{Repo: s.Repo, Revision: string(s.Commit)}
	freed, err = a.opt.Cache.Remove(ref, a.wantedByJobs())
	a.withdraw(s) // also when only a part of it could be removed
	a.shelf.drop(s.Repo)
	if err != nil {
		return freed, err
	}
	if a.opt.OnRemoved != nil {
		a.opt.OnRemoved(s.Repo, s.Commit)
	}
	return freed, a.forget(ref, s.Commit)
}

// unfinishedGrace is how long pieces of a blob are kept that no job is after: the
// same fetch may be typed again.
const unfinishedGrace = time.Hour

// dropUnfinished removes pieces of blobs that nobody asked for lately, oldest first.
func (s *sweep) dropUnfinished() {
	written := s.opt.Cache.Unfinished()
	wanted := s.wantedByJobs()
	var blobs []pieces.Blob
	for b, at := range written {
		if !wanted[b] && time.Since(at) >= unfinishedGrace {
			blobs = append(blobs, b)
		}
	}
	slices.SortFunc(blobs, func(x, y pieces.Blob) int { return written[x].Compare(written[y]) })
	for _, b := range blobs {
		if s.need <= 0 {
			return
		}
		s.dropOne(b, written[b])
	}
}

func (s *sweep) dropOne(b pieces.Blob, written time.Time) {
	v := Verdict{Blob: b.String(), Size: b.Size, Used: written, Gone: true, Freed: b.Size, Detail: "pieces that no job is after"}
	if !s.dry {
		open, ok := s.closeBlob(b)
		if !ok {
			return // a job is after it now
		}
		defer open()
		if err := s.opt.Cache.Abandon(b); err != nil {
			v.Gone, v.Freed, v.Stays, v.Detail = false, 0, StaysFailed, err.Error()
		}
		s.opt.Swarm.Withdraw([]pieces.Blob{b})
	}
	s.note(v)
}
