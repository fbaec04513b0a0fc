package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// link is a swarm stream with one neighbour: a reader, a writer and what the
// neighbour said. Fields below the line belong to the owner loop.
type link struct {
	peer   plan.Peer
	stream network.Stream
	name   string // set by Hello before the link is known to the loop
	heard  atomic.Int64
	// offered is when its last offer had been checked; in Unix nanoseconds, as heard.
	offered atomic.Int64

	mu    sync.Mutex // guards the queue
	queue []byte
	wake  chan struct{}
	done  chan struct{}
	once  sync.Once
	cause error

	// ---
	wants    map[pieces.Blob]bool
	upstream map[pieces.Blob]bool // wanted, and could be fetched upstream by it
	asks     map[plan.Key]ask     // by task: the last records that it asked for and waits for
	offers   map[pieces.Blob][]pieces.Statement
	claimed  map[plan.Key]int64 // progress of its claims
	told     map[plan.Key]bool  // claims of this member that stand as far as it has heard
	sought   map[plan.Key]bool  // records that this member waits for as far as it has heard
	rate     meter              // what it gets from upstream
	spoke    time.Time          // last frame sent
}

const (
	maxQueue     = 96 << 20 // a neighbour that far behind is not reading
	writeTimeout = 15 * time.Second
)

var (
	errReplaced = errors.New("replaced by a newer stream")
	errDeaf     = errors.New("silent for 12 s")
	errBehind   = errors.New("does not read what it is sent")
)

func newLink(s network.Stream) *link {
	l := &link{
		peer: peerKey(s.Conn().RemotePeer()), stream: s,
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		wants: map[pieces.Blob]bool{}, upstream: map[pieces.Blob]bool{}, asks: map[plan.Key]ask{},
		offers: map[pieces.Blob][]pieces.Statement{}, claimed: map[plan.Key]int64{}, told: map[plan.Key]bool{}, sought: map[plan.Key]bool{},
	}
	l.heard.Store(time.Now().UnixNano())
	return l
}

// send queues a message; it never blocks.
func (l *link) send(m wire.Message) {
	l.mu.Lock()
	q, err := wire.Append(l.queue, m)
	l.queue = q
	l.mu.Unlock()
	switch {
	case err != nil:
		l.close(fmt.Errorf("send to %s: %w", peerID(l.peer), err))
	case len(q) > maxQueue:
		l.close(errBehind)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// close ends the link; the first cause counts.
func (l *link) close(cause error) {
	l.once.Do(func() {
		l.cause = cause
		l.stream.Reset()
		close(l.done)
	})
}

// write sends what is queued until the link is closed.
func (l *link) write() {
	var spare []byte
	for {
		select {
		case <-l.done:
			return
		case <-l.wake:
		}
		l.mu.Lock()
		batch := l.queue
		l.queue = spare[:0]
		l.mu.Unlock()
		l.stream.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := l.stream.Write(batch); err != nil {
			l.close(fmt.Errorf("write to %s: %w", peerID(l.peer), err))
			return
		}
		if spare = batch; cap(spare) > 1<<20 {
			spare = nil
		}
	}
}

// read hands every message to handle until the link is closed.
func (l *link) read(r *bufio.Reader, handle func(wire.Message) error) {
	for {
		m, err := wire.Read(r)
		if err == nil {
			l.heard.Store(time.Now().UnixNano())
			err = handle(m)
		}
		if err != nil {
			l.close(fmt.Errorf("read from %s: %w", peerID(l.peer), err))
			return
		}
	}
}

func (l *link) silence(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, l.heard.Load()))
}

// hello exchanges the first frames in both directions, within the deadline.
func (l *link) hello(r *bufio.Reader, self wire.Hello) error {
	frame, err := wire.Append(nil, &self)
	if err != nil {
		return err
	}
	l.stream.SetDeadline(time.Now().Add(helloTimeout))
	defer l.stream.SetDeadline(time.Time{})
	if _, err := l.stream.Write(frame); err != nil {
		return err
	}
	m, err := wire.Read(r)
	if err != nil {
		return err
	}
	h, ok := m.(*wire.Hello)
	if !ok || h.Version != wire.Version {
		return fmt.Errorf("%T first, of version %d: %w", m, versionOf(h), wire.ErrProtocol)
	}
	l.name = h.Name
	return nil
}

func versionOf(h *wire.Hello) int {
	if h == nil {
		return 0
	}
	return h.Version
}

const helloTimeout = 10 * time.Second

// accept handles a swarm stream opened by another member.
func (n *Node) accept(s network.Stream) {
	n.tasks.Go(func() error { n.run(newLink(s)); return nil })
}

// run lives as long as the link.
func (n *Node) run(l *link) {
	r := bufio.NewReaderSize(l.stream, 64<<10)
	if err := l.hello(r, wire.Hello{Version: wire.Version, Software: n.cfg.Software, Name: n.cfg.Name}); err != nil {
		n.log.Debug("hello", "peer", peerID(l.peer), "err", err)
		l.stream.Reset()
		n.post(func() { n.dialled(l.peer, err) })
		return
	}
	if !n.post(func() { n.linked(l) }) {
		l.stream.Reset()
		return
	}
	n.tasks.Go(func() error { l.write(); return nil })
	stop := context.AfterFunc(n.ctx, func() { l.close(context.Cause(n.ctx)) })
	defer stop()
	l.read(r, func(m wire.Message) error { return n.handle(l, m) })
	n.post(func() { n.unlinked(l) })
}

// dial opens a swarm stream to a member.
func (n *Node) dial(m *member) {
	ctx, cancel := context.WithTimeoutCause(n.ctx, helloTimeout, errors.New("no answer to dialling in 10 s"))
	defer cancel()
	err := Connect(ctx, n.cfg.Host, m.facts)
	var s network.Stream
	if err == nil {
		s, err = n.cfg.Host.NewStream(ctx, peerID(m.peer), wire.SwarmProtocol)
	}
	if err != nil {
		n.post(func() { n.dialled(m.peer, err) })
		return
	}
	n.run(newLink(s))
}
