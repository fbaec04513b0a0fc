package swarm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// ErrNoRecord tells that no member has a record and nobody was to make it.
var ErrNoRecord = errors.New("no such record in the swarm")

// record is something small that one member learns for all: what a branch
// resolves to, the outline of a commit. One member of those that ask gets it, by
// the same claims as extents.
type record struct {
	key     string
	task    plan.Key
	get     func(context.Context) ([]byte, error)
	ctx     context.Context
	maxAge  time.Duration
	waiters map[chan recordResult]bool
	ready   bool // the neighbours have answered
	getting bool
	added   bool
	ticks   int64
	told    time.Time

	value []byte    // what is known, with its proof
	made  time.Time // zero: nothing is
	maker pieces.Maker
	sig   []byte
}

type recordResult struct {
	value []byte
	err   error
}

const recordContext = "record v1"

func recordMessage(key string, value []byte) []byte {
	return append([]byte(key+"\x00"), value...)
}

func sha(s string) [32]byte { return sha256.Sum256([]byte("p2pagent record v1\x00" + s)) }

// Record returns the record under key, made at most maxAge ago. It comes from
// this member's memory, else from another member, else from get, which one
// member of all that ask at this time runs. With a nil get, ErrNoRecord is the
// answer when nobody has it. Errors of get come back as they are.
func (n *Node) Record(ctx context.Context, key string, maxAge time.Duration, get func(context.Context) ([]byte, error)) ([]byte, error) {
	if n.cfg.Records != nil {
		if value, ok := n.cfg.Records(key); ok {
			return value, nil
		}
	}
	wait := make(chan recordResult, 1)
	if err := n.call(ctx, func() { n.askRecord(ctx, key, maxAge, get, wait) }); err != nil {
		return nil, err
	}
	select {
	case r := <-wait:
		return r.value, r.err
	case <-n.stopped:
		return nil, errStopped
	case <-ctx.Done():
		n.post(func() { n.leaveRecord(key, wait) })
		return nil, fmt.Errorf("get record %s: %w", key, context.Cause(ctx))
	}
}

func (n *Node) askRecord(ctx context.Context, key string, maxAge time.Duration, get func(context.Context) ([]byte, error), wait chan recordResult) {
	r := n.records[key]
	if r == nil {
		r = &record{key: key, task: plan.Key(sha(key)), waiters: map[chan recordResult]bool{}}
		n.records[key] = r
	}
	if r.fresh(maxAge) {
		wait <- recordResult{value: r.value}
		return
	}
	r.waiters[wait] = true
	r.maxAge = maxAge
	if get != nil || r.get == nil {
		r.get, r.ctx = get, ctx
	}
	if len(r.waiters) > 1 {
		return
	}
	r.ready = false
	n.startRound(func() { n.recordAsked(r) }, func(l *link, seq uint64) { n.sendAskSeq(l, r, seq) })
}

func (r *record) known() bool { return !r.made.IsZero() }

func (r *record) fresh(maxAge time.Duration) bool {
	return r.known() && time.Since(r.made) <= maxAge
}

func (r *record) fail(err error) { r.answer(recordResult{err: err}) }

func (r *record) answer(res recordResult) {
	for w := range r.waiters {
		w <- res
	}
	clear(r.waiters)
}

func (n *Node) leaveRecord(key string, wait chan recordResult) {
	r := n.records[key]
	if r == nil {
		return
	}
	delete(r.waiters, wait)
	if len(r.waiters) == 0 {
		n.unclaimRecord(r)
	}
}

// unclaimRecord ends what this member does to get a record that nobody here waits for
// any more, but for a get that runs: its claim stands until that returns.
func (n *Node) unclaimRecord(r *record) {
	n.seats.Remove(r.task)
	if r.added = false; !r.getting {
		n.announceRecord(r, plan.Released)
	}
	for _, l := range n.links {
		if l.sought[r.task] {
			delete(l.sought, r.task)
			l.send(&wire.Claim{Key: r.task, State: wire.Unasked})
		}
	}
}

// heardUnasked takes back a question: who does not wait for a record is nobody's rival
// for it, and need not be sent it.
func (n *Node) heardUnasked(l *link, task plan.Key) {
	if n.links[l.peer] == l {
		delete(l.asks, task)
		n.seats.SetRival(task, l.peer, false)
	}
}

