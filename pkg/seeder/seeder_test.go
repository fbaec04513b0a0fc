package seeder

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/pieces"
)

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
	for seed := range uint64(40) {
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

type permanentError struct{}

func (permanentError) Error() string   { return "gone for good" }
func (permanentError) Permanent() bool { return true }

type busyError struct{ wait time.Duration }

func (e busyError) Error() string             { return "busy" }
func (e busyError) Permanent() bool           { return false }
func (e busyError) RetryAfter() time.Duration { return e.wait }

func failing(err error) *faultySource {
	return &faultySource{faults: func(int, pieces.Blob, int64, int64) *fault { return &fault{atOpen: err} }}
}

func TestFetchStopsAtAPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := failing(permanentError{})
		b := testBlob(5*mib, 1)
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), every, &checkSink{t: t}, nil)
		if !errors.Is(err, permanentError{}) || errors.Is(err, ErrGaveUp) {
			t.Errorf("error is %v", err)
		}
		if want := "fetch piece 0 of " + b.String() + ": open at 0: gone for good"; err.Error() != want {
			t.Errorf("message is %q, want %q", err, want)
		}
		if len(src.requests) != 1 {
			t.Errorf("%d requests, want 1", len(src.requests))
		}
	})
}

func TestFetchGivesUpAfterAttemptsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("refused")
		src := failing(cause)
		begin := time.Now()
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(5*mib, 1))), every, &checkSink{t: t}, nil)
		if !errors.Is(err, ErrGaveUp) || !errors.Is(err, cause) {
			t.Errorf("error is %v", err)
		}
		if len(src.requests) != defaultGiveUp {
			t.Errorf("%d requests, want %d", len(src.requests), defaultGiveUp)
		}
		for i := range src.requests[1:] {
			if wait := src.requests[i+1].at.Sub(src.requests[i].at); wait <= 0 || wait > 30*time.Second {
				t.Errorf("wait %d is %v, want more than 0 and at most 30 s", i, wait)
			}
		}
		if took := time.Since(begin); took > 5*time.Minute {
			t.Errorf("gave up after %v", took)
		}
	})
}

// A byte is progress: the count of attempts begins anew, the wait does not.
func TestFetchOutlastsAnUpstreamThatTrickles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBlob(3*mib, 1)
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, n int64) *fault {
			if number < 40 {
				return &fault{after: 1, err: io.EOF}
			}
			return nil
		}}
		sink := &checkSink{t: t}
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), every, sink, nil); err != nil {
			t.Fatal(err)
		}
		sink.wantAll(extent(span(b)))
		if wait := src.requests[30].at.Sub(src.requests[29].at); wait < 10*time.Second {
			t.Errorf("waits %v after 30 requests of one byte, want 10 s or more", wait)
		}
		if src.bytes() != b.Size {
			t.Errorf("read %d bytes of %d", src.bytes(), b.Size)
		}
	})
}

func TestFetchComesBackWhenUpstreamSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const asked = 95 * time.Second
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, _ int64) *fault {
			if number == 0 {
				return &fault{atOpen: busyError{asked}}
			}
			return nil
		}}
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil); err != nil {
			t.Fatal(err)
		}
		if wait := src.requests[1].at.Sub(src.requests[0].at); wait < asked || wait > asked+time.Second {
			t.Errorf("came back after %v, want %v to a second more", wait, asked)
		}
	})
}

func TestFetchDoesNotWaitForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := failing(busyError{time.Hour})
		begin := time.Now()
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil)
		if !errors.Is(err, ErrGaveUp) || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestFetchEndsWithItsContext(t *testing.T) {
	why := errors.New("the job is over")
	for _, test := range []struct {
		name  string
		fault fault
	}{
		{"while a silent body is read", fault{after: 100, silent: true}},
		{"while waiting to try again", fault{atOpen: busyError{time.Minute}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, why)
				defer cancel()
				src := &faultySource{faults: func(int, pieces.Blob, int64, int64) *fault { return &test.fault }}
				begin := time.Now()
				err := New(Options{Signer: signer}).Fetch(ctx, src, extent(span(testBlob(mib, 1))), every, &checkSink{t: t}, nil)
				if !errors.Is(err, why) || time.Since(begin) != 10*time.Second {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
				if src.open != 0 {
					t.Error("body left open")
				}
			})
		})
	}
}

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

func TestFetchStopsWhenTheSinkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left")
		src := &faultySource{}
		sink := &checkSink{t: t, err: func(v pieces.Verified) error {
			if v.Index() == 1 {
				return full
			}
			return nil
		}}
		err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(testBlob(20*mib, 1))), every, sink, nil)
		if !errors.Is(err, full) || !strings.Contains(err.Error(), "fetch piece 1 of") {
			t.Errorf("error is %v", err)
		}
		if len(src.requests) != 1 || src.bytes() != 8*mib {
			t.Errorf("%d requests, %d bytes; want 1 request, 8 MiB", len(src.requests), src.bytes())
		}
	})
}

// A piece that came another way is not asked for again after a break, nor read
// to its end, and the pieces behind it are still fetched.
func TestFetchLeavesOutWhatCameAnotherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBlob(24*mib, 1)
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, n int64) *fault {
			if number == 0 {
				return &fault{after: 5 * mib, err: errors.New("reset")}
			}
			return nil
		}}
		var elsewhere sync.Map
		sink := &checkSink{t: t, err: func(v pieces.Verified) error {
			if v.Index() == 0 { // while the request runs on, others bring 1 and 4
				elsewhere.Store(1, true)
				elsewhere.Store(4, true)
			}
			if v.Index() == 3 { // and 5 once it has been asked for
				elsewhere.Store(5, true)
			}
			return nil
		}}
		need := func(_ pieces.Blob, i int) bool {
			_, there := elsewhere.Load(i)
			return !there && !sink.has(b, i)
		}
		if err := New(Options{Signer: signer}).Fetch(t.Context(), src, extent(span(b)), need, sink, nil); err != nil {
			t.Fatal(err)
		}
		for i, want := range []bool{true, false, true, true, false, false} {
			if sink.has(b, i) != want {
				t.Errorf("piece %d: put %v, want %v", i, !want, want)
			}
		}
		if got := src.bytes(); got != 12*mib {
			t.Errorf("read %d MiB, want 12", got/mib)
		}
	})
}

func TestFetchDropsAPartialPieceThatCameAnotherWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := testBlob(12*mib, 1)
		var broken bool
		src := &faultySource{faults: func(number int, _ pieces.Blob, _, n int64) *fault {
			if broken = number == 0; broken {
				return &fault{after: mib, err: errors.New("reset")}
			}
			return nil
		}}
		sink := &checkSink{t: t}
		asked := 0
		need := func(_ pieces.Blob, i int) bool {
			if i == 0 {
				asked++
			}
			return i != 0 || asked < 3 // needed before the request, not after the break
		}
		s := New(Options{Signer: signer})
		if err := s.Fetch(t.Context(), src, extent(span(b)), need, sink, nil); err != nil {
			t.Fatal(err)
		}
		if sink.has(b, 0) || !sink.has(b, 1) || !sink.has(b, 2) {
			t.Error("want pieces 1 and 2, not 0")
		}
		if r := src.requests[1]; r.off != 4*mib || r.n != 8*mib {
			t.Errorf("second request is for %d bytes at %d", r.n, r.off)
		}
		if s.buffers.used != 0 {
			t.Errorf("%d buffers not given back", s.buffers.used)
		}
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
				if s.buffers.total > test.bytes || len(s.buffers.free) > 1 || s.buffers.used != 0 {
					t.Errorf("at rest %d bytes, %d buffers, %d in use", s.buffers.total, len(s.buffers.free), s.buffers.used)
				}
			})
		})
	}
}

// Used and free buffers together never exceed the limit while the used ones fit.
func TestBuffersAreBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	b := buffers{limit: 64 * mib}
	var used [][]byte
	var sum int64
	for range 5000 {
		n := 1 + r.IntN([]int{100, 70_000, 4 * mib, 16 * mib}[r.IntN(4)])
		if size := bufferSize(n); r.IntN(2) == 0 && sum+size <= b.limit {
			buf := b.get(n)
			if len(buf) != n || int64(cap(buf)) != size {
				t.Fatalf("got %d of %d bytes, want %d of %d", len(buf), cap(buf), n, size)
			}
			used, sum = append(used, buf), sum+size
		} else if len(used) > 0 {
			i := r.IntN(len(used))
			sum -= int64(cap(used[i]))
			b.put(used[i])
			used = append(used[:i], used[i+1:]...)
		}
		var free int64
		for _, f := range b.free {
			free += int64(cap(f))
		}
		if sum+free != b.total || b.total > b.limit || b.used != len(used) {
			t.Fatalf("%d used + %d free bytes, total %d of %d", sum, free, b.total, b.limit)
		}
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
