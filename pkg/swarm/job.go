package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/internal/plan"
	"p2pagent/internal/stall"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// Job is a set of blobs to bring here.
type Job struct {
	Name     string          // for messages
	Blobs    []pieces.Blob   // distinct
	Extents  []pieces.Extent // those with at least one of the blobs
	Upstream Upstream        // nil: only from other members
	Local    Local           // nil: nothing of them is in other files here
	Patience time.Duration   // give up after so long without a byte; default 10 min
}

// Progress is what a Fetch has got so far, in bytes of verified pieces, but for
// Arriving, which counts upstream's bytes as they come. What of a piece was here
// already counts as Copied.
type Progress struct {
	Upstream int64
	Copied   int64 // out of other files here
	Arriving int64
	Peers    map[peer.ID]int64
	Pieces   int           // pieces wanted
	Held     int           // of them here
	Nobody   int           // not here, and held by nobody reachable
	Gaps     []Gap         // the first of those, at most maxGaps runs
	Fetching int           // extents that this member fetches now
	Waiting  string        // what it waits for when nothing moves
	Idle     time.Duration // since the last byte
}

// Gap is a run of pieces of one blob that nobody reachable holds.
type Gap struct {
	Blob         pieces.Blob
	First, Count int
}

// maxGaps bounds what a progress report carries: after a break there is one gap for
// each extent that was under way, and people read no more.
const maxGaps = 32

// missed adds a piece that nobody holds. They come in order.
func (p *Progress) missed(b pieces.Blob, i int) {
	p.Nobody++
	if n := len(p.Gaps); n > 0 && p.Gaps[n-1].Blob == b && p.Gaps[n-1].First+p.Gaps[n-1].Count == i {
		p.Gaps[n-1].Count++
	} else if n < maxGaps {
		p.Gaps = append(p.Gaps, Gap{b, i, 1})
	}
}

type job struct {
	Job
	left   map[pieces.Blob]bool // not complete yet
	tasks  []plan.Key
	ready  bool // all neighbours have said what they hold and do
	got    Progress
	last   time.Time
	result chan error

	fault   error     // why this member can't fetch upstream at all
	looked  time.Time // when it was last looked at what is left to hope for, and
	hoped   time.Time // when there was something
	trouble error     // what went wrong upstream last

	stopCopying context.CancelCauseFunc // nil when it does not copy
}

// watchJobs ends the jobs that nothing has moved for longer than they are
// willing to wait.
func (n *Node) watchJobs(now time.Time) {
	for j := range n.jobs {
		n.watchHope(now, j)
		if quiet := now.Sub(j.last); quiet > cmp.Or(j.Patience, 10*time.Minute) {
			err := fmt.Errorf("fetch %s: no byte for %s, waiting for %s: %w", j.Name, quiet.Round(time.Second), n.waitingFor(j, n.progress(j)), stall.ErrStalled)
			n.endJob(j, errors.Join(err, j.trouble))
		}
	}
}

// blobState is a blob that one or more jobs want.
type blobState struct {
	blob    pieces.Blob
	held    *pieces.Set
	jobs    map[*job]bool
	tasks   []*extentTask
	ahead   []*extentTask // that wait for pieces of this one
	whole   bool          // Complete is under way, or done
	done    bool
	retries int
	own     bool // after a lie: only pieces that this member cut itself count
	suspect map[int]pieces.Statement
	retired map[int]map[pieces.ID]bool // statements that their maker took back
	copying *copying                   // nil: nothing of it is in other files here
	unfit   map[int]bool               // pieces that are asked for whole
}

// accepts tells whether a statement may be used for the blob.
func (s *blobState) accepts(st pieces.Statement) bool { return !s.own && !s.retired[st.Index][st.ID] }

// Fetch brings every blob of the job here. It returns once the store has
// completed them all, with the first error that can't be helped, or when ctx
// ends. report, when not nil, is called about twice a second from a goroutine
// of Fetch's own.
func (n *Node) Fetch(ctx context.Context, spec Job, report func(Progress)) error {
	j := &job{Job: spec, left: map[pieces.Blob]bool{}, last: time.Now(), result: make(chan error, 1)}
	j.got.Peers = map[peer.ID]int64{}
	held := make(map[pieces.Blob]*pieces.Set, len(spec.Blobs))
	for _, b := range spec.Blobs {
		held[b] = n.cfg.Store.Held(b)
		for _, st := range n.cfg.Store.Statements(b) {
			n.proofs.watch(b)
			n.proofs.learn(st, n.self)
		}
	}
	wholes := j.wholes()
	if err := n.call(ctx, func() { n.begin(j, held, wholes) }); err != nil {
		return err
	}
	defer n.post(func() { n.endJob(j, context.Cause(ctx)) })
	return n.await(ctx, j, report)
}

