package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"p2pagent/internal/buffers"
	"p2pagent/internal/histogram"
	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// Store is where a Node keeps pieces and what it offers to others. All methods
// may be called concurrently.
type Store interface {
	// Held returns which pieces of b are here, as a copy, or nil when none are
	// known.
	Held(b pieces.Blob) *pieces.Set
	// Statements returns the proofs of the held pieces, ascending.
	Statements(b pieces.Blob) []pieces.Statement
	// OpenPiece opens a held piece for reading.
	OpenPiece(b pieces.Blob, index int) (io.ReadCloser, error)
	// Put stores a piece. It does not keep v.Bytes() after it returns.
	Put(ctx context.Context, v pieces.Verified) error
	BlobStore
}

// BlobStore is the part of a Store that deals with whole blobs.
type BlobStore interface {
	// Complete is called once all pieces of b are held: it compares the whole
	// with b's digest and publishes it. An error that wraps pieces.ErrDigest
	// says that the whole is not what the digest says.
	Complete(ctx context.Context, b pieces.Blob) error
	// Forget un-holds the pieces whose statement is to be dropped.
	Forget(b pieces.Blob, drop func(pieces.Statement) bool) error
}

// Upstream fetches extents for one job.
type Upstream interface {
	// Fetch gets those pieces of e that need names and puts each. It calls
	// progress with the number of bytes as they come. An error that says
	// Permanent() (bool) means that this member can't fetch the job at all.
	Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool,
		put func(context.Context, pieces.Verified) error, progress func(n int64)) error
}

// Membership is what a Node needs of Members.
type Membership interface {
	Broadcast(msg []byte) error
	Settled() <-chan struct{}
}

// Config is what a Node is made of. Host, Members, Store and Signer must be set.
type Config struct {
	Host                       *Host
	Members                    Membership
	Store                      Store
	Signer                     pieces.Signer
	Name                       string                                  // how this member calls itself
	Software                   string                                  // and what it runs
	Records                    func(key string) ([]byte, bool)         // records known from disk; may block on the disk
	Answers                    func(topic string) []byte               // what this member says on a topic, nil when it knows none; may block on the disk
	Ranges                     int                                     // extents that this member fetches at once, at most; default 8
	Memory                     int64                                   // bytes of unfinished pieces, and of them that Upstream can hold, default 32 MiB
	Buffers                    *buffers.Pool                           // where they lie, default a pool of Memory bytes
	Fetchers                   int                                     // members that fetch upstream for one job, default 8
	Upstream                   bool                                    // this member may fetch upstream
	Neighbours                 int                                     // members to keep a swarm stream with, default DefaultNeighbours
	Uploads                    int                                     // pieces sent at once, default 8
	UploadLimit, DownloadLimit int64                                   // bytes a second, 0 for none
	OnHold                     func(bucket string, wait time.Duration) // another member was told to wait
	// OnRollout takes what another member, by its peer id, asks this one to hold. It
	// reports until it has no more to say, ctx ends or report fails. Without it all are
	// refused.
	OnRollout func(ctx context.Context, from string, order wire.Rollout, report func(wire.Report) error) error
	Logger    *slog.Logger
}

// DefaultNeighbours is how many members a node keeps a swarm stream with. Up to
// one more than that everybody is everybody's neighbour, and upstream sends one
// copy whoever starts when. In a larger swarm two members that start together
// and are no neighbours don't know of each other's claims. An idle stream costs
// a ping in three seconds and some 60 KiB.
const DefaultNeighbours = 256

const defaultMemory = 32 << 20

// Node is one member at work. New starts nothing; Run does.
type Node struct {
	cfg  Config
	log  *slog.Logger
	self plan.Peer

	events  chan func() // run by the owner loop, one at a time
	stopped chan struct{}
	tasks   *errgroup.Group // what Run waits for
	ctx     context.Context
	took    histogram.Durations // of pieces that members sent
	answers chan struct{}       // one slot for each inquiry that is answered

	proofs *proofs
	server *server
	taker  *taker
	copies chan struct{} // held by the job that copies

	reporting chan struct{} // slots of rollouts that are reported on

	// All below belongs to the owner loop.
	members  map[plan.Peer]*member
	links    map[plan.Peer]*link
	readers  *plan.Readers
	swap     *plan.Swap
	seats    *plan.Seats
	bans     *plan.Bans
	pace     *plan.Pace
	paced    time.Time
	jobs     map[*job]bool
	blobs    map[pieces.Blob]*blobState
	extents  map[plan.Key]*extentTask
	records  map[string]*record
	rounds   map[uint64]*round
	seq      uint64
	stats    map[plan.Peer]*Traffic
	count    Counters // without In and Out, which stats has
	upRate   meter
	hints    hints
	extra    map[plan.Peer]bool // neighbours because of a hint
	later    []delayed
	summed   time.Time // when the last summary went out
	summedAt int       // and how many pieces it told of
}

// Traffic counts the bytes of verified pieces exchanged with one member.
type Traffic struct{ In, Out int64 }

const (
	pingEvery = 3 * time.Second
	deafAfter = 12 * time.Second // a neighbour that says nothing for so long is gone
	banLength = 10 * time.Minute
)

