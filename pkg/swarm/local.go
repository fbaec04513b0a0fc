package swarm

import (
	"context"
	"errors"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// Local is what of the blobs of one job is here already, in other files. Nothing
// may block in Gaps. All methods may be called concurrently.
type Local interface {
	// Gaps returns which bytes of a piece are not here, ascending: none when all are,
	// the whole piece when none is.
	Gaps(b pieces.Blob, index int) []pieces.Part
	// Fill puts those bytes of a piece into data that are here. Where that can't be
	// done any more, Gaps says so from then on.
	Fill(b pieces.Blob, index int, data []byte) error
	// Fetch makes those pieces of e that need names and of which all is here, as an
	// Upstream does it. Others are left out.
	Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool, put func(context.Context, pieces.Verified) error) error
	// Drop has nothing of the blob be here: what was made of it was wrong.
	Drop(b pieces.Blob)
}

// copying is what a blob gets from the Local of one of its jobs.
type copying struct {
	by       *job
	promised *pieces.Set // pieces that it will make: nobody is asked for them
	made     *pieces.Set // pieces cut here with bytes of it: this member's own word for them
	failed   int         // pieces that did not match their statement with bytes of it
}

// mostUnfit is how many pieces may turn out wrong with what is here before that is
// given up.
const mostUnfit = 3

// wholes returns the pieces of the job's blobs of which all is here.
func (j *job) wholes() map[pieces.Blob]*pieces.Set {
	if j.Local == nil {
		return nil
	}
	out := make(map[pieces.Blob]*pieces.Set, len(j.Blobs))
	for _, b := range j.Blobs {
		set := pieces.NewSet(b.Pieces())
		for i := range b.Pieces() {
			if len(j.Local.Gaps(b, i)) == 0 {
				set.Add(i)
			}
		}
		out[b] = set
	}
	return out
}

// promise has the job's Local make what it can make alone, of blobs for which no
// other job does that. Until it has, or has failed, nobody is asked for these pieces.
func (n *Node) promise(j *job, wholes map[pieces.Blob]*pieces.Set) {
	any := false
	for b, set := range wholes {
		s := n.blobs[b]
		if s == nil || s.own || s.copying != nil {
			continue
		}
		s.copying = &copying{by: j, promised: set, made: pieces.NewSet(b.Pieces())}
		for i := range s.held.All() {
			set.Remove(i)
		}
		for i := range set.All() {
			p := plan.Piece{Blob: b, Index: i}
			for _, peer := range n.swap.Held(p) {
				n.taker.cancel(peer, p, errElsewhere)
			}
			n.touch(b, i)
		}
		any = any || set.Count() > 0
	}
	if !any || j.stopCopying != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(n.ctx)
	j.stopCopying = cancel
	n.tasks.Go(func() error {
		defer cancel(nil)
		n.copy(ctx, j)
		return nil
	})
}

// copy makes what was promised, an extent at a time, those first that are read here.
func (n *Node) copy(ctx context.Context, j *job) {
	for n.copyNext(ctx, j) {
	}
}

// copyNext copies an extent, one at a time for all jobs: it costs a core, and the
// disk.
func (n *Node) copyNext(ctx context.Context, j *job) (more bool) {
	select {
	case n.copies <- struct{}{}:
		defer func() { <-n.copies }()
	case <-ctx.Done():
		return false
	}
	var e pieces.Extent
	var need map[plan.Piece]bool
	if n.call(ctx, func() { e, need = n.nextCopy(j) }) != nil || len(need) == 0 {
		return false
	}
	err := j.Local.Fetch(ctx, e, func(b pieces.Blob, i int) bool { return need[plan.Piece{Blob: b, Index: i}] }, n.putter(plan.Piece.Size))
	return n.call(ctx, func() { n.copied(j, need, err) }) == nil
}

// nextCopy returns the extent to copy next, and which pieces of it; none ends the
// copying.
func (n *Node) nextCopy(j *job) (best pieces.Extent, need map[plan.Piece]bool) {
	lead := 0
	for _, e := range j.Extents {
		mine := n.promisedOf(j, e)
		if l, _ := n.readers.Lead(e); len(mine) > 0 && (need == nil || l < lead) {
			best, need, lead = e, mine, l
		}
	}
	if need == nil {
		j.stopCopying = nil
	}
	return n.readers.From(best), need
}

func (n *Node) promisedOf(j *job, e pieces.Extent) map[plan.Piece]bool {
	var out map[plan.Piece]bool
	for _, span := range e.Spans {
		s := n.blobs[span.Blob]
		if s == nil || s.copying == nil || s.copying.by != j {
			continue
		}
		for i := span.First; i < span.First+span.Count; i++ {
			if s.copying.promised.Has(i) {
				if out == nil {
					out = map[plan.Piece]bool{}
				}
				out[plan.Piece{Blob: span.Blob, Index: i}] = true
			}
		}
	}
	return out
}

// copied takes back the promise of what was not made.
func (n *Node) copied(j *job, tried map[plan.Piece]bool, err error) {
	for p := range tried {
		if s := n.blobs[p.Blob]; s != nil && s.copying != nil && s.copying.by == j {
			n.unpromise(s, p.Index)
		}
	}
	var broken *storeError
	switch {
	case errors.As(err, &broken):
		n.endJob(j, broken.err)
	case err != nil:
		n.log.Info("not all that is here could be copied", "job", j.Name, "err", err)
	}
}

