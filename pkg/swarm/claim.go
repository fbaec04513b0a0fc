package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// extentTask is an extent that some job wants and this member may fetch.
type extentTask struct {
	key      plan.Key
	after    plan.Key // the extent before it in the same blob, or zero
	behind   []behind // what must be here before it
	extent   pieces.Extent
	jobs     []*job
	dirty    bool                    // whether it is still needed must be looked at again
	added    bool                    // Seats knows it
	cancel   context.CancelCauseFunc // of this member's own fetching
	progress int64
	told     time.Time // when the progress was last announced

	fresh    atomic.Int64 // bytes that the owner loop has not heard of
	toldLoop atomic.Int64 // when it last heard, in Unix nanoseconds
}

func (t *extentTask) stop(cause error) {
	if t.cancel != nil {
		t.cancel(cause)
	}
}

func (n *Node) addExtent(j *job, e pieces.Extent) {
	key := plan.Key(e.Key())
	t := n.extents[key]
	if t == nil {
		t = &extentTask{key: key, extent: e, dirty: true}
		n.extents[key] = t
	}
	t.jobs = append(t.jobs, j)
	j.tasks = append(j.tasks, key)
	for _, span := range e.Spans {
		if s := n.blobs[span.Blob]; s != nil && !slices.Contains(s.tasks, t) {
			t.after = s.before(span)
			s.tasks = append(s.tasks, t)
		}
	}
	n.setBehind(t, j.Upstream)
}

func (n *Node) leaveExtent(j *job, t *extentTask) {
	if t == nil {
		return
	}
	t.jobs = slices.DeleteFunc(t.jobs, func(o *job) bool { return o == j })
	if len(t.jobs) > 0 {
		return
	}
	t.stop(errElsewhere)
	n.announce(t, plan.Released) // also when it was only asked for
	n.seats.Remove(t.key)
	delete(n.extents, t.key)
}

// before returns the extent that ends where the span begins, or zero.
func (s *blobState) before(span pieces.Span) plan.Key {
	for _, t := range s.tasks {
		for _, o := range t.extent.Spans {
			if o.Blob == span.Blob && o.First+o.Count == span.First {
				return t.key
			}
		}
	}
	return plan.Key{}
}

// tasksOf returns the extents that hold pieces of b.
func (n *Node) tasksOf(b pieces.Blob) []*extentTask {
	if s := n.blobs[b]; s != nil {
		return s.tasks
	}
	return nil
}

// touch marks the extents around a piece for another look.
func (n *Node) touch(b pieces.Blob, index int) {
	if s := n.blobs[b]; s != nil {
		s.came(index)
	}
	for _, t := range n.tasksOf(b) {
		if !t.dirty && t.covers(b, index) {
			t.dirty = true
		}
	}
}

func (t *extentTask) covers(b pieces.Blob, index int) bool {
	for _, s := range t.extent.Spans {
		if s.Blob == b && index >= s.First && index < s.First+s.Count {
			return true
		}
	}
	return false
}

// rivalry brings up to date whether l's peer competes for the extents of b.
func (n *Node) rivalry(l *link, b pieces.Blob) {
	for _, t := range n.tasksOf(b) {
		n.seats.SetRival(t.key, l.peer, n.rivals(l, t))
	}
}

// rivals tells whether l's peer is to be asked before this member fetches the
// extent: it wants it, could fetch it, and its word counts.
func (n *Node) rivals(l *link, t *extentTask) bool {
	return l.competes(t) && !n.bans.Banned(time.Now(), l.peer)
}

func (l *link) competes(t *extentTask) bool {
	for _, s := range t.extent.Spans {
		if l.upstream[s.Blob] {
			return true
		}
	}
	return false
}

// refreshNeeds looks again at the extents around which something changed, and
// gives the new ones to the planner once their job knows what the neighbours do.
func (n *Node) refreshNeeds() {
	for _, t := range n.extents {
		if !t.added && slices.ContainsFunc(t.jobs, func(j *job) bool { return j.ready && n.eligible(j) }) {
			n.enlist(t)
		}
		if t.dirty && t.added {
			t.dirty = false
			n.seats.SetNeeded(t.key, len(n.needs(t)) > 0 && !n.waits(t))
		}
	}
}

