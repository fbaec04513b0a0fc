package swarm

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
)

const (
	ioStep       = 256 << 10        // bytes written or read at once
	pieceIdle    = 10 * time.Second // a lane on which nothing moves for so long is dead
	laneIdle     = 2 * time.Minute  // an unused lane is closed
	slotPatience = time.Second      // how long a request waits for an upload slot
)

// server answers piece requests. A fixed number of slots bounds what is sent at
// once; a request that gets none in time is told to come back.
type server struct {
	store Store
	slots chan struct{}
	limit *rate.Limiter
	bufs  sync.Pool
	sent  func(peer.ID, int64)
}

func newServer(s Store, slots int, limit *rate.Limiter) *server {
	return &server{store: s, slots: make(chan struct{}, slots), limit: limit,
		bufs: sync.Pool{New: func() any { return new([ioStep]byte) }}}
}

// serveLanes serves those that other members open.
func (n *Node) serveLanes(ctx context.Context) error {
	for {
		select {
		case l := <-n.cfg.Host.lanes.arrived:
			n.servePieces(l, l.peer)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *Node) servePieces(s lane, to peer.ID) {
	n.tasks.Go(func() error {
		stop := context.AfterFunc(n.ctx, func() { s.Reset() })
		defer stop()
		if err := n.server.serve(n.ctx, s, to); err != nil {
			n.log.Debug("serve pieces", "peer", to, "err", err)
			s.Reset()
			return nil
		}
		s.Close()
		return nil
	})
}

// serve answers requests until the lane ends.
func (sv *server) serve(ctx context.Context, s lane, to peer.ID) error {
	r := bufio.NewReaderSize(s, 4096)
	for {
		s.SetReadDeadline(time.Now().Add(laneIdle))
		m, err := wire.Read(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *wire.PieceRequest:
			err = sv.answer(ctx, s, to, plan.Piece{Blob: m.Blob, Index: m.Index}, nil)
		case *wire.PartRequest:
			err = sv.answer(ctx, s, to, plan.Piece{Blob: m.Blob, Index: m.Index}, m.Parts)
		default:
			err = fmt.Errorf("%T on a lane: %w", m, wire.ErrProtocol)
		}
		if err != nil {
			return err
		}
	}
}

// answer sends a piece, or parts of it.
func (sv *server) answer(ctx context.Context, s lane, to peer.ID, p plan.Piece, parts []wire.Part) error {
	if !sv.acquire(ctx) {
		return reply(s, wire.Busy, 0)
	}
	defer func() { <-sv.slots }()
	content, err := sv.store.OpenPiece(p.Blob, p.Index)
	if err != nil {
		return reply(s, wire.NotHeld, 0)
	}
	defer content.Close()
	from, length := sections(content, p.Size(), parts)
	if err := reply(s, wire.OK, length); err != nil {
		return err
	}
	if err := sv.copy(ctx, s, corrupt(from), length); err != nil {
		return fmt.Errorf("send piece %d of %s: %w", p.Index, p.Blob, err)
	}
	sv.sent(to, length)
	return nil
}

// sections returns a reader of the parts of a piece, and how long they are.
func sections(content io.Reader, size int64, parts []wire.Part) (io.Reader, int64) {
	if parts == nil {
		return content, size
	}
	var list []io.Reader
	var at, length int64
	for _, p := range parts {
		list = append(list, &skipping{content, p.Off - at}, io.LimitReader(content, p.N))
		at, length = p.Off+p.N, length+p.N
	}
	return io.MultiReader(list...), length
}

// skipping goes over bytes, and has none.
type skipping struct {
	from io.Reader
	n    int64
}

// Read implements io.Reader.
func (s *skipping) Read([]byte) (int, error) {
	seeker, ok := s.from.(io.Seeker)
	var err error
	if ok {
		_, err = seeker.Seek(s.n, io.SeekCurrent)
	} else {
		_, err = io.CopyN(io.Discard, s.from, s.n)
	}
	return 0, cmp.Or(err, io.EOF)
}

func (sv *server) acquire(ctx context.Context) bool {
	select {
	case sv.slots <- struct{}{}:
		return true
	default:
	}
	wait := time.NewTimer(slotPatience)
	defer wait.Stop()
	select {
	case sv.slots <- struct{}{}:
		return true
	case <-wait.C:
		return false
	case <-ctx.Done():
		return false
	}
}

// copy sends length bytes, or fails.
func (sv *server) copy(ctx context.Context, s lane, content io.Reader, length int64) error {
	buf := sv.bufs.Get().(*[ioStep]byte)
	defer sv.bufs.Put(buf)
	for {
		k, err := content.Read(buf[:])
		if k > 0 {
			if err := pass(ctx, sv.limit, k); err != nil {
				return err
			}
			s.SetWriteDeadline(time.Now().Add(pieceIdle))
			if _, err := s.Write(buf[:k]); err != nil {
				return err
			}
			length -= int64(k)
		}
		switch {
		case err == io.EOF && length > 0: // somebody cut the file short
			return io.ErrUnexpectedEOF
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// pass waits until the limiter, if any, lets k bytes through.
func pass(ctx context.Context, l *rate.Limiter, k int) error {
	if l == nil {
		return nil
	}
	return l.WaitN(ctx, k)
}

func reply(s lane, status wire.Status, length int64) error {
	frame, err := wire.Append(nil, &wire.PieceReply{Status: status, Length: length})
	if err != nil {
		return err
	}
	s.SetWriteDeadline(time.Now().Add(pieceIdle))
	_, err = s.Write(frame)
	return err
}