func (n *Node) await(ctx context.Context, j *job, report func(Progress)) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-j.result:
			n.reportTo(ctx, j, report)
			return err
		case <-ctx.Done():
			return fmt.Errorf("fetch %s: %w", j.Name, context.Cause(ctx))
		case <-tick.C:
			n.reportTo(ctx, j, report)
		}
	}
}

func (n *Node) reportTo(ctx context.Context, j *job, report func(Progress)) {
	if report == nil {
		return
	}
	var p Progress
	if n.call(ctx, func() { p = n.progress(j) }) == nil {
		report(p)
	}
}

// begin makes the job part of the node's state and asks the neighbours about it.
func (n *Node) begin(j *job, held, wholes map[pieces.Blob]*pieces.Set) {
	n.jobs[j] = true
	for _, b := range j.Blobs {
		j.left[b] = true
		n.want(j, b, held[b])
	}
	for _, e := range j.Extents {
		n.addExtent(j, e)
	}
	n.promise(j, wholes)
	n.survey(j, func() { n.surveyed(j) })
	for _, b := range j.Blobs {
		if s := n.blobs[b]; s.done { // for another job that is not over
			delete(j.left, b)
		} else {
			n.checkWhole(s)
		}
	}
	n.checkDone(j)
}

// surveyed notes that all neighbours have said what they hold of the job's blobs:
// only now does this member know what nobody holds.
func (n *Node) surveyed(j *job) {
	j.ready = true
	for _, k := range j.tasks {
		if t := n.extents[k]; t != nil {
			t.dirty = true
		}
	}
}

// surveyed tells whether a job that wants the blob has asked what others hold of
// it. Another job may have had the extent claimed before.
func (s *blobState) surveyed() bool {
	for j := range s.jobs {
		if j.ready {
			return true
		}
	}
	return false
}

func (n *Node) want(j *job, b pieces.Blob, held *pieces.Set) {
	s := n.blobs[b]
	if s == nil {
		if held == nil {
			held = pieces.NewSet(b.Pieces())
		}
		s = &blobState{blob: b, held: held, jobs: map[*job]bool{}}
		n.blobs[b] = s
		n.proofs.watch(b)
		n.swap.Want(time.Now(), b, held)
	}
	s.jobs[j] = true
}

func (n *Node) sendWants(l *link, j *job) {
	n.seq++
	n.sendWantsSeq(l, j, n.seq)
}

// sendWantsSeq sends what the job still wants; the last message carries seq.
func (n *Node) sendWantsSeq(l *link, j *job, seq uint64) {
	var blobs []pieces.Blob
	for _, b := range j.Blobs {
		if j.left[b] {
			blobs = append(blobs, b)
		}
	}
	for len(blobs) > wire.MaxWantBlobs {
		l.send(&wire.Want{Upstream: n.eligible(j), Blobs: blobs[:wire.MaxWantBlobs]})
		blobs = blobs[wire.MaxWantBlobs:]
	}
	l.send(&wire.Want{Seq: seq, Upstream: n.eligible(j), Blobs: blobs})
}

// eligible tells whether this member could fetch the job upstream itself.
func (n *Node) eligible(j *job) bool {
	return n.cfg.Upstream && j.Upstream != nil && j.fault == nil
}

// stored notes that a piece is in the store, of which so many bytes came from
// elsewhere.
func (n *Node) stored(v plan.Piece, st pieces.Statement, from plan.Peer, came int64) {
	s := n.blobs[v.Blob]
	for _, p := range n.swap.Held(v) {
		n.taker.cancel(p, v, errElsewhere)
	}
	if s != nil && from == n.self {
		s.restate(st)
	}
	if s != nil && s.copying != nil {
		s.copying.promised.Remove(v.Index)
	}
	late := s != nil && s.retired[v.Index][st.ID]
	wanted := s != nil && !late && s.held.Add(v.Index)
	n.count.arrival(from == n.self, wanted, v.Size()-came, came == 0)
	if late {
		n.tooLate(s, st)
	}
	if !wanted {
		return
	}
	now := time.Now()
	for j := range s.jobs {
		j.last = now
		j.got.Copied += v.Size() - came
		if from == n.self {
			j.got.Upstream += came
		} else {
			j.got.Peers[peerID(from)] += came
		}
	}

	n.blame(s, st)
	n.touch(v.Blob, v.Index)
	for _, l := range n.links {
		if l.wants[v.Blob] {
			l.offers[v.Blob] = append(l.offers[v.Blob], st)
		}
	}
	n.checkWhole(s)
}

var errElsewhere = errors.New("came from elsewhere")