// New returns a node that takes part once Run is called.
func New(c Config) (*Node, error) {
	if c.Host == nil || c.Members == nil || c.Store == nil {
		return nil, errors.New("new swarm node: host, members and store are needed")
	}
	c.Fetchers, c.Neighbours, c.Uploads = cmp.Or(c.Fetchers, 8), cmp.Or(c.Neighbours, DefaultNeighbours), cmp.Or(c.Uploads, 8)
	c.Memory = cmp.Or(c.Memory, defaultMemory)
	if c.Buffers == nil {
		c.Buffers = buffers.New(c.Memory)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnRollout == nil {
		c.OnRollout = noRollouts
	}
	self := peerKey(c.Host.ID())
	readers := plan.NewReaders()
	n := &Node{
		cfg: c, log: c.Logger, self: self,
		events: make(chan func(), 256), stopped: make(chan struct{}), answers: make(chan struct{}, maxAnswers),
		reporting: make(chan struct{}, rolloutsServed),
		proofs:    newProofs(), copies: make(chan struct{}, 1),
		server:  newServer(c.Store, c.Uploads, limiter(c.UploadLimit)),
		taker:   newTaker(c.Host, limiter(c.DownloadLimit)),
		members: map[plan.Peer]*member{}, links: map[plan.Peer]*link{},
		readers: readers,
		swap:    plan.NewSwap(self, plan.SwapOptions{Seed: plan.Score(self, []byte("order")), Readers: readers}),
		seats:   plan.NewSeats(self, plan.SeatOptions{Fetchers: c.Fetchers}),
		bans:    plan.NewBans(banLength), pace: plan.NewPace(cmp.Or(c.Ranges, 8)),
		jobs: map[*job]bool{}, blobs: map[pieces.Blob]*blobState{}, extents: map[plan.Key]*extentTask{},
		records: map[string]*record{}, rounds: map[uint64]*round{}, stats: map[plan.Peer]*Traffic{},
		hints: hints{}, extra: map[plan.Peer]bool{},
	}
	n.server.sent = func(p peer.ID, bytes int64) { n.post(func() { n.traffic(peerKey(p)).Out += bytes }) }
	return n, nil
}

func limiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond/4, ioStep)))
}

func peerKey(id peer.ID) plan.Peer { return plan.Peer(id) }
func peerID(p plan.Peer) peer.ID   { return peer.ID(p) }

// Run takes part in the swarm until ctx ends, then leaves: streams are closed,
// jobs end with ctx's cause, and every goroutine of the node has returned.
func (n *Node) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	n.tasks, n.ctx = g, gctx
	n.cfg.Host.SetStreamHandler(wire.SwarmProtocol, n.accept)
	n.cfg.Host.SetStreamHandler(wire.PieceProtocol, func(s network.Stream) { n.servePieces(s, s.Conn().RemotePeer()) })
	n.cfg.Host.SetStreamHandler(wire.InquiryProtocol, n.answerInquiry)
	n.cfg.Host.SetStreamHandler(wire.RolloutProtocol, n.serveRollout)
	g.Go(func() error { return n.loop(gctx) })
	g.Go(func() error { return n.serveLanes(gctx) })
	<-gctx.Done()
	n.cfg.Host.RemoveStreamHandler(wire.SwarmProtocol)
	n.cfg.Host.RemoveStreamHandler(wire.PieceProtocol)
	n.cfg.Host.RemoveStreamHandler(wire.InquiryProtocol)
	n.cfg.Host.RemoveStreamHandler(wire.RolloutProtocol)
	err := g.Wait()
	n.taker.close()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// loop owns the planners: it runs events one at a time and, when none is
// waiting, decides what to do next.
func (n *Node) loop(ctx context.Context) error {
	defer n.shutdown()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-n.events:
			f()
			n.drain()
		case <-timer.C:
		}
		timer.Reset(n.step(time.Now()))
	}
}

// drain runs the events that wait already: one decision for many of them.
func (n *Node) drain() {
	for range cap(n.events) {
		select {
		case f := <-n.events:
			f()
		default:
			return
		}
	}
}

// post hands an event to the owner loop. It tells whether the loop will run it.
func (n *Node) post(f func()) bool {
	select {
	case n.events <- f:
		return true
	case <-n.stopped:
		return false
	}
}

// call runs f in the owner loop and waits for it.
func (n *Node) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if !n.post(func() { f(); close(done) }) {
		return errStopped
	}
	select {
	case <-done:
		return nil
	case <-n.stopped:
		return errStopped
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errStopped = errors.New("swarm node stopped")

// step makes every decision that is due and returns how long none will be.
func (n *Node) step(now time.Time) time.Duration {
	n.runDelayed(now)
	n.tend(now)
	n.summarise(now)
	n.watchJobs(now)
	n.finishRounds(now)
	n.refreshNeeds()
	n.claim(now)
	n.startClaimed(now)
	n.request(now)
	n.flush()
	return n.nap(now)
}

func (n *Node) nap(now time.Time) time.Duration {
	nap := time.Second
	if len(n.rounds)+len(n.later) > 0 || n.swap.Waiting() {
		nap = 50 * time.Millisecond
	}
	if at := n.seats.Wake(now); !at.IsZero() {
		nap = min(nap, max(at.Sub(now), time.Millisecond))
	}
	return nap
}

func (n *Node) shutdown() {
	close(n.stopped)
	for _, l := range n.links {
		l.close(errStopped)
	}
	for j := range n.jobs {
		j.end(fmt.Errorf("fetch %s: %w", j.Name, errStopped))
	}
	for _, t := range n.extents {
		t.stop(errStopped)
	}
	for _, r := range n.records {
		r.fail(errStopped)
	}
}

func (n *Node) traffic(p plan.Peer) *Traffic {
	t := n.stats[p]
	if t == nil {
		t = &Traffic{}
		n.stats[p] = t
	}
	return t
}

// Settled waits until this member has joined its swarm, or knows that it can't.
func (n *Node) Settled(ctx context.Context) error {
	select {
	case <-n.cfg.Members.Settled():
	case <-n.stopped:
		return errStopped
	case <-ctx.Done():
		return fmt.Errorf("wait for the swarm to settle: %w", context.Cause(ctx))
	}
	return nil
}
