package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"p2pagent/internal/desired"
	"p2pagent/internal/histogram"
	"p2pagent/internal/layout"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
)

// Hub is the upstream. Errors carry no token and no signed URL.
type Hub interface {
	// Resolve turns a revision into the commit it means now, and says who may read
	// the repository.
	Resolve(ctx context.Context, ref pieces.Ref) (pieces.Commit, pieces.Access, error)
	// List returns the validated outline of a commit.
	List(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (*pieces.Outline, error)
	// Open returns exactly n bytes of f from off on; the reader fails by itself
	// when bytes stop. A method Host() string of it tells where they come from.
	Open(ctx context.Context, repo pieces.Repo, commit pieces.Commit, f pieces.File, off, n int64) (io.ReadCloser, error)
	// Refs returns what the branches, tags and pull requests of a repository mean,
	// by their whole names.
	Refs(ctx context.Context, repo pieces.Repo) (map[string]pieces.Commit, error)
	// MayRead asks whether a file may be read.
	MayRead(ctx context.Context, repo pieces.Repo, commit pieces.Commit, path string) error
}

// Swarm is what a job needs of the other members.
type Swarm interface {
	// Settled waits until this member has joined its swarm or given up on it.
	Settled(ctx context.Context) error
	// Record returns a small value that one member gets for all: a member's own
	// when it is younger than maxAge (Forever for any), else what get returns on
	// one of those that ask. With a nil get it only asks, and no answer is an
	// error of kind NotFound.
	Record(ctx context.Context, key string, maxAge time.Duration, get func(context.Context) ([]byte, error)) ([]byte, error)
	// Fetch brings the blobs. It returns once the store has completed each.
	Fetch(ctx context.Context, t Transfer, report func(Progress)) error
	// Offer tells members that blobs are here which came another way than by
	// Fetch, Withdraw that nothing of them is here any more.
	Offer(blobs []pieces.Blob)
	Withdraw(blobs []pieces.Blob)
	// Doubt drops pieces that this member got from upstream and whose bytes turned
	// out to be wrong, here and at whoever took them. They are fetched anew.
	Doubt(b pieces.Blob, indexes []int)
}

// Forever as the age of a record means that it can't become wrong.
const Forever time.Duration = 1<<63 - 1

// Transfer is the network part of a job.
type Transfer struct {
	Name    string
	Blobs   []pieces.Blob
	Extents []pieces.Extent
	// Upstream fetches an extent; nil when no upstream has these blobs.
	Upstream Upstream
	// Local is what of the blobs is here in other files; nil for nothing.
	Local Local
	// Patience ends the transfer after so long without a byte; 0 is the swarm's
	// own default.
	Patience time.Duration
}

// Upstream has the shape that the swarm's member needs of it.
type Upstream interface {
	Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool,
		put func(context.Context, pieces.Verified) error, progress func(n int64)) error
}

// Local has the shape that the swarm's member needs of it.
type Local interface {
	Gaps(b pieces.Blob, index int) []pieces.Part
	Fill(b pieces.Blob, index int, data []byte) error
	Fetch(ctx context.Context, e pieces.Extent, need func(b pieces.Blob, index int) bool, put func(context.Context, pieces.Verified) error) error
	Drop(b pieces.Blob)
}

// Progress is what a transfer has brought so far.
type Progress struct {
	Copied   int64            // bytes of verified pieces that were in other files here
	Upstream int64            // bytes of verified pieces
	Arriving int64            // bytes from upstream, as they come
	Peers    map[string]int64 // bytes of verified pieces by the name of the member
	Missing  int              // pieces not here yet
	Unheld   int              // of them, held by no member in sight
	Gaps     []Gap            // the first of those; the job fills in their paths
	Waiting  string           // for what, when nothing moves
}