// flush sends the offers that this step made, batched by blob.
func (n *Node) flush() {
	for _, l := range n.links {
		for b, statements := range l.offers {
			delete(l.offers, b)
			slices.SortFunc(statements, func(x, y pieces.Statement) int { return x.Index - y.Index })
			for len(statements) > 0 {
				batch := statements[:min(len(statements), wire.MaxStatements)]
				statements = statements[len(batch):]
				if raw, err := pieces.MarshalStatements(batch); err == nil {
					l.spoke = time.Now()
					l.send(&wire.Offer{Blob: b, Statements: raw})
				}
			}
		}
	}
}

// checkWhole has a blob completed once all its pieces are held.
func (n *Node) checkWhole(s *blobState) {
	if s == nil || s.whole || !s.held.Full() {
		return
	}
	s.whole = true
	n.tasks.Go(func() error {
		err := n.cfg.Store.Complete(n.ctx, s.blob)
		n.post(func() { n.completed(s, err) })
		return nil
	})
}

func (n *Node) completed(s *blobState, err error) {
	switch {
	case n.blobs[s.blob] != s:
	case err == nil:
		s.done = true
		for j := range s.jobs {
			delete(j.left, s.blob)
			n.checkDone(j)
		}
	case errors.Is(err, pieces.ErrDigest):
		if !n.uncopy(s, err) {
			n.distrust(s, err)
		}
	default:
		n.failAll(s, fmt.Errorf("complete blob %s: %w", s.blob, err))
	}
}

func (n *Node) failAll(s *blobState, err error) {
	for j := range s.jobs {
		n.endJob(j, err)
	}
}

func (n *Node) checkDone(j *job) {
	if len(j.left) == 0 {
		n.endJob(j, nil)
	}
}

func (j *job) end(err error) {
	select {
	case j.result <- err:
	default:
	}
}

// endJob takes the job out of the node's state; what no other job wants is
// unwanted from now on.
func (n *Node) endJob(j *job, err error) {
	if !n.jobs[j] {
		return
	}
	j.end(err)
	delete(n.jobs, j)
	for _, k := range j.tasks {
		n.leaveExtent(j, n.extents[k])
	}
	for _, b := range j.Blobs {
		delete(n.blobs[b].jobs, j)
	}
	n.endCopying(j)
	var unwanted []pieces.Blob
	for _, b := range j.Blobs {
		s := n.blobs[b]
		if len(s.jobs) == 0 {
			n.unwant(s)
			unwanted = append(unwanted, b)
		}
	}
	for batch := range slices.Chunk(unwanted, wire.MaxWantBlobs) {
		for _, l := range n.links {
			l.send(&wire.Unwant{Blobs: batch})
		}
	}
}

func (n *Node) unwant(s *blobState) {
	for i := range s.held.Missing() {
		n.taker.cancelPiece(plan.Piece{Blob: s.blob, Index: i}, errElsewhere)
	}
	n.swap.Drop(s.blob)
	for p := range n.links {
		n.swap.Withdraw(p, s.blob)
	}
	n.proofs.forget(s.blob)
	delete(n.blobs, s.blob)
	s.release()
	delete(n.hints, s.blob)
}

func (n *Node) progress(j *job) Progress {
	p := j.got
	p.Peers = make(map[peer.ID]int64, len(j.got.Peers))
	for id, bytes := range j.got.Peers {
		p.Peers[id] = bytes
	}
	for _, b := range j.Blobs {
		s := n.blobs[b]
		if s == nil {
			p.Pieces += b.Pieces()
			p.Held += b.Pieces()
			continue
		}
		p.Pieces += b.Pieces()
		p.Held += s.held.Count()
		for i := range s.held.Missing() {
			if !n.swap.HeldBySomeone(plan.Piece{Blob: b, Index: i}) {
				p.missed(b, i)
			}
		}
	}
	for _, k := range j.tasks {
		if t := n.extents[k]; t != nil && t.cancel != nil {
			p.Fetching++
		}
	}
	p.Idle = time.Since(j.last)
	p.Waiting = n.waitingFor(j, p)
	return p
}

func (n *Node) waitingFor(j *job, p Progress) string {
	switch {
	case p.Idle < 2*time.Second:
		return ""
	case !j.ready:
		return "the neighbours to say what they hold"
	case p.Held == p.Pieces:
		return "the digest of the whole"
	case n.copiesFor(j):
		return "bytes of other files here to be copied"
	case p.Fetching > 0 && j.trouble != nil:
		return fmt.Sprintf("upstream, after: %v", j.trouble)
	case p.Fetching > 0:
		return "upstream"
	case p.Nobody > 0 && j.fault != nil:
		return fmt.Sprintf("pieces that no member holds; upstream: %v", j.fault)
	case p.Nobody > 0 && j.trouble != nil:
		return fmt.Sprintf("upstream, after: %v", j.trouble)
	case p.Nobody > 0:
		return "pieces that other members fetch upstream"
	default:
		return "pieces from other members"
	}
}