func (n *Node) enlist(t *extentTask) {
	t.added, t.dirty = true, true
	n.seats.Add(t.key, plan.Key(sha(t.jobs[0].Name)), t.after)
	n.hurryTask(t)
	for _, l := range n.links {
		n.seats.SetRival(t.key, l.peer, n.rivals(l, t))
	}
}

// needs returns the wanted pieces of the extent that nobody holds.
func (n *Node) needs(t *extentTask) map[plan.Piece]bool {
	out := map[plan.Piece]bool{}
	for _, span := range t.extent.Spans {
		s := n.blobs[span.Blob]
		if s == nil || !s.surveyed() {
			continue
		}
		for i := span.First; i < span.First+span.Count; i++ {
			piece := plan.Piece{Blob: span.Blob, Index: i}
			if !s.held.Has(i) && !s.promises(i) && (s.own || !n.swap.HeldBySomeone(piece)) {
				out[piece] = true
			}
		}
	}
	return out
}

// claim asks for as many extents as the pace allows.
func (n *Node) claim(now time.Time) {
	asks := n.seats.Next(now, n.allowed()-n.openExtents())
	n.count.asked(asks)
	for _, a := range asks {
		for _, p := range a.To {
			if l := n.links[p]; l != nil {
				l.claim(a.Key, plan.Asking, 0)
			}
		}
	}
	n.claimRecords(now)
}

// allowed is how many extents to fetch at once: what the pace says, but no more
// than can have a piece in memory. A claim that waits for room makes no progress,
// and another member would take it over.
func (n *Node) allowed() int {
	if len(n.blobs) == 0 {
		return n.pace.Allowed()
	}
	return min(n.pace.Allowed(), max(1, int(n.cfg.Memory/n.pieceSize())))
}

// openExtents counts this member's extents; records do not use up the pace.
func (n *Node) openExtents() int { return n.seats.Open() - n.openRecords() }

// startClaimed begins what every rival agreed to.
func (n *Node) startClaimed(now time.Time) {
	for _, key := range n.seats.Ready(now) {
		if t := n.extents[key]; t != nil {
			n.startExtent(now, t)
		} else if r := n.recordOf(key); r != nil {
			n.startRecord(r)
		}
	}
	n.tellProgress(now)
}

func (n *Node) startExtent(now time.Time, t *extentTask) {
	need := n.needs(t)
	j := n.payer(t)
	if len(need) == 0 || j == nil {
		n.seats.Finished(now, t.key, false)
		n.seats.SetNeeded(t.key, len(need) > 0)
		n.announce(t, plan.Released)
		return
	}
	// Not the job's context: what is fetched may be for others too, who go on when
	// it ends. leaveExtent stops it when nobody is left.
	ctx, cancel := context.WithCancelCause(n.ctx)
	t.cancel, t.progress, t.told = cancel, 0, now
	n.count.Claims++
	n.announce(t, plan.Fetching)
	extent := n.readers.From(t.extent)
	n.tasks.Go(func() error {
		defer cancel(nil)
		err := n.fetchUpstream(ctx, j, t, extent, need)
		n.post(func() { n.extentDone(t, j, err) })
		return nil
	})
}

// payer returns the job in whose name the extent is fetched upstream.
func (n *Node) payer(t *extentTask) *job {
	for _, j := range t.jobs {
		if n.eligible(j) {
			return j
		}
	}
	return nil
}

// storeError tells that the store refused a piece: no other source will help.
type storeError struct{ err error }