func (n *Node) sendAsk(l *link, r *record) {
	if len(r.waiters) > 0 {
		n.seq++
		n.sendAskSeq(l, r, n.seq)
	}
}

func (n *Node) sendAskSeq(l *link, r *record, seq uint64) {
	l.sought[r.task] = true
	l.send(&wire.Ask{Seq: seq, Upstream: r.get != nil && n.cfg.Upstream, Key: r.key, MaxAge: int64(r.maxAge / time.Second)})
}

// recordAsked goes on when every neighbour has answered.
func (n *Node) recordAsked(r *record) {
	r.ready = true
	if len(r.waiters) == 0 {
		return
	}
	if r.get == nil {
		n.unclaimRecord(r)
		r.fail(fmt.Errorf("get record %s: %w", r.key, ErrNoRecord))
		return
	}
	if !n.cfg.Upstream {
		return // somebody else must
	}
	r.added = true
	n.seats.Add(r.task, r.task, plan.Key{})
	n.seats.SetNeeded(r.task, true)
	for _, l := range n.links {
		n.seats.SetRival(r.task, l.peer, l.asks[r.task].upstream)
	}
}

func (n *Node) recordOf(task plan.Key) *record {
	for _, r := range n.records {
		if r.task == task {
			return r
		}
	}
	return nil
}

func (n *Node) openRecords() int {
	open := 0
	own := n.seats.Own()
	for _, r := range n.records {
		if _, ok := own[r.task]; ok {
			open++
		}
	}
	return open
}

// claimRecords asks for the records that wait: the pace does not hold them up.
func (n *Node) claimRecords(now time.Time) {
	for _, r := range n.records {
		if !r.added || r.getting {
			continue
		}
		if a, ok := n.seats.Claim(now, r.task); ok {
			for _, p := range a.To {
				if l := n.links[p]; l != nil {
					l.claim(r.task, plan.Asking, 0)
				}
			}
		}
	}
}

func (n *Node) startRecord(r *record) {
	r.getting, r.told = true, time.Now()
	n.announceRecord(r, plan.Fetching)
	get, ctx := r.get, r.ctx
	n.tasks.Go(func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stop := context.AfterFunc(n.ctx, func() { cancel(errStopped) })
		defer stop()
		value, err := get(ctx)
		n.post(func() { n.recordGot(r, value, err) })
		return nil
	})
}

func (n *Node) recordGot(r *record, value []byte, err error) {
	r.getting = false
	n.seats.Finished(time.Now(), r.task, err != nil)
	if err == nil {
		sig := n.cfg.Signer.Sign(recordContext, recordMessage(r.key, value))
		n.learnRecord(r, value, time.Now(), n.cfg.Signer.Maker(), sig)
	} else {
		n.unclaimRecord(r)
		r.fail(err)
	}
	n.announceRecord(r, plan.Released)
}

// passOnWait is how long a record is kept before it is passed on that another member
// made. Most neighbours have it from its maker by then, and have said so: a large
// outline is not to go from everybody to everybody.
const passOnWait = time.Second

// passOn sends a record to the neighbours that wait for it.
func (n *Node) passOn(r *record) {
	for _, l := range n.links {
		if _, asked := l.asks[r.task]; asked {
			n.sendRecord(l, r)
		}
	}
}

// learnRecord keeps a record, answers those who wait for it here, and has it sent to
// the neighbours that do.
func (n *Node) learnRecord(r *record, value []byte, made time.Time, maker pieces.Maker, sig []byte) {
	if r.known() && !made.After(r.made) {
		return
	}
	r.value, r.made, r.maker, r.sig = value, made, maker, sig
	if maker == n.cfg.Signer.Maker() {
		n.passOn(r)
	} else {
		n.later = append(n.later, delayed{time.Now().Add(passOnWait), func() { n.passOn(r) }})
	}
	if r.fresh(r.maxAge) || r.getting {
		n.unclaimRecord(r)
		r.answer(recordResult{value: value})
	}
}

