package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"p2pagent/internal/minicas"
	"p2pagent/pkg/pieces"
)

// Node is the member that the gateway stands in front of. Its errors are
// *Refusal where a client can do something about them.
type Node interface {
	// Look returns what a ref means. It means the same for at least a minute, and for
	// longer while files are read by it (reading). The token, "" for none, is that of
	// whom the Snapshot is for: it may be shown to the Hub, and to nobody else.
	Look(ctx context.Context, ref pieces.Ref, token string, reading bool) (Snapshot, error)
	// Refs returns the commits of branches, tags and pull requests, by their whole
	// names (refs/heads/main).
	Refs(ctx context.Context, repo pieces.Repo, token string) (map[string]pieces.Commit, error)
	// TakenBack counts the pieces that turned out wrong after they could be read.
	TakenBack() uint64
}

// Snapshot is one commit of a repository, for one caller.
type Snapshot interface {
	// Outline is the listing; it must not be changed.
	Outline() *pieces.Outline
	// File finds a file by its path.
	File(path string) (pieces.File, bool)
	// Open tells whether everybody may read it.
	Open() bool
	// MayRead asks whether the caller may.
	MayRead(ctx context.Context) error
	// Read returns a reader of a file, which is fetched by the right of this node or
	// of the caller. It fetches nothing yet.
	Read(f pieces.File) Content
}

// Content is a file that may be landing still.
type Content interface {
	// Start has the file brought here, without waiting for it.
	Start() error
	// Here tells whether the content is in the cache already, under whatever name.
	Here() bool
	// Whole returns the file when all of it is here, nil otherwise. Close closes it.
	Whole() *os.File
	// Await waits until the byte at off can be read, and returns how many verified
	// ones there are in a row. An error that wraps ErrSpoiled takes back what was
	// read.
	Await(ctx context.Context, off int64) (int64, error)
	// ReadAt reads what Await has promised.
	io.ReaderAt
	io.Closer
}

// ErrSpoiled tells that bytes which were read turned out wrong.
var ErrSpoiled = errors.New("bytes that were sent turned out wrong")

// How long things take at most.
const (
	// HeaderWait is how long a request for a file waits for its first byte: clients
	// wait ten seconds for response headers and don't try again.
	HeaderWait = 7 * time.Second
	// StepWait is the longest pause in a body that has something to send.
	StepWait = 3 * time.Second

	apiWait     = time.Minute      // clients set no limit for these
	xorbWait    = 2 * time.Minute  // hf_xet waits five minutes for each step, and tries five times
	readWait    = 10 * time.Second // for a request
	idleConn    = 2 * time.Minute
	stopWait    = time.Second
	maxHeader   = 64 << 10
	maxReaders  = 256 // files being sent at once
	verdictLife = 10 * time.Minute
)

// Options are what a Gateway is made of; Node must be set.
type Options struct {
	Node Node
	// Everyone lists repositories that are served to everybody on this node,
	// whoever may read them at the Hub.
	Everyone []pieces.Repo
	// EveryRepo does so for all.
	EveryRepo bool
	// Xet says which files clients are told to read as if from the Hub's
	// content-addressed store.
	Xet XetOffer
	// Key seals what Xet clients are given to come back with: secret, and the same
	// after a restart, so that their downloads go on.
	Key [32]byte
	// Host is a name that requests may call this gateway by, besides localhost and
	// IP addresses.
	Host string
	// Watch, when not nil, is told of every request.
	Watch Watch
	// Logger gets a line for each body that broke off; nil discards.
	Logger *slog.Logger
}

// Gateway answers Hub clients. It is safe for concurrent use.
type Gateway struct {
	o       Options
	log     *slog.Logger
	callers *callers
	mint    *minicas.Mint // nil when nothing is offered as Xet
	waits   waits
	readers chan struct{} // one for each file being sent
}

// New returns a Gateway; it starts nothing.
func New(o Options) *Gateway {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{o: o, log: o.Logger, callers: newCallers(), readers: make(chan struct{}, maxReaders)}
	if o.Xet != NoXet {
		g.mint = minicas.NewMint(o.Key)
	}
	return g
}

// everyone tells whether the operator opened the repository.
func (g *Gateway) everyone(repo pieces.Repo) bool {
	return g.o.EveryRepo || slices.Contains(g.o.Everyone, repo)
}

// Serve answers on a listener, which it closes, until ctx ends; what is being
// sent then is cut off after a second.
func (g *Gateway) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: g, ReadTimeout: readWait, IdleTimeout: idleConn, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	done := make(chan struct{})
	defer close(done)
	wait.Go(func() {
		select {
		case <-ctx.Done():
			shutdown(srv)
		case <-done:
		}
	})
	if err := srv.Serve(boundedListener{l, make(chan struct{}, maxConns)}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func shutdown(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	if srv.Shutdown(ctx) != nil {
		srv.Close()
	}
}