// unpromise has a piece come another way, if it did not come.
func (n *Node) unpromise(s *blobState, index int) {
	if !s.copying.promised.Remove(index) || s.held.Has(index) {
		return
	}
	n.swap.Lost(time.Now(), plan.Piece{Blob: s.blob, Index: index})
	n.touch(s.blob, index)
}

// endCopying ends what a job copies. Another one that can goes on with it.
func (n *Node) endCopying(j *job) {
	if j.stopCopying != nil {
		j.stopCopying(errElsewhere)
	}
	for _, b := range j.Blobs {
		s := n.blobs[b]
		if s == nil || s.copying == nil || s.copying.by != j {
			continue
		}
		for i := range s.copying.promised.Clone().All() {
			n.unpromise(s, i)
		}
		made := s.copying.made
		s.copying = nil
		for other := range s.jobs {
			if other.Local != nil && s.copying == nil {
				n.promise(other, other.wholes())
			}
		}
		if s.copying != nil {
			for i := range made.All() {
				s.copying.made.Add(i)
			}
		}
	}
}

// copiesFor tells whether pieces of the job are still being copied.
func (n *Node) copiesFor(j *job) bool {
	for b := range j.left {
		if s := n.blobs[b]; s != nil && s.copying != nil && s.copying.promised.Count() > 0 {
			return true
		}
	}
	return false
}

// local returns what of the blob is here, or nil.
func (s *blobState) local() Local {
	if s == nil || s.copying == nil {
		return nil
	}
	return s.copying.by.Local
}

// promises tells whether a piece is being copied.
func (s *blobState) promises(index int) bool {
	return s.copying != nil && s.copying.promised.Has(index)
}

// putter stores pieces that this member cuts itself. local tells how many bytes of one
// were here when that began, which only become fewer.
func (n *Node) putter(local func(p plan.Piece) int64) func(context.Context, pieces.Verified) error {
	return func(ctx context.Context, v pieces.Verified) error {
		p := plan.Piece{Blob: v.Blob(), Index: v.Index()}
		here := local(p)
		if err := n.cfg.Store.Put(ctx, v); err != nil {
			return &storeError{err}
		}
		st := v.Statement()
		n.proofs.learn(st, n.self)
		n.post(func() {
			n.made(p, here)
			n.stored(p, st, n.self, p.Size()-here)
		})
		return nil
	}
}

// here counts the bytes of a piece that are in other files here.
func here(l Local, p plan.Piece) int64 {
	if l == nil {
		return 0
	}
	return p.Size() - pieces.SizeOf(l.Gaps(p.Blob, p.Index))
}

// made notes a piece that this member cut out of bytes that were here.
func (n *Node) made(p plan.Piece, here int64) {
	if s := n.blobs[p.Blob]; s != nil && s.copying != nil && here > 0 {
		s.copying.made.Add(p.Index)
	}
}

// missing returns what is to be asked for of a piece: nil for all of it.
func (s *blobState) missing(p plan.Piece) []pieces.Part {
	l := s.local()
	if l == nil || s.unfit[p.Index] {
		return nil
	}
	parts := tidy(l.Gaps(p.Blob, p.Index), wire.MaxParts)
	if n := pieces.SizeOf(parts); n == 0 || n > p.Size()*7/8 {
		return nil
	}
	return parts
}

// tidy joins parts until there are at most limit of them, those first that lie
// closest.
func tidy(parts []pieces.Part, limit int) []pieces.Part {
	for near := int64(4 << 10); len(parts) > limit; near *= 2 {
		joined := parts[:1:1]
		for _, p := range parts[1:] {
			last := &joined[len(joined)-1]
			if p.Off-last.Off-last.N <= near {
				last.N = p.Off + p.N - last.Off
			} else {
				joined = append(joined, p)
			}
		}
		parts = joined
	}
	return parts
}

// unfit deals with a piece that did not match its statement with bytes that were
// here: nobody is to blame, and all of it is asked for.
func (n *Node) unfit(r plan.Request) {
	n.swap.Failed(time.Now(), r.Peer, r.Piece, 0)
	s := n.blobs[r.Piece.Blob]
	if s == nil || s.copying == nil {
		return
	}
	if s.unfit == nil {
		s.unfit = map[int]bool{}
	}
	s.unfit[r.Piece.Index] = true
	if s.copying.failed++; s.copying.failed == mostUnfit {
		n.log.Warn("what is here does not fit, fetching the rest in full", "blob", s.blob)
		s.copying.by.Local.Drop(s.blob)
		for i := range s.copying.promised.Clone().All() {
			n.unpromise(s, i)
		}
	}
}

// uncopy deals with a blob that does not match its digest and was made in part of
// what was here: those pieces are taken back, before anybody is suspected.
func (n *Node) uncopy(s *blobState, cause error) bool {
	if s.copying == nil || s.copying.made.Count() == 0 {
		return false
	}
	n.log.Warn("whole blob does not match its digest, fetching what was copied", "blob", s.blob, "err", cause)
	var made []int
	for i := range s.copying.made.All() {
		made = append(made, i)
	}
	s.whole = false
	s.copying.by.Local.Drop(s.blob)
	s.copying.made = pieces.NewSet(s.blob.Pieces())
	n.takeBack(s.blob, made)
	return !s.held.Full() // else others' copies of these pieces are here
}
