package xet

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"p2pagent/internal/layout"
	"p2pagent/internal/stall"
	"p2pagent/pkg/pieces"
)

// Plain opens the same blobs by plain HTTP: what is left when the store fails.
type Plain interface {
	Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error)
}

// SourceOptions say what a Source is for.
type SourceOptions struct {
	Outline *pieces.Outline
	Plain   Plain
	// Only never opens by plain HTTP what the store has.
	Only bool
	// Delta says what of bytes of a blob is here in other files, at this time: it is
	// copied. What is copied can turn out wrong only with the whole. nil says nothing.
	Delta func(ctx context.Context, b pieces.Blob, off, n int64) *layout.Delta
	// Doubt is told of pieces that were handed out before the xorb or the file
	// that they are of turned out to be wrong. It must not block; nil ignores.
	Doubt func(b pieces.Blob, indexes []int)
}

const (
	// restFor is how long the store is left alone after it could not be used.
	restFor = 5 * time.Minute
	// mostBroken is how many bodies of one file may break in a row, without a
	// piece in between, before it comes by plain HTTP.
	mostBroken = 2
	// onlyWait is how long a store that has no substitute may fail, and mostWrong how
	// often it may send the same xorb or file wrong.
	onlyWait  = time.Minute
	mostWrong = 3
)

// Source opens byte ranges of the files of one snapshot, for one job: from the
// content-addressed store where the Hub names the file there, else, and when the
// store fails, by plain HTTP. It is safe for concurrent use.
type Source struct {
	client *Client
	o      SourceOptions
	files  map[pieces.Blob]pieces.File
	ledger *ledger

	mu    sync.Mutex
	rests time.Time // until then the store is not asked
	fails time.Time // since then it does nothing but fail, where it has no substitute
	over  error     // it did so for too long
	blobs map[pieces.Blob]*blobState
}

// blobState is what happened to one blob so far.
type blobState struct {
	plain  bool        // it comes by plain HTTP from now on
	broken int         // bodies in a row
	given  *pieces.Set // pieces that were handed out whole
}

// NewSource returns a Source. It starts nothing.
func (c *Client) NewSource(o SourceOptions) *Source {
	if o.Delta == nil {
		o.Delta = func(context.Context, pieces.Blob, int64, int64) *layout.Delta { return nil }
	}
	s := &Source{client: c, o: o, files: make(map[pieces.Blob]pieces.File), ledger: newLedger(c.log), blobs: make(map[pieces.Blob]*blobState)}
	for _, f := range o.Outline.Files {
		if _, ok := s.files[f.Blob]; !ok || !f.Xet.IsZero() {
			s.files[f.Blob] = f
		}
	}
	return s
}

// Open returns a reader of exactly n bytes of b from off on. The reader fails by
// itself when bytes stop. An error that has a method Tainted() bool says that
// bytes which came before it are wrong. A reader from the store has a method
// Copied() bool: whether its last Read brought bytes that were here.
func (s *Source) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	f := s.files[b]
	if f.Xet.IsZero() || !s.usable(b, off, n) {
		return s.o.Plain.Open(ctx, b, off, n)
	}
	if err := s.isOver(); err != nil {
		return nil, err
	}
	rc, err := s.open(ctx, f, off, n)
	if errors.Is(err, ErrRecord) || errors.Is(err, ErrContent) { // a second copy may be right
		rc, err = s.open(ctx, f, off, n)
	}
	switch {
	case err == nil:
		return rc, nil
	case context.Cause(ctx) != nil:
		return nil, err
	case s.o.Only:
		s.failed(err)
		return nil, cmp.Or(s.isOver(), err)
	}
	s.avoid(b, err)
	return s.o.Plain.Open(ctx, b, off, n)
}

// isOver returns an error when the store, which has no substitute, has done nothing
// but fail for too long.
func (s *Source) isOver() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *Source) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insist(err)
}

// insist notes how a try ended where the store has no substitute: with an error, or
// with something that was of use. It is called with s.mu held.
func (s *Source) insist(err error) {
	switch {
	case err == nil:
		s.fails = time.Time{}
	case s.fails.IsZero():
		s.fails = time.Now()
	case time.Since(s.fails) >= onlyWait:
		s.over = &OnlyError{time.Since(s.fails), err}
	}
}