func (n *Node) sendRecord(l *link, r *record) {
	delete(l.asks, r.task)
	age := int64(time.Since(r.made) / time.Second)
	l.send(&wire.Record{Key: r.key, Value: r.value, Age: age, Maker: r.maker, Sig: r.sig})
}

// announceRecord tells the neighbours that asked for the record about the claim.
func (n *Node) announceRecord(r *record, state plan.ClaimState) {
	for _, l := range n.links {
		if l.hears(r.task, state, l.asks[r.task].upstream) {
			l.claim(r.task, state, r.ticks)
		}
	}
}

// tellRecords counts the seconds that a get has been running: it has no other
// progress, and its own deadlines bound it.
func (n *Node) tellRecords(now time.Time) {
	for _, r := range n.records {
		if r.getting && now.Sub(r.told) >= tellEvery {
			r.told = now
			r.ticks++
			n.seats.Moved(now, r.task, r.ticks)
			n.announceRecord(r, plan.Fetching)
		}
	}
}

// recordLife is how long a record is remembered for others after it was made.
// What outlives that, outlines of what is cached here, is on the disk.
const recordLife = time.Hour

// dropRecords forgets the records that nobody waits for and that are old.
func (n *Node) dropRecords(now time.Time) {
	for key, r := range n.records {
		if len(r.waiters) == 0 && !r.getting && !r.added && now.Sub(r.made) > recordLife {
			delete(n.records, key)
		}
	}
}

// handleAsk notes the neighbour's interest, looks the record up, on the disk if
// need be, and answers.
func (n *Node) handleAsk(l *link, m *wire.Ask) error {
	var fromDisk []byte
	if n.cfg.Records != nil {
		fromDisk, _ = n.cfg.Records(m.Key)
	}
	n.post(func() { n.heardAsk(l, m, fromDisk) })
	return nil
}

// ask is a question of a neighbour for a record.
type ask struct {
	upstream bool   // it could get the record itself
	seq      uint64 // the neighbour's own count
}

// noteAsk forgets the oldest question when there are too many.
func (l *link) noteAsk(m *wire.Ask) {
	key := plan.Key(sha(m.Key))
	if _, again := l.asks[key]; !again && len(l.asks) >= maxAsks {
		delete(l.asks, slices.MinFunc(slices.Collect(maps.Keys(l.asks)), func(a, b plan.Key) int { return cmp.Compare(l.asks[a].seq, l.asks[b].seq) }))
	}
	l.asks[key] = ask{m.Upstream, m.Seq}
}

func (n *Node) heardAsk(l *link, m *wire.Ask, fromDisk []byte) {
	if n.links[l.peer] != l {
		return
	}
	l.noteAsk(m)
	r := n.records[m.Key]
	switch {
	case fromDisk != nil:
		sig := n.cfg.Signer.Sign(recordContext, recordMessage(m.Key, fromDisk))
		n.sendRecord(l, &record{key: m.Key, value: fromDisk, made: time.Now(), maker: n.cfg.Signer.Maker(), sig: sig})
	case r != nil && r.fresh(time.Duration(m.MaxAge)*time.Second):
		n.sendRecord(l, r)
	case r != nil:
		n.seats.SetRival(r.task, l.peer, m.Upstream)
	}
	n.sendClaims(l)
	l.send(&wire.AskAck{Seq: m.Seq})
}

func (n *Node) handleRecord(l *link, m *wire.Record) error {
	if err := m.Maker.CheckSign(recordContext, recordMessage(m.Key, m.Value), m.Sig); err != nil {
		return err
	}
	n.post(func() { n.heardRecord(l, m) })
	return nil
}

// heardRecord takes a record only when it was asked for here, and only from a
// maker that this member knows: the neighbour itself or another member.
func (n *Node) heardRecord(l *link, m *wire.Record) {
	r := n.records[m.Key]
	if r == nil || !n.current(l) || !n.known(l, m.Maker) {
		return
	}
	made := time.Now().Add(-time.Duration(m.Age) * time.Second)
	n.learnRecord(r, m.Value, made, m.Maker, m.Sig)
}

func (n *Node) known(l *link, maker pieces.Maker) bool {
	id, err := PeerOf(maker)
	if err != nil {
		return false
	}
	p := peerKey(id)
	return p == l.peer || p == n.self || n.members[p] != nil || n.links[p] != nil
}
