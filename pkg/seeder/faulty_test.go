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
	"time"

	"go.uber.org/goleak"

	"p2pagent/pkg/pieces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var signer = pieces.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))

// pattern has an odd length, so that no two pieces of a blob are alike.
var pattern = func() []byte {
	p := make([]byte, 1<<20+7)
	rand.NewChaCha8([32]byte{}).Read(p)
	return p
}()

// content fills p with the bytes of blob b from off on: a cheap function of both.
func content(b pieces.Blob, p []byte, off int64) {
	at := (off + 977*int64(b.Digest.Bytes()[0])) % int64(len(pattern))
	for len(p) > 0 {
		n := copy(p, pattern[at:])
		p, at = p[n:], 0
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
