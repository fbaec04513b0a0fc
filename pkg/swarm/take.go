package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/time/rate"

	"p2pagent/internal/plan"
	"p2pagent/internal/sockopt"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

var (
	errNotHeld = errors.New("not held")
	errBusy    = errors.New("busy")
)

// taker asks other members for pieces, over lanes that it keeps open between
// requests.
type taker struct {
	host  *Host
	limit *rate.Limiter

	mu      sync.Mutex
	idle    map[plan.Peer][]*takenLane
	shut    map[plan.Peer]time.Time // members that lanes of TLS don't reach, until when that is believed
	running map[plan.Piece]map[plan.Peer]context.CancelCauseFunc
	closed  bool
}

// takenLane is a lane at the end that asks.
type takenLane struct {
	lane
	r    *bufio.Reader
	used time.Time // last
}

const (
	// laneSpare is how long a lane is kept for another request, well below
	// laneIdle: the other end must not close it while a request is on its way.
	laneSpare = time.Minute
	lanesKept = 4 // to one member
	// shutFor is how long a member that can't be dialled is asked over the
	// connection that it dialled.
	shutFor = time.Minute
)

func newTaker(h *Host, limit *rate.Limiter) *taker {
	return &taker{host: h, limit: limit, idle: map[plan.Peer][]*takenLane{}, shut: map[plan.Peer]time.Time{},
		running: map[plan.Piece]map[plan.Peer]context.CancelCauseFunc{}}
}

// request carries out what the planner decided.
func (n *Node) request(now time.Time) {
	n.swap.Limit(n.swapMemory())
	for _, r := range n.swap.Next(now) {
		ctx, cancel := context.WithCancelCause(n.ctx)
		n.taker.begin(r, cancel)
		o := order{Request: r}
		if m := n.members[r.Peer]; m != nil {
			o.at = m.facts.addrPorts()
		}
		if s := n.blobs[r.Piece.Blob]; s != nil {
			if o.parts = s.missing(r.Piece); o.parts != nil {
				o.local = s.local()
			}
		}
		n.tasks.Go(func() error {
			defer cancel(nil)
			n.take(ctx, o)
			n.taker.end(r)
			return nil
		})
	}
}

// swapMemory is what the pieces that come from upstream leave of the memory: the
// two are seldom busy at the same time. Two pieces always fit.
func (n *Node) swapMemory() int64 {
	size := n.pieceSize()
	return max(n.cfg.Memory-int64(n.openExtents())*size, 2*size)
}

// order is a request with what it takes to carry it out.
type order struct {
	plan.Request
	at    []netip.AddrPort
	parts []pieces.Part // nil: the whole piece
	local Local         // has the rest
}

// bytes is how many are asked for.
func (o *order) bytes() int64 {
	if o.parts == nil {
		return o.Piece.Size()
	}
	return pieces.SizeOf(o.parts)
}

func (n *Node) take(ctx context.Context, o order) {
	start := time.Now()
	r := o.Request
	buf := n.cfg.Buffers.Get(int(r.Piece.Size()))
	defer n.cfg.Buffers.Put(buf)
	err := n.taker.fetch(ctx, o, buf)
	took := time.Since(start)
	if err != nil {
		n.post(func() { n.notTaken(r, err) })
		return
	}
	v, err := n.prove(o, buf)
	if err != nil {
		n.post(func() { n.badPiece(r, err) })
		return
	}
	if err := n.cfg.Store.Put(ctx, v); err != nil {
		n.post(func() { n.notStored(r, err) })
		return
	}
	n.took.Observe(took)
	n.post(func() {
		n.swap.Arrived(r.Peer, r.Piece, took)
		n.traffic(r.Peer).In += o.bytes()
		n.stored(r.Piece, v.Statement(), r.Peer, o.bytes())
	})
}

// errUnfit is for a piece that is not right with what is here: whose fault that is
// can't be said.
var errUnfit = errors.New("it does not match with what is here")

