package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/time/rate"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
)

var (
	errNotHeld = errors.New("not held")
	errBusy    = errors.New("busy")
)

// taker asks other members for pieces, over streams that it keeps open between
// requests.
type taker struct {
	host  host.Host
	limit *rate.Limiter

	mu      sync.Mutex
	idle    map[plan.Peer][]*pieceStream
	running map[plan.Piece]map[plan.Peer]context.CancelCauseFunc
	free    [][]byte // buffers of pieces.MaxPieceSize or less
	closed  bool
}

type pieceStream struct {
	network.Stream
	r *bufio.Reader
}

func newTaker(h host.Host, limit *rate.Limiter) *taker {
	return &taker{host: h, limit: limit, idle: map[plan.Peer][]*pieceStream{},
		running: map[plan.Piece]map[plan.Peer]context.CancelCauseFunc{}}
}

// request carries out what the planner decided.
func (n *Node) request(now time.Time) {
	for _, r := range n.swap.Next(now) {
		ctx, cancel := context.WithCancelCause(n.ctx)
		n.taker.begin(r, cancel)
		n.tasks.Go(func() error {
			defer cancel(nil)
			n.take(ctx, r)
			n.taker.end(r)
			return nil
		})
	}
}

func (n *Node) take(ctx context.Context, r plan.Request) {
	start := time.Now()
	buf := n.taker.buffer(int(r.Piece.Size()))
	defer n.taker.recycle(buf)
	err := n.taker.fetch(ctx, r, buf)
	took := time.Since(start)
	if err != nil {
		n.post(func() { n.notTaken(r, err) })
		return
	}
	v, err := n.proofs.prove(r.Piece, buf)
	if err != nil {
		n.post(func() { n.badPiece(r, err) })
		return
	}
	if err := n.cfg.Store.Put(ctx, v); err != nil {
		n.post(func() { n.notStored(r, err) })
		return
	}
	n.post(func() {
		n.swap.Arrived(r.Peer, r.Piece, took)
		n.traffic(r.Peer).In += r.Piece.Size()
		n.stored(r.Piece, v.Statement(), r.Peer)
	})
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

// fetch fills buf with the piece's bytes. What arrives is not verified yet.
func (t *taker) fetch(ctx context.Context, r plan.Request, buf []byte) error {
	s, err := t.stream(ctx, r.Peer)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	err = t.exchange(ctx, s, r.Piece, buf)
	if !stop() {
		return context.Cause(ctx)
	}
	if err == nil || errors.Is(err, errNotHeld) || errors.Is(err, errBusy) {
		t.keep(r.Peer, s)
		return err
	}
	s.Reset()
	return err
}

func (t *taker) exchange(ctx context.Context, s *pieceStream, p plan.Piece, buf []byte) error {
	frame, err := wire.Append(nil, &wire.PieceRequest{Blob: p.Blob, Index: p.Index})
	if err != nil {
		return err
	}
	s.SetDeadline(time.Now().Add(pieceIdle))
	if _, err := s.Write(frame); err != nil {
		return err
	}
	if err := t.head(s, len(buf)); err != nil {
		return err
	}
	for at := 0; at < len(buf); {
		s.SetReadDeadline(time.Now().Add(pieceIdle))
		k, err := io.ReadFull(s.r, buf[at:min(at+ioStep, len(buf))])
		if err != nil {
			return err
		}
		at += k
		if err := pass(ctx, t.limit, k); err != nil {
			return err
		}
	}
	return nil
}

func (t *taker) head(s *pieceStream, want int) error {
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
	case reply.Status != wire.OK || reply.Length != int64(want):
		return fmt.Errorf("status %d, %d bytes where %d belong: %w", reply.Status, reply.Length, want, wire.ErrProtocol)
	}
	return nil
}

// stream takes an idle stream to p or opens one.
func (t *taker) stream(ctx context.Context, p plan.Peer) (*pieceStream, error) {
	t.mu.Lock()
	for list := t.idle[p]; len(list) > 0; list = t.idle[p] {
		s := list[len(list)-1]
		t.idle[p] = list[:len(list)-1]
		if !s.Conn().IsClosed() {
			t.mu.Unlock()
			return s, nil
		}
	}
	t.mu.Unlock()
	ctx, cancel := context.WithTimeoutCause(network.WithNoDial(ctx, "pieces go to neighbours"), pieceIdle, errors.New("no piece stream in 10 s"))
	defer cancel()
	s, err := t.host.NewStream(ctx, peerID(p), wire.PieceProtocol)
	if err != nil {
		return nil, fmt.Errorf("open piece stream to %s: %w", peerID(p), err)
	}
	return &pieceStream{s, bufio.NewReaderSize(s, 4096)}, nil
}

func (t *taker) keep(p plan.Peer, s *pieceStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle[p]) >= 8 {
		s.Close()
		return
	}
	t.idle[p] = append(t.idle[p], s)
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

// buffer and recycle keep the piece buffers of finished requests for the next
// ones: the planner's budget bounds how many there are.
func (t *taker) buffer(n int) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, b := range t.free {
		if cap(b) >= n {
			t.free[i] = t.free[len(t.free)-1]
			t.free = t.free[:len(t.free)-1]
			return b[:n]
		}
	}
	size := 64 << 10 // small pieces don't pin large buffers
	for size < n {
		size *= 2
	}
	return make([]byte, n, size)
}

func (t *taker) recycle(b []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const keep = 12
	if len(t.free) < keep && cap(b) >= 4<<20 {
		t.free = append(t.free, b)
	}
}
