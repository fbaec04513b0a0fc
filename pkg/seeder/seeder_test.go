package seeder

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"p2pagent/pkg/pieces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var signer = pieces.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))

// content fills p with the bytes of blob b from off on: a cheap function of both.
func content(b pieces.Blob, p []byte, off int64) {
	seed := b.Digest.Bytes()[0]
	for i := range p {
		at := off + int64(i)
		p[i] = byte(at) ^ byte(at>>8)*3 ^ byte(at>>16)*5 ^ byte(at>>24)*7 ^ seed
	}
}

func testBlob(size int64, number int) pieces.Blob {
	return pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(fmt.Append(nil, "blob ", number))), Size: size}
}

func span(b pieces.Blob) pieces.Span { return pieces.Span{Blob: b, Count: b.Pieces()} }

func extent(spans ...pieces.Span) pieces.Extent { return pieces.Extent{Spans: spans} }

func every(pieces.Blob, int) bool { return true }

// fault is what a request does instead of ending well.
type fault struct {
	after  int64 // bytes it sends first
	err    error // what the reader then returns; io.EOF cuts short
	atOpen error // what Open returns
	silent bool  // the reader blocks for ever, and does not look at its context
	extra  int64 // bytes it sends beyond what was asked for
}

// faultySource answers the n-th request according to faults, and later ones well.
type faultySource struct {
	faults func(request int, b pieces.Blob, off, n int64) *fault

	mu       sync.Mutex
	requests []request
	open     int
	mostOpen int
}

type request struct {
	blob   pieces.Blob
	off, n int64
	at     time.Time
	read   int64 // bytes that the seeder took
}

func (s *faultySource) Open(_ context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	number := len(s.requests)
	s.requests = append(s.requests, request{blob: b, off: off, n: n, at: time.Now()})
	s.mu.Unlock()
	var f *fault
	if s.faults != nil {
		f = s.faults(number, b, off, n)
	}
	if f == nil {
		f = &fault{after: n, err: io.EOF}
	}
	if f.atOpen != nil {
		return nil, f.atOpen
	}
	s.mu.Lock()
	s.open++
	s.mostOpen = max(s.mostOpen, s.open)
	s.mu.Unlock()
	return &faultyBody{source: s, number: number, blob: b, off: off, left: f.after + f.extra, fault: f, closed: make(chan struct{})}, nil
}

type faultyBody struct {
	source *faultySource
	number int
	blob   pieces.Blob
	off    int64
	left   int64
	fault  *fault
	once   sync.Once
	closed chan struct{}
}

func (b *faultyBody) Read(p []byte) (int, error) {
	select {
	case <-b.closed:
		return 0, errors.New("read after close")
	default:
	}
	if b.left == 0 {
		if b.fault.silent {
			<-b.closed
			return 0, errors.New("closed")
		}
		return 0, b.fault.err
	}
	n := min(int64(len(p)), b.left)
	content(b.blob, p[:n], b.off)
	b.off, b.left = b.off+n, b.left-n
	b.source.mu.Lock()
	b.source.requests[b.number].read += n
	b.source.mu.Unlock()
	return int(n), nil
}

func (b *faultyBody) Close() error {
	b.once.Do(func() {
		close(b.closed)
		b.source.mu.Lock()
		b.source.open--
		b.source.mu.Unlock()
	})
	return nil
}

func (s *faultySource) bytes() (n int64) {
	for _, r := range s.requests {
		n += r.read
	}
	return n
}

// checkSink checks each piece and counts it.
type checkSink struct {
	t   *testing.T
	err func(v pieces.Verified) error

	mu   sync.Mutex
	puts map[pieces.Blob]*pieces.Set
}