// usable tells whether the bytes are to come from the store. Those that came from
// there before and are asked for again were not believed by whoever took them:
// another way may bring better ones.
func (s *Source) usable(b pieces.Blob, off, n int64) bool {
	if s.o.Only {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(b)
	first, last := int(off/b.PieceSize()), int((off+n-1)/b.PieceSize())
	for i := first; i <= last && !st.plain; i++ {
		if st.given.Has(i) {
			s.client.log.Warn("xet: bytes were not believed, fetching the file by plain HTTP", "blob", b.String())
			st.plain = true
		}
	}
	return !st.plain && !time.Now().Before(s.rests)
}

// state is called with s.mu held.
func (s *Source) state(b pieces.Blob) *blobState {
	st := s.blobs[b]
	if st == nil {
		st = &blobState{given: pieces.NewSet(b.Pieces())}
		s.blobs[b] = st
	}
	return st
}

func (s *Source) open(ctx context.Context, f pieces.File, off, n int64) (io.ReadCloser, error) {
	file, err := NewFile(s.o.Outline.Repo, s.o.Outline.Commit, f)
	if err != nil {
		return nil, err
	}
	m, err := s.client.newMixed(ctx, file, off, n, s.o.Delta(ctx, f.Blob, off, n), func(c chunk) error { return s.seen(f.Blob, file.Name, c) })
	if err != nil {
		return nil, err
	}
	m.closed = func(at int64, err error) {
		if context.Cause(ctx) == nil {
			s.ended(f.Blob, off, at, err)
		}
	}
	return m, nil
}

// seen enters a chunk into the ledger.
func (s *Source) seen(b pieces.Blob, name Hash, c chunk) error {
	v := s.ledger.add(b, name, c)
	if v == nil {
		return nil
	}
	s.client.log.Warn("xet: content is wrong, dropping it", "err", v.err)
	for _, doubted := range piecesOf(v.spans) {
		s.doubt(doubted.blob, doubted.indexes, v)
	}
	v.err.Final = s.o.Only && v.times >= mostWrong
	return v.err
}

type doubted struct {
	blob    pieces.Blob
	indexes []int
}

// piecesOf returns which pieces have bytes of the runs.
func piecesOf(runs []run) (out []doubted) {
	for _, r := range runs {
		i := slices.IndexFunc(out, func(d doubted) bool { return d.blob == r.blob })
		if i < 0 {
			i = len(out)
			out = append(out, doubted{blob: r.blob})
		}
		size := r.blob.PieceSize()
		for k := int(r.off / size); k <= int((r.off+r.size-1)/size); k++ {
			out[i].indexes = append(out[i].indexes, k)
		}
	}
	for i := range out {
		slices.Sort(out[i].indexes)
		out[i].indexes = slices.Compact(out[i].indexes)
	}
	return out
}

func (s *Source) doubt(b pieces.Blob, indexes []int, v *verdict) {
	s.mu.Lock()
	st := s.state(b)
	if v.times > 1 && !s.o.Only && !st.plain {
		st.plain = true
		s.fallBack(v.err, slog.String("blob", b.String()))
	}
	for _, i := range indexes {
		st.given.Remove(i)
	}
	s.mu.Unlock()
	if s.o.Doubt != nil {
		s.o.Doubt(b, indexes)
	}
}

// avoid notes that the store failed before a byte came. One that is not there, or
// that gives no token, is left alone for all files; one that fails for a file, for
// that one.
func (s *Source) avoid(b pieces.Blob, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ofFile(err) {
		if st := s.state(b); !st.plain {
			st.plain = true
			s.fallBack(err, slog.String("blob", b.String()))
		}
		return
	}
	if time.Now().After(s.rests) {
		s.rests = time.Now().Add(restFor)
		s.fallBack(err, slog.Duration("for", restFor))
	}
}

func (s *Source) fallBack(err error, about slog.Attr) {
	s.client.log.Warn("xet: falling back to plain HTTP", "repo", s.o.Outline.Repo.String(), about, "err", err)
}

func ofFile(err error) bool {
	return errors.Is(err, ErrNoFile) || errors.Is(err, ErrAnswer) || errors.Is(err, ErrRefused) || errors.Is(err, ErrContent) || errors.Is(err, ErrRecord)
}

// ended notes how far a body got, and whether the file should come another way.
func (s *Source) ended(b pieces.Blob, off, at int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(b)
	size := b.PieceSize()
	first, end := int((off+size-1)/size), int(at/size)
	if at == b.Size {
		end = b.Pieces()
	}
	if _, bad := errors.AsType[*ContentError](err); bad {
		end = first // its pieces were doubted
	}
	for i := first; i < end; i++ {
		st.given.Add(i)
	}
	worked := err == nil || first < end
	if st.broken++; worked {
		st.broken = 0
	}
	if s.o.Only {
		if worked {
			err = nil
		}
		s.insist(err)
		return
	}
	if st.plain || err == nil || !errors.Is(err, stall.ErrStalled) && st.broken < mostBroken {
		return
	}
	st.plain = true
	s.fallBack(err, slog.String("blob", b.String()))
}
