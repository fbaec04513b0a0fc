package seeder

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"p2pagent/internal/leaktest"
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
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
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

// S09: the link breaks after every 8 MiB.
//
// A piece's beginning is kept in memory when the link breaks in it, so 64 MiB take
// eight requests and no byte comes twice, be a piece longer than the link lasts or
// shorter.
func TestS09LinkBreaksEveryEightMiB(t *testing.T) {
	leaktest.Check(t)
	for _, test := range []struct {
		size   int64 // of the blob, which decides on that of a piece
		pieces int   // in 64 MiB
	}{{64 * mib, 16}, {40 << 30, 4}} {
		synctest.Test(t, func(t *testing.T) {
			b := testBlob(test.size, 1)
			e := extent(pieces.Span{Blob: b, Count: test.pieces})
			src, sink := &faultySource{faults: func(_ int, _ pieces.Blob, _, n int64) *fault {
				return &fault{after: min(n, 8*mib), err: io.ErrUnexpectedEOF}
			}}, &checkSink{t: t}
			if err := New(Options{Signer: signer}).Fetch(t.Context(), src, e, every, sink, nil); err != nil {
				t.Fatal(err)
			}
			sink.wantAll(e)
			if len(src.requests) > 9 || src.bytes() != 64*mib {
				t.Errorf("pieces of %d MiB: %d requests, %d bytes", b.PieceSize()/mib, len(src.requests), src.bytes())
			}
		})
	}
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
		if used, _ := s.options.Buffers.Usage(); used != 0 {
			t.Errorf("%d buffers not given back", used)
		}
	})
}
