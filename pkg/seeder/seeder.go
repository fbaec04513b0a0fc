package seeder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"p2pagent/internal/buffers"
	"p2pagent/pkg/pieces"
)

// Source is where bytes come from: the Hub or another upstream.
type Source interface {
	// Open returns a reader of exactly n bytes of b from off on. The reader fails
	// by itself when bytes stop or crawl, and its Close may be called while a Read
	// blocks. Opened ranges never overlap for one need. Errors of Open and Read
	// are temporary unless they, or what they wrap, have a method Permanent() bool
	// that says otherwise; a method RetryAfter() time.Duration tells when to come
	// back; a method Tainted() bool that what was read of the piece at hand is wrong
	// and has to be read again. A method Copied() bool of the reader says that its last
	// Read brought bytes which were on this node: they are no progress of upstream.
	// Open is called from several goroutines.
	Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error)
}

// Sink is where verified pieces go.
type Sink interface {
	// Put stores the piece. It must not keep v.Bytes() after it returned: the
	// buffer is used again. An error ends the Fetch. Put is called from several
	// goroutines.
	Put(ctx context.Context, v pieces.Verified) error
}

// ErrGaveUp marks an extent that upstream did not deliver in Options.GiveUp
// attempts. It is temporary: another member, or a later Fetch, may succeed.
var ErrGaveUp = errors.New("gave up")

const (
	defaultRanges        = 8
	defaultMemory        = 64 << 20
	defaultGiveUp        = 10
	defaultMaxRetryAfter = 10 * time.Minute // the Hub counts requests in windows of 5 minutes

	// spansAtOnce bounds the requests for the small blobs of one extent: enough to
	// hide a round trip, few enough not to look like an attack.
	spansAtOnce = 4
)

// Options configure a Seeder; the zero value works but for the Signer.
type Options struct {
	// Signer signs the statements about the pieces that are cut.
	Signer pieces.Signer
	// Ranges is how many requests may be open at once, over all Fetch calls; 0
	// means 8. Fewer is kinder to upstream.
	Ranges int
	// Memory bounds the bytes of unfinished pieces; 0 means 64 MiB, and at least
	// one piece of the largest size always fits.
	Memory int64
	// GiveUp is how many attempts in a row may fail without a byte; 0 means 10,
	// which is about two minutes of a dead upstream.
	GiveUp int
	// MaxRetryAfter is the longest wait that upstream may ask for; 0 means 10
	// minutes. When it asks for more, Fetch returns ErrGaveUp at once.
	MaxRetryAfter time.Duration
	// Border tells the state of a blob's digest before a piece, if it is known;
	// nil never knows.
	Border func(b pieces.Blob, index int) (pieces.Border, bool)
	// Buffers is where unfinished pieces lie; nil makes a pool of Memory bytes.
	Buffers *buffers.Pool
	// Logger gets a line for each broken request; nil discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Ranges <= 0 {
		o.Ranges = defaultRanges
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	o.Memory = max(o.Memory, pieces.MaxPieceSize)
	if o.GiveUp <= 0 {
		o.GiveUp = defaultGiveUp
	}
	if o.MaxRetryAfter <= 0 {
		o.MaxRetryAfter = defaultMaxRetryAfter
	}
	if o.Border == nil {
		o.Border = func(pieces.Blob, int) (pieces.Border, bool) { return pieces.Border{}, false }
	}
	if o.Buffers == nil {
		o.Buffers = buffers.New(o.Memory)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Seeder fetches extents. It is safe for concurrent use; all its Fetch calls
// share Options.Ranges and Options.Memory.
type Seeder struct {
	options Options
	room    *semaphore.Weighted // bytes of unfinished pieces
}

// New returns a Seeder. It starts nothing.
func New(o Options) *Seeder {
	o = o.withDefaults()
	return &Seeder{options: o, room: semaphore.NewWeighted(o.Memory)}
}

// Fetch gets every piece of e for which need is true and puts each into sink as
// soon as it is whole. It returns when all are put, or with the first error:
//
//  1. nil: sink has taken every piece that was needed;
//  2. an error of sink, unchanged in the chain: nothing is retried;
//  3. an error of src that is permanent, in the chain;
//  4. ErrGaveUp, with the last error of src, after too many attempts in vain;
//  5. the cause of ctx's end.
//
// need is asked again before each piece and after each break, so that pieces
// which came another way meanwhile cost upstream nothing more. progress, when not
// nil, is told how many bytes arrived, as they arrive. need and progress are
// called from up to four goroutines.
func (s *Seeder) Fetch(ctx context.Context, src Source, e pieces.Extent, need func(b pieces.Blob, index int) bool, sink Sink, progress func(n int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(spansAtOnce)
	for _, span := range e.Spans {
		f := fetch{seeder: s, src: src, sink: sink, need: need, progress: progress, blob: span.Blob, end: span.First + span.Count}
		group.Go(func() error { return f.span(ctx, span.First) })
	}
	return group.Wait()
}

// fetch is what all requests for one span share.
type fetch struct {
	seeder   *Seeder
	src      Source
	sink     Sink
	need     func(pieces.Blob, int) bool
	progress func(int64)
	blob     pieces.Blob
	end      int // first piece behind the span
}

func (f *fetch) span(ctx context.Context, first int) error {
	for index := first; index < f.end; {
		if !f.need(f.blob, index) {
			index++
			continue
		}
		next, err := f.run(ctx, index)
		if err != nil {
			return fmt.Errorf("fetch piece %d of %s: %w", next, f.blob, err)
		}
		index = next
	}
	return nil
}

// run fetches pieces from first on up to one that is not needed or the end of
// the span, and returns its index; with an error, that of the piece it broke in.
func (f *fetch) run(ctx context.Context, first int) (next int, err error) {
	room := f.seeder.weight(f.blob)
	if err := f.seeder.room.Acquire(ctx, room); err != nil {
		return first, context.Cause(ctx)
	}
	defer f.seeder.room.Release(room)

	r := &run{fetch: f, cutter: f.newCutter(first), index: first}
	defer func() { f.seeder.options.Buffers.Put(r.cutter.Abandon()) }()
	err = r.retry(ctx)
	return r.index, err
}

func (f *fetch) newCutter(first int) *pieces.Cutter {
	return pieces.NewCutter(f.seeder.options.Signer, f.blob, first, f.end-first, f.seeder.options.Buffers.Get)
}

// weight is the room that one request takes: one piece, but never so little that
// more than Ranges requests fit. Rounded up, fewer would.
func (s *Seeder) weight(b pieces.Blob) int64 {
	share := s.options.Memory / int64(s.options.Ranges)
	return min(max(share, buffers.Size(int(min(b.Size, b.PieceSize())))), s.options.Memory)
}