func (e *storeError) Error() string { return e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// fetchUpstream gets what is needed of the extent, which is that of t in the
// order in which it is read here.
func (n *Node) fetchUpstream(ctx context.Context, j *job, t *extentTask, extent pieces.Extent, need map[plan.Piece]bool) error {
	had := make(map[plan.Piece]int64, len(need))
	for p := range need {
		had[p] = here(j.Local, p)
	}
	needs := func(b pieces.Blob, i int) bool { return need[plan.Piece{Blob: b, Index: i}] }
	err := j.Upstream.Fetch(ctx, extent, needs, n.putter(func(p plan.Piece) int64 { return had[p] }), func(bytes int64) { n.arriving(t, bytes) })
	n.arrived(t, t.fresh.Swap(0))
	return err
}

// arriveEvery is how often the owner loop hears of bytes: a read brings a few
// kilobytes when the link is slow, and the loop looks at everything after each
// event.
const arriveEvery = 100 * time.Millisecond

// arriving counts bytes of upstream as they come.
func (n *Node) arriving(t *extentTask, bytes int64) {
	t.fresh.Add(bytes)
	now := time.Now().UnixNano()
	if last := t.toldLoop.Load(); now-last >= int64(arriveEvery) && t.toldLoop.CompareAndSwap(last, now) {
		n.arrived(t, t.fresh.Swap(0))
	}
}

func (n *Node) arrived(t *extentTask, bytes int64) {
	if bytes == 0 {
		return
	}
	n.post(func() {
		now := time.Now()
		t.progress += bytes
		n.upRate.add(now, bytes)
		n.seats.Moved(now, t.key, t.progress)
		for _, j := range t.jobs {
			j.got.Arriving += bytes
			j.last = now
		}
	})
}

// extentDone ends this member's claim.
func (n *Node) extentDone(t *extentTask, j *job, err error) {
	now := time.Now()
	t.cancel, t.dirty = nil, true
	n.seats.Finished(now, t.key, err != nil)
	n.announce(t, plan.Released)
	if !n.jobs[j] {
		j = n.payer(t) // of those that are left
	}
	if err == nil || j == nil || errors.Is(err, errYielded) || errors.Is(err, errElsewhere) {
		return
	}
	j.trouble = err
	n.log.Warn("fetch extent", "job", j.Name, "extent", pieces.ExtentKey(t.key), "err", err)
	var broken *storeError
	switch {
	case errors.As(err, &broken):
		n.endJob(j, fmt.Errorf("fetch %s: %w", j.Name, broken.err))
	case permanent(err):
		n.withdrawUpstream(j, err)
	}
}

func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// withdrawUpstream tells the neighbours that this member can't fetch the job
// upstream. When nobody else can provide it either, the job has failed.
func (n *Node) withdrawUpstream(j *job, err error) {
	if j.fault != nil {
		return
	}
	j.fault, j.hoped = err, time.Now()
	for _, k := range j.tasks {
		if t := n.extents[k]; t != nil && n.payer(t) == nil {
			n.seats.Remove(k)
			t.added = false
		}
	}
	for _, l := range n.links {
		n.sendWants(l, j)
	}
	if n.hopeless(j) {
		n.endJob(j, fmt.Errorf("fetch %s: %w", j.Name, j.fault))
	}
}

// hopelessFor is how long nothing may be left to hope for before a job ends: a
// neighbour whose stream broke, or whose agent was started again, is back sooner.
const hopelessFor = 30 * time.Second

// watchHope ends a job that lost its upstream when those that had what it misses, or
// could fetch it, have gone or have given all they had.
func (n *Node) watchHope(now time.Time, j *job) {
	if j.fault == nil || now.Sub(j.looked) < time.Second {
		return
	}
	j.looked = now
	if !n.hopeless(j) {
		j.hoped = now
	} else if now.Sub(j.hoped) > hopelessFor {
		n.endJob(j, fmt.Errorf("fetch %s: %w", j.Name, j.fault))
	}
}

// hopeless tells whether pieces are missing that nobody holds, and nobody could
// fetch upstream: no neighbour, and no other job of this member.
func (n *Node) hopeless(j *job) bool {
	missing := false
	for b := range j.left {
		for i := range n.blobs[b].held.Missing() {
			if n.blobs[b].promises(i) || n.swap.HeldBySomeone(plan.Piece{Blob: b, Index: i}) {
				return false
			}
			missing = true
		}
		for _, l := range n.links {
			if l.upstream[b] {
				return false
			}
		}
	}
	return missing && !slices.ContainsFunc(j.tasks, func(k plan.Key) bool { return n.extents[k] != nil && n.payer(n.extents[k]) != nil })
}

// announce tells the rivals about this member's claim, and of its end whoever heard of
// it: a rival may want the extent no more by then, or have been sent the record.
func (n *Node) announce(t *extentTask, state plan.ClaimState) {
	for _, l := range n.links {
		if l.hears(t.key, state, l.competes(t)) {
			l.claim(t.key, state, t.progress)
		}
	}
}

func (l *link) hears(key plan.Key, state plan.ClaimState, rival bool) bool {
	if state == plan.Released {
		return l.told[key]
	}
	return rival
}

// claim tells the neighbour of a claim of this member.
func (l *link) claim(key plan.Key, state plan.ClaimState, progress int64) {
	if l.told[key] = true; state == plan.Released {
		delete(l.told, key)
	}
	l.spoke = time.Now()
	l.send(&wire.Claim{Key: key, State: uint8(state), Progress: progress})
}

const tellEvery = time.Second

func (n *Node) tellProgress(now time.Time) {
	for _, t := range n.extents {
		if t.cancel != nil && now.Sub(t.told) >= tellEvery && n.seats.Moving(now, t.key) {
			t.told = now
			n.announce(t, plan.Fetching)
		}
	}
	n.tellRecords(now)
	n.observePace(now)
}

// observePace gives the pace the fleet's rate: this member's own and what the
// neighbours' claims tell.
func (n *Node) observePace(now time.Time) {
	if len(n.extents) == 0 || now.Sub(n.paced) < paceEvery {
		return
	}
	n.paced = now
	fleet := plan.Fleet{Rate: n.upRate.rate(now), Fetchers: n.seats.Fetchers(), Open: n.seats.OpenAll()}
	for _, l := range n.links {
		fleet.Rate += l.rate.rate(now)
	}
	n.pace.Observe(now, fleet, n.pieceSize(), n.openExtents())
}

const paceEvery = 250 * time.Millisecond

// pieceSize returns the size of a typical piece that is being fetched.
func (n *Node) pieceSize() int64 {
	var size int64
	for b := range n.blobs {
		size = max(size, b.PieceSize())
	}
	return size
}

// sendClaims tells a neighbour what this member asks for and fetches.
func (n *Node) sendClaims(l *link) {
	for key, state := range n.seats.Own() {
		var progress int64
		if t := n.extents[key]; t != nil {
			progress = t.progress
		}
		l.claim(key, state, progress)
	}
}

func (n *Node) heardClaim(l *link, m *wire.Claim) {
	if m.State == wire.Unasked {
		n.heardUnasked(l, m.Key)
		return
	}
	if m.State < uint8(plan.Asking) || m.State > uint8(plan.Released) {
		return
	}
	if !n.current(l) { // a banned member may go on, but nobody waits for it
		if plan.ClaimState(m.State) == plan.Asking {
			l.send(&wire.ClaimAck{Key: m.Key})
		}
		return
	}
	now, key, state := time.Now(), plan.Key(m.Key), plan.ClaimState(m.State)
	if len(l.claimed) >= maxClaims {
		l.close(fmt.Errorf("more than %d claims: %w", maxClaims, wire.ErrProtocol))
		return
	}
	deny, yield := n.seats.Heard(now, l.peer, key, state, m.Progress)
	if yield {
		n.yield(key)
	}
	if state == plan.Asking {
		l.spoke = now
		l.send(&wire.ClaimAck{Key: m.Key, Deny: deny})
	}
	if more := m.Progress - l.claimed[key]; more > 0 && n.extents[key] != nil {
		l.rate.add(now, more)
	}
	l.claimed[key] = m.Progress
	if state == plan.Released {
		delete(l.claimed, key)
	}
}

// yield gives up this member's claim in favour of another's.
func (n *Node) yield(key plan.Key) {
	if t := n.extents[key]; t != nil {
		t.stop(errYielded)
		n.announce(t, plan.Released)
	} else if r := n.recordOf(key); r != nil {
		n.announceRecord(r, plan.Released)
	}
}

var errYielded = errors.New("another member fetches it")

func (n *Node) heardClaimAck(l *link, m *wire.ClaimAck) {
	key := plan.Key(m.Key)
	n.seats.Acked(time.Now(), l.peer, key, m.Deny)
	if !m.Deny {
		return
	}
	if t := n.extents[key]; t != nil && t.cancel == nil {
		n.announce(t, plan.Released)
	} else if r := n.recordOf(key); r != nil && !r.getting {
		n.announceRecord(r, plan.Released)
	}
}