func (s *checkSink) Put(_ context.Context, v pieces.Verified) error {
	if s.err != nil {
		if err := s.err(v); err != nil {
			return err
		}
	}
	want := make([]byte, len(v.Bytes()))
	content(v.Blob(), want, v.Offset())
	if string(want) != string(v.Bytes()) {
		s.t.Errorf("piece %d of %s has other bytes", v.Index(), v.Blob())
	}
	statement := v.Statement()
	if err := statement.Check(); err != nil || statement.ID != pieces.IDOf(want) {
		s.t.Errorf("piece %d of %s: bad statement: %v", v.Index(), v.Blob(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puts == nil {
		s.puts = make(map[pieces.Blob]*pieces.Set)
	}
	if s.puts[v.Blob()] == nil {
		s.puts[v.Blob()] = pieces.NewSet(v.Blob().Pieces())
	}
	if !s.puts[v.Blob()].Add(v.Index()) {
		s.t.Errorf("piece %d of %s put twice", v.Index(), v.Blob())
	}
	return nil
}

func (s *checkSink) has(b pieces.Blob, index int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts[b] != nil && s.puts[b].Has(index)
}

func (s *checkSink) wantAll(e pieces.Extent) {
	s.t.Helper()
	for _, span := range e.Spans {
		for i := range span.Count {
			if !s.has(span.Blob, span.First+i) {
				s.t.Errorf("piece %d of %s was not put", span.First+i, span.Blob)
			}
		}
	}
}

const mib = 1 << 20

func TestFetchAsksOncePerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBlob(30*mib+17, 1) // 8 pieces, the last short
		src, sink := &faultySource{}, &checkSink{t: t}
		need := func(_ pieces.Blob, i int) bool { return i != 2 && i != 3 && i != 6 }
		var got int64
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), need, sink, func(n int64) { got += n })
		if err != nil {
			t.Fatal(err)
		}
		want := []request{{off: 0, n: 8 * mib}, {off: 16 * mib, n: 8 * mib}, {off: 28 * mib, n: 2*mib + 17}}
		if len(src.requests) != len(want) {
			t.Fatalf("%d requests, want %d: %+v", len(src.requests), len(want), src.requests)
		}
		for i, w := range want {
			if r := src.requests[i]; r.off != w.off || r.n != w.n {
				t.Errorf("request %d is for %d bytes at %d, want %d at %d", i, r.n, r.off, w.n, w.off)
			}
		}
		for i := range 8 {
			if sink.has(b, i) != need(b, i) {
				t.Errorf("piece %d: put %v, needed %v", i, sink.has(b, i), need(b, i))
			}
		}
		if want := int64(18*mib + 17); got != want {
			t.Errorf("progress of %d bytes, want %d", got, want)
		}
	})
}

// Whatever the breaks, each needed byte is read once, and no other.
func TestFetchReadsNoByteTwice(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			var blobs []pieces.Blob
			for i := range 1 + r.IntN(4) {
				blobs = append(blobs, testBlob(1+r.Int64N(20*mib), i))
			}
			var e pieces.Extent
			var want int64
			for _, b := range blobs {
				e.Spans = append(e.Spans, span(b))
			}
			unneeded := r.IntN(4)
			need := func(b pieces.Blob, i int) bool { return (int(b.Digest.Bytes()[3])+i)%4 != unneeded }
			for _, b := range blobs {
				for i := range b.Pieces() {
					if _, n := b.Piece(i); need(b, i) {
						want += n
					}
				}
			}
			var mu sync.Mutex
			src := &faultySource{faults: func(_ int, _ pieces.Blob, _, n int64) *fault {
				mu.Lock()
				defer mu.Unlock()
				switch r.IntN(6) {
				case 0:
					return &fault{atOpen: errors.New("refused")}
				case 1:
					return &fault{after: r.Int64N(n + 1), err: io.EOF}
				case 2:
					return &fault{after: r.Int64N(min(n, 1000) + 1), err: errors.New("reset")}
				case 3:
					return &fault{after: r.Int64N(n + 1), err: io.ErrUnexpectedEOF}
				case 4:
					return &fault{after: n, extra: r.Int64N(mib), err: io.EOF}
				}
				return nil
			}}
			sink := &checkSink{t: t}
			var got int64
			err := New(Options{Signer: signer, GiveUp: 50}).Fetch(t.Context(), src, e, need, sink, func(n int64) {
				mu.Lock()
				defer mu.Unlock()
				got += n
			})
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if src.bytes() != want || got != want {
				t.Errorf("seed %d: read %d bytes and told of %d, want %d", seed, src.bytes(), got, want)
			}
			for _, b := range blobs {
				for i := range b.Pieces() {
					if sink.has(b, i) != need(b, i) {
						t.Errorf("seed %d: piece %d: put %v, needed %v", seed, i, sink.has(b, i), need(b, i))
					}
				}
			}
			if src.open != 0 {
				t.Errorf("seed %d: %d bodies left open", seed, src.open)
			}
		})
	}
}