// prove puts in what is here, and compares the piece with a statement.
func (n *Node) prove(o order, buf []byte) (pieces.Verified, error) {
	if o.local == nil {
		return n.proofs.prove(o.Piece, buf)
	}
	if err := o.local.Fill(o.Piece.Blob, o.Piece.Index, buf); err != nil {
		return pieces.Verified{}, fmt.Errorf("%w: %w", errUnfit, err)
	}
	v, err := n.proofs.prove(o.Piece, buf)
	if errors.Is(err, pieces.ErrDigest) {
		err = fmt.Errorf("%w: %w", errUnfit, err)
	}
	return v, err
}

// notTaken has the piece asked of somebody else.
func (n *Node) notTaken(r plan.Request, err error) {
	now := time.Now()
	rest := 500 * time.Millisecond
	switch {
	case errors.Is(err, errNotHeld):
		n.swap.Lacks(r.Peer, r.Piece)
		n.touch(r.Piece.Blob, r.Piece.Index)
		rest = 0
	case errors.Is(err, errBusy):
		rest = 200 * time.Millisecond
	case errors.Is(err, errElsewhere):
		rest = 0
	default:
		n.log.Debug("take piece", "peer", peerID(r.Peer), "piece", r.Piece.Index, "blob", r.Piece.Blob, "err", err)
	}
	n.swap.Failed(now, r.Peer, r.Piece, rest)
}

func (n *Node) notStored(r plan.Request, err error) {
	n.swap.Failed(time.Now(), r.Peer, r.Piece, 0)
	if s := n.blobs[r.Piece.Blob]; s != nil && !errors.Is(err, context.Canceled) {
		n.failAll(s, fmt.Errorf("store piece %d of %s: %w", r.Piece.Index, r.Piece.Blob, err))
	}
}

func (t *taker) begin(r plan.Request, cancel context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[r.Piece] == nil {
		t.running[r.Piece] = map[plan.Peer]context.CancelCauseFunc{}
	}
	t.running[r.Piece][r.Peer] = cancel
}

func (t *taker) end(r plan.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.running[r.Piece], r.Peer)
	if len(t.running[r.Piece]) == 0 {
		delete(t.running, r.Piece)
	}
}

// cancel ends the request to p for the piece, if there is one.
func (t *taker) cancel(p plan.Peer, piece plan.Piece, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cancel := t.running[piece][p]; cancel != nil {
		cancel(cause)
	}
}

func (t *taker) cancelPiece(piece plan.Piece, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, cancel := range t.running[piece] {
		cancel(cause)
	}
}

// fetch puts the bytes that are asked for into buf. What arrives is not verified
// yet.
func (t *taker) fetch(ctx context.Context, o order, buf []byte) error {
	s, err := t.lane(ctx, o.Peer, o.at)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	err = t.exchange(ctx, s, o, buf)
	if !stop() {
		return context.Cause(ctx)
	}
	if err == nil || errors.Is(err, errNotHeld) || errors.Is(err, errBusy) {
		t.keep(o.Peer, s)
		return err
	}
	s.Reset()
	return err
}

func (t *taker) exchange(ctx context.Context, s *takenLane, o order, buf []byte) error {
	frame, err := wire.Append(nil, o.message())
	if err != nil {
		return err
	}
	s.SetWriteDeadline(time.Now().Add(pieceIdle))
	s.SetReadDeadline(time.Now().Add(pieceIdle))
	if _, err := s.Write(frame); err != nil {
		return err
	}
	left := o.bytes()
	if err := t.head(s, left); err != nil {
		return err
	}
	parts := o.parts
	if parts == nil {
		parts = []pieces.Part{{N: left}}
	}
	for _, p := range parts {
		if err := t.receive(ctx, s, buf[p.Off:p.Off+p.N], left); err != nil {
			return err
		}
		left -= p.N
	}
	return nil
}

// receive fills buf; left is how much will come in all.
func (t *taker) receive(ctx context.Context, s *takenLane, buf []byte, left int64) error {
	for len(buf) > 0 {
		step := buf[:min(ioStep, len(buf))]
		s.batch(left > sockopt.BatchFloor)
		s.SetReadDeadline(time.Now().Add(pieceIdle))
		k, err := io.ReadFull(s.r, step)
		if err != nil {
			return err
		}
		buf, left = buf[k:], left-int64(k)
		if err := pass(ctx, t.limit, k); err != nil {
			return err
		}
	}
	return nil
}

