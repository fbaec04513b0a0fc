package seeder

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
)

func TestFetchWaitingForRoomEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Signer: signer, Ranges: 1})
		ctx, cancel := context.WithCancelCause(t.Context())
		silent := &faultySource{faults: func(int, pieces.Blob, int64, int64) *fault { return &fault{silent: true} }}
		var done sync.WaitGroup
		why := errors.New("stop")
		for i := range 2 {
			done.Go(func() {
				if err := s.Fetch(ctx, silent, extent(span(testBlob(mib, i))), every, &checkSink{t: t}, nil); !errors.Is(err, why) {
					t.Errorf("error is %v", err)
				}
			})
		}
		synctest.Wait()
		if silent.mostOpen != 1 {
			t.Errorf("%d requests at once, want 1", silent.mostOpen)
		}
		cancel(why)
		done.Wait()
	})
}

func TestFetchTakesSmallBlobsFourAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e pieces.Extent
		for i := range 20 {
			e.Spans = append(e.Spans, span(testBlob(int64(1+i*1000), i)))
		}
		src, sink := &faultySource{}, &checkSink{t: t, err: func(pieces.Verified) error { time.Sleep(time.Second); return nil }}
		begin := time.Now()
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, e, every, sink, nil); err != nil {
			t.Fatal(err)
		}
		sink.wantAll(e)
		if src.mostOpen != 4 || time.Since(begin) != 5*time.Second {
			t.Errorf("%d at once, %v; want 4, 5 s", src.mostOpen, time.Since(begin))
		}
	})
}

// S24: too many connections at once collapse the link.
//
// However many extents wait, eight requests are open at most, or as many as
// Options.Ranges says.
func TestS24RequestsAtOnce(t *testing.T) {
	leaktest.Check(t)
	for ranges, want := range map[int]int{0: 8, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Options{Signer: signer, Ranges: ranges})
			src := &faultySource{}
			sink := &checkSink{t: t, err: func(pieces.Verified) error { time.Sleep(time.Second); return nil }}
			var done sync.WaitGroup
			for i := range 40 {
				e := extent(span(testBlob(int64(1+i*10_000), 2*i)), span(testBlob(70_000, 2*i+1)))
				done.Go(func() {
					if err := s.Fetch(t.Context(), src, e, every, sink, nil); err != nil {
						t.Error(err)
					}
				})
			}
			done.Wait()
			if src.mostOpen != want {
				t.Errorf("%d requests at once, want %d", src.mostOpen, want)
			}
		})
	}
}

func TestFetchStaysWithinItsRoom(t *testing.T) {
	for _, test := range []struct {
		name    string
		options Options
		size    int64 // of each of 12 blobs
		open    int   // requests at once
		bytes   int64 // of all buffers
	}{
		{"pieces of 4 MiB", Options{}, 5 * mib, 8, 64 * mib},
		{"two ranges", Options{Ranges: 2}, 5 * mib, 2, 64 * mib},
		{"little memory", Options{Memory: 16 * mib}, 5 * mib, 4, 16 * mib},
		{"less memory than a piece", Options{Memory: 1}, 5 * mib, 4, 16 * mib},
		{"small blobs", Options{Memory: 16 * mib, Ranges: 16}, 100, 12, 16 * mib},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test.options.Signer = signer
				s := New(test.options)
				src := &faultySource{}
				sink := &checkSink{t: t, err: func(pieces.Verified) error { time.Sleep(time.Second); return nil }}
				var done sync.WaitGroup
				for i := range 12 {
					done.Go(func() {
						if err := s.Fetch(t.Context(), src, extent(span(testBlob(test.size, i))), every, sink, nil); err != nil {
							t.Error(err)
						}
					})
				}
				done.Wait()
				if src.mostOpen != test.open {
					t.Errorf("%d requests at once, want %d", src.mostOpen, test.open)
				}
				if used, bytes := s.options.Buffers.Usage(); bytes > test.bytes || used != 0 {
					t.Errorf("at rest %d bytes, %d in use", bytes, used)
				}
			})
		})
	}
}

// However long an extent is, its pieces share one buffer.
func TestFetchAllocatesOneBuffer(t *testing.T) {
	s := New(Options{Signer: signer})
	seen := make(map[*byte]bool)
	sink := sinkFunc(func(v pieces.Verified) error {
		seen[&v.Bytes()[0]] = true
		return nil
	})
	for i := range 3 {
		if err := s.Fetch(t.Context(), &faultySource{}, extent(span(testBlob(20*mib, i))), every, sink, nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 1 {
		t.Errorf("%d buffers for 15 pieces, want 1", len(seen))
	}
}

type sinkFunc func(pieces.Verified) error

func (f sinkFunc) Put(_ context.Context, v pieces.Verified) error { return f(v) }

func BenchmarkFetch(b *testing.B) {
	blob := testBlob(64*mib, 1)
	s := New(Options{Signer: signer})
	sink := sinkFunc(func(pieces.Verified) error { return nil })
	b.SetBytes(blob.Size)
	for b.Loop() {
		if err := s.Fetch(b.Context(), zeroSource{}, extent(span(blob)), every, sink, nil); err != nil {
			b.Fatal(err)
		}
	}
}

type zeroSource struct{}

func (zeroSource) Open(_ context.Context, _ pieces.Blob, _, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.LimitReader(zeros{}, n)), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