// Store is the part of the cache that a job writes.
type Store interface {
	// Begin makes sure that the blobs fit, adopts what is on the disk already
	// and prepares the rest.
	Begin(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error
	// Has tells whether b is committed in repo.
	Has(repo pieces.Repo, b pieces.Blob) bool
	// Held returns the pieces of b that are here.
	Held(b pieces.Blob) *pieces.Set
	// Put stores a piece; it is not durable before it is committed.
	Put(ctx context.Context, v pieces.Verified) error
	// OpenPiece returns the bytes of a piece that is held.
	OpenPiece(b pieces.Blob, index int) (io.ReadCloser, error)
	// Statements returns the proofs of those pieces, ascending.
	Statements(b pieces.Blob) []pieces.Statement
	// Commit makes the snapshot appear, refs/ last, and returns its path.
	Commit(ctx context.Context, o *pieces.Outline, files []pieces.File, revision string) (string, error)
}

// Library is the part of the cache that lists and keeps snapshots.
type Library interface {
	Snapshot(ref pieces.Ref) (*cachefs.Snapshot, error)
	List() ([]cachefs.Snapshot, error)
	Remove(ref pieces.Ref, needed map[pieces.Blob]bool) (freed int64, err error)
	Verify(ctx context.Context, ref pieces.Ref, progress func(n int64)) ([]cachefs.Problem, error)
	ImportDir(ctx context.Context, dir string, repo pieces.Repo, revision string) (*pieces.Outline, string, error)
}

// Shelves is the part of the cache that eviction looks at.
type Shelves interface {
	// Holdings returns every snapshot with what it takes of the disk.
	Holdings() ([]cachefs.Holding, error)
	// InUse says who uses a snapshot right now, or "".
	InUse(repo pieces.Repo, commit pieces.Commit) (string, error)
	Room() (cachefs.Room, error)
	// Unfinished returns partial blobs and when they were last written; Abandon
	// drops one.
	Unfinished() map[pieces.Blob]time.Time
	Abandon(b pieces.Blob) error
}

// Cache is the whole of it.
type Cache interface {
	Store
	Library
	Shelves
	// Content returns a reader of a blob, also while it lands.
	Content(b pieces.Blob) *cachefs.Content
}

// Seeder gets extents from a source; *seeder.Seeder is one.
type Seeder interface {
	Fetch(ctx context.Context, src seeder.Source, e pieces.Extent, need func(b pieces.Blob, index int) bool,
		sink seeder.Sink, progress func(n int64)) error
}

// Notebook keeps a few bytes over restarts: which names were seeded here.
type Notebook interface {
	// Load returns what Save stored, or nothing when there was no Save yet.
	Load() ([]byte, error)
	// Save replaces it; durable on return.
	Save([]byte) error
}

// Opening is what a Source is made for: the blobs of one job.
type Opening struct {
	Outline *pieces.Outline
	// Plain opens them through the Hub.
	Plain seeder.Source
	// Doubt is to be told of pieces that were handed out and turned out to be wrong.
	Doubt func(b pieces.Blob, indexes []int)
	// Delta is what of bytes of a blob is here in other files at this time; nil for
	// nothing.
	Delta func(ctx context.Context, b pieces.Blob, off, n int64) *layout.Delta
}

// Options are what an Agent is made of. Cache, Swarm and Seeder must be set.
type Options struct {
	Cache  Cache
	Swarm  Swarm
	Seeder Seeder
	// Rights are this node's own.
	Rights
	// As returns the rights of a caller's token, "" for nobody in particular. It is
	// needed with a Hub.
	As func(token string) Rights
	// Deltas say how files are made out of others that are here.
	Deltas Deltas
	// Offline prefers the cached ref of a branch to asking anybody, and does not
	// wait for a member that asks the Hub (HF_HUB_OFFLINE).
	Offline bool
	// Prefer has a piece, and those behind it, brought before others until done is
	// called; nil when nobody reads what is still landing.
	Prefer func(b pieces.Blob, index int) (done func())
	// Notebook remembers what was seeded; nil means that a restart forgets it.
	Notebook Notebook
	// Classify tells the kind of an error of a part, Hint what a user can do about
	// it. Both may be nil.
	Classify func(error) Kind
	Hint     func(error) string
	// About fills in what the agent itself does not know of its process, Peers
	// the other members; both may be nil.
	About func() About
	Peers func() []Peer
	// Desired tells how it stands with the models that are kept here; may be nil.
	Desired func() []desired.State
	// Eviction says when this agent makes room by itself; the zero value: never.
	Eviction Eviction
	// OnRemoved is told of a snapshot that was taken out of the cache; may be nil.
	OnRemoved func(repo pieces.Repo, commit pieces.Commit)
	// OnUnpin ends what rollouts told of a ref that a caller unpins; may be nil.
	OnUnpin func(ref pieces.Ref) error
	// Logger gets one line for each change of a job; nil discards.
	Logger *slog.Logger
}

// Agent runs jobs. It is safe for concurrent use.
type Agent struct {
	opt     Options
	log     *slog.Logger
	started time.Time
	base    context.Context // of all jobs
	stop    context.CancelCauseFunc
	work    sync.WaitGroup      // running jobs
	saving  chan struct{}       // held while the notebook is written
	unsaved atomic.Bool         // the last time it could not be
	brought atomic.Int64        // bytes from upstream, as they came
	extents histogram.Durations // of extents that came whole from upstream
	fetches histogram.Durations // of jobs for more than a file that ended well
	sound   soundPieces

	mu      sync.Mutex // guards the fields below; never held over I/O
	stopped bool
	jobs    map[string]*job // running, by key
	recent  []*job          // ended, oldest first
	serial  int
	wait    waitNote
	hashing string // what the cache hashes, and how far it is
	ended   map[Kind]int64
	waits   int64
	notes   notes

	accesses map[string]pieces.Access      // of repositories in the cache, by name; in the notebook
	pins     pins                          // in the notebook
	used     map[string]time.Time          // when snapshots were last asked for; in the notebook
	readers  map[string]int                // readers of the gateway, by snapshot
	closed   map[pieces.Repo]chan struct{} // repositories of which something is being removed
	drop     *drop                         // nil: no partial blob is being dropped
	leaving  map[string]bool               // snapshots that are not counted on any more
	asked    map[string]int                // turns of questions about snapshots
	asker    string                        // tells this agent's questions from others'
	running  atomic.Bool                   // Run was called
	evicting chan struct{}                 // held while one evicts

	shelf   *shelf
	lender  lender
	listed  listed             // for Holdings
	flights singleflight.Group // of View and Refs

	questions singleflight.Group // that the Hub is asked, by record
}

// keepEnded is how many ended jobs ps still shows.
const keepEnded = 32

// New reads the notebook and returns an agent. It starts nothing; jobs run from
// the first Ensure on until Run's context ends.
func New(o Options) (*Agent, error) {
	if o.Cache == nil || o.Swarm == nil || o.Seeder == nil || o.Hub != nil && o.As == nil {
		return nil, errors.New("new agent: cache, swarm and seeder are needed, and As with a Hub")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Prefer == nil {
		o.Prefer = func(pieces.Blob, int) func() { return func() {} }
	}
	a := &Agent{
		opt: o, log: o.Logger, started: time.Now(), saving: make(chan struct{}, 1), jobs: map[string]*job{}, ended: map[Kind]int64{}, shelf: newShelf(),
		readers: map[string]int{}, closed: map[pieces.Repo]chan struct{}{}, leaving: map[string]bool{}, asked: map[string]int{},
		asker: rand.Text(), evicting: make(chan struct{}, 1),
		lender: lender{loans: map[string]*loan{}},
	}
	if o.Hub != nil {
		a.lender.as = o.As
	}
	if err := a.loadNotes(); err != nil {
		return nil, err
	}
	a.base, a.stop = context.WithCancelCause(context.Background())
	return a, nil
}

// Run waits for ctx to end, then ends every job and waits for them. Ensure fails
// from then on. Pieces that jobs had stay in the cache for the next one.
func (a *Agent) Run(ctx context.Context) error {
	a.running.Store(true)
	a.work.Go(func() { a.keepRoom(ctx) })
	<-ctx.Done()
	a.mu.Lock()
	a.stopped = true
	a.mu.Unlock()
	a.stop(errStopping)
	a.work.Wait()
	return nil
}

// waitNote is a wait that was imposed on all jobs, by the Hub's rate limit.
type waitNote struct {
	why   string
	until time.Time
}

// NoteWait lets every job say what it waits for until then: the Hub told this
// member, or another one, to come back later.
func (a *Agent) NoteWait(why string, until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if until.After(a.wait.until) {
		a.wait = waitNote{why, until}
		a.waits++
	}
}

// NoteHash lets jobs that adopt, and imports, say how far the hashing of
// something on the disk is. It has the shape that the cache asks for.
func (a *Agent) NoteHash(name string, done, total int64) {
	a.setHashing(fmt.Sprintf("%s on the disk to be hashed, %d %%", name, done*100/max(total, 1)))
}

func (a *Agent) setHashing(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hashing = text
}

// remark puts into a view what all jobs have in common: a wait that was imposed,
// or else what the cache is at.
func (a *Agent) remark(v *Job, now time.Time) {
	why := a.waiting(now)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case v.Ended():
	case why != "":
		v.Waiting = why
	case v.Status == Adopting && a.hashing != "":
		v.Waiting = a.hashing
	}
}

func (a *Agent) waiting(now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !now.Before(a.wait.until) {
		return ""
	}
	return a.wait.why + " until " + a.wait.until.Format(time.TimeOnly)
}
