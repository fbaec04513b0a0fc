package cachefs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// Options says where a Cache lives. Hub and State are required, and Signer too
// when blobs may be adopted or imported.
type Options struct {
	// Hub is the cache that Hub clients use: HF_HUB_CACHE. It is made when missing.
	Hub string
	// State is a folder for this package alone, outside Hub but on the same
	// mount: finished blobs are renamed from one into the other.
	State string
	// Signer makes the statements on pieces of blobs that were found on disk.
	Signer pieces.Signer
	// Quota is how many bytes the cache may hold at most; 0 leaves that to the disk.
	Quota int64
	// Logger gets one line per odd thing found. Nil discards.
	Logger *slog.Logger
	// OnHash hears how far the hashing of something found on disk is: a blob in the
	// cache, named by its digest, or a file that is imported, named by its path. It
	// can take long, and nobody should look at a silent program. May be nil.
	OnHash func(name string, done, total int64)
}

// Cache is the disk of one member. It is safe for use by many goroutines.
type Cache struct {
	hubDir     string // absolute, no symbolic links: as Hub clients print it
	hub, state *durable.Root
	stage      *durable.Stage
	signer     pieces.Signer
	quota      int64
	log        *slog.Logger
	onHash     func(name string, done, total int64)
	locks      []*os.File
	handles    *handles
	sys        system
	taking     chan struct{}     // held while free space is compared and taken
	proving    [64]chan struct{} // by first byte of the digest; held while the proof is changed
	dirty      chan struct{}     // tells Run that much is unsynced
	warm       chan *partial     // blobs whose next pieces are there to be hashed
	shown      statementCache    // of whole blobs
	bells      bells             // rung when something of a blob is here
	takenBack  atomic.Uint64     // pieces that were un-held

	mu       sync.Mutex // guards the fields below; never held across I/O
	partials map[pieces.Blob]*partial
	wholes   map[pieces.Blob]*whole
	proofs   map[pieces.Digest]bool // which blobs have a proof file
	unsynced int64                  // bytes Put since the last flush
	running  int                    // calls of Run
	failed   error                  // the first failed sync
	closed   bool
}

// system is what tests replace.
type system struct {
	hook  durable.Hook
	flock func(fd int) error // exclusive, without waiting
	free  func(f *os.File) (int64, error)
}

// Open opens the cache for this process alone and loads what earlier ones left.
// It fails with a *BusyError when another process has it, and with
// ErrCrossDevice when finished blobs could not be renamed into place. Files of
// ours that a crash left half-made are removed; a cache that can't be written is
// opened all the same and serves what it has.
func Open(o Options) (*Cache, error) {
	return open(o, system{flock: flock, free: freeBytes})
}

func open(o Options, sys system) (*Cache, error) {
	c := &Cache{
		signer: o.Signer, quota: o.Quota, log: o.Logger, onHash: o.OnHash, sys: sys,
		handles:  newHandles(maxHandles),
		taking:   make(chan struct{}, 1),
		dirty:    make(chan struct{}, 1),
		warm:     make(chan *partial, 1024),
		partials: map[pieces.Blob]*partial{},
		wholes:   map[pieces.Blob]*whole{},
		proofs:   map[pieces.Digest]bool{},
	}
	for i := range c.proving {
		c.proving[i] = make(chan struct{}, 1)
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.onHash == nil {
		c.onHash = func(string, int64, int64) {}
	}
	if err := c.open(o); err != nil {
		return nil, fmt.Errorf("open cache %s: %w", o.Hub, errors.Join(err, c.release()))
	}
	return c, nil
}

func (c *Cache) open(o Options) error {
	hubDir, stateDir, err := prepare(o.Hub, o.State)
	if err != nil {
		return err
	}
	c.hubDir = hubDir
	if c.state, err = durable.Open(stateDir, c.sys.hook); err != nil {
		return err
	}
	if c.hub, err = durable.Open(hubDir, c.sys.hook); err != nil {
		return err
	}
	if err := c.lock(); err != nil {
		return err
	}
	if err := c.checkMounts(); err != nil {
		return err
	}
	return c.load()
}

// Close journals what is held and gives the cache to others. Calls that are still
// under way fail; end Run first.
func (c *Cache) Close() error {
	c.mu.Lock()
	done := c.closed
	c.closed = true
	c.mu.Unlock()
	if done {
		return nil
	}
	err := c.flushAll(context.Background()) // bounded by the disk
	if err := errors.Join(err, c.release()); err != nil {
		return fmt.Errorf("close cache %s: %w", c.hubDir, err)
	}
	return nil
}

func (c *Cache) release() error {
	c.unpin()
	c.handles.close()
	var err error
	for _, root := range []*durable.Root{c.hub, c.state} {
		if root != nil {
			err = errors.Join(err, root.Close())
		}
	}
	for _, f := range c.locks {
		err = errors.Join(err, f.Close())
	}
	return err
}

// unpin gives back the files of pieces that were not synced any more: those of
// blobs without a journal, and of a flush that failed.
func (c *Cache) unpin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.partials {
		if h := p.takePin(); h != nil {
			h.release()
		}
	}
}

// fail remembers the first failed sync: see diskError.
func (c *Cache) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
		c.log.Error("a sync failed; nothing more will be written", "err", err)
	}
}

// failure returns the first failed sync, or nil.
func (c *Cache) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// usable returns why nothing may be written any more, or nil.
func (c *Cache) usable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return c.failed
}

// provingOf returns the token to change a blob's proof. There are enough of them
// that blobs rarely wait for each other's syncs.
func (c *Cache) provingOf(b pieces.Blob) chan struct{} {
	return c.proving[int(b.Digest.Bytes()[0])%len(c.proving)]
}

func (c *Cache) partial(b pieces.Blob) *partial {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.partials[b]
}

// acquire takes a token from a channel of capacity one.
func acquire(ctx context.Context, token chan struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