func (o *order) message() wire.Message {
	if o.parts == nil {
		return &wire.PieceRequest{Blob: o.Piece.Blob, Index: o.Piece.Index}
	}
	m := &wire.PartRequest{Blob: o.Piece.Blob, Index: o.Piece.Index}
	for _, p := range o.parts {
		m.Parts = append(m.Parts, wire.Part{Off: p.Off, N: p.N})
	}
	return m
}

func (t *taker) head(s *takenLane, want int64) error {
	m, err := wire.Read(s.r)
	if err != nil {
		return err
	}
	reply, ok := m.(*wire.PieceReply)
	switch {
	case !ok:
		return fmt.Errorf("%T in answer to a request: %w", m, wire.ErrProtocol)
	case reply.Status == wire.NotHeld:
		return errNotHeld
	case reply.Status == wire.Busy:
		return errBusy
	case reply.Status != wire.OK || reply.Length != want:
		return fmt.Errorf("status %d, %d bytes where %d belong: %w", reply.Status, reply.Length, want, wire.ErrProtocol)
	}
	return nil
}

// batch says that a good deal more than what is read next will follow.
func (s *takenLane) batch(on bool) {
	if l, ok := s.lane.(*tlsLane); ok {
		l.batch(on)
	}
}

// lane takes an idle lane to p or opens one.
func (t *taker) lane(ctx context.Context, p plan.Peer, at []netip.AddrPort) (*takenLane, error) {
	if s := t.spare(p, time.Now()); s != nil {
		return s, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, pieceIdle, errors.New("no lane in 10 s"))
	defer cancel()
	l, err := t.open(ctx, p, at)
	if err != nil {
		return nil, err
	}
	return &takenLane{lane: l, r: bufio.NewReaderSize(l, 4096)}, nil
}

// spare returns an idle lane to p that is still good, or nil.
func (t *taker) spare(p plan.Peer, now time.Time) *takenLane {
	t.trim(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.idle[p]
	if len(list) == 0 {
		return nil
	}
	t.idle[p] = list[:len(list)-1]
	return list[len(list)-1]
}

// open dials a lane or, where that fails, opens a stream on the connection that
// the neighbours have: only one of the two may be able to dial the other.
func (t *taker) open(ctx context.Context, p plan.Peer, at []netip.AddrPort) (lane, error) {
	if t.dials(p) {
		l, err := t.host.lanes.dial(ctx, peerID(p), at)
		if err == nil {
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		t.avoid(p)
	}
	s, err := t.host.NewStream(network.WithNoDial(ctx, "pieces go to neighbours"), peerID(p), wire.PieceProtocol)
	if err != nil {
		return nil, fmt.Errorf("open lane to %s over its own connection: %w", peerID(p), err)
	}
	return s, nil
}

func (t *taker) dials(p plan.Peer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().After(t.shut[p])
}

func (t *taker) avoid(p plan.Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shut[p] = time.Now().Add(shutFor)
}

func (t *taker) keep(p plan.Peer, s *takenLane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle[p]) >= lanesKept {
		s.Reset()
		return
	}
	s.used = time.Now()
	t.idle[p] = append(t.idle[p], s)
}

// trim ends lanes that nobody used for so long: the other end is about to, and an
// idle member is to hold nothing.
func (t *taker) trim(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, list := range t.idle {
		list = slices.DeleteFunc(list, func(s *takenLane) bool {
			old := now.Sub(s.used) >= laneSpare
			if old {
				s.Reset()
			}
			return old
		})
		if t.idle[p] = list; len(list) == 0 {
			delete(t.idle, p)
		}
	}
}

// forget drops what is kept for a member that is a neighbour no more.
func (t *taker) forget(p plan.Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.idle[p] {
		s.Reset()
	}
	delete(t.idle, p)
	delete(t.shut, p)
}

func (t *taker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, list := range t.idle {
		for _, s := range list {
			s.Reset()
		}
	}
	clear(t.idle)
}
