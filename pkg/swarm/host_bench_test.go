package swarm

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-yamux/v5"
)

const benchPiece = 4 << 20

// BenchmarkPieces copies pieces of 4 MiB over loopback, both ends in this
// process: MB/s, and CPU-seconds per GB of sender and receiver together.
func BenchmarkPieces(b *testing.B) {
	for _, n := range []int{1, 4, 8} {
		b.Run(fmt.Sprintf("lanes=%d", n), func(b *testing.B) {
			send, recv := benchHost(b, nil), benchHost(b, nil)
			go func() {
				for l := range send.lanes.arrived {
					go serveBench(l, ioStep)
				}
			}()
			b.Cleanup(func() { close(send.lanes.arrived) })
			at, err := addrPortOf(send.Addrs()[0])
			if err != nil {
				b.Fatal(err)
			}
			benchPieces(b, n, ioStep, func() (lane, error) {
				return recv.lanes.dial(b.Context(), send.ID(), []netip.AddrPort{at})
			})
		})
		b.Run(fmt.Sprintf("streams=%d", n), func(b *testing.B) {
			send, recv := benchHost(b, muxing()), benchHost(b, muxing())
			if err := recv.Connect(b.Context(), peer.AddrInfo{ID: send.ID(), Addrs: send.Addrs()}); err != nil {
				b.Fatal(err)
			}
			send.SetStreamHandler("/bench", func(s network.Stream) { serveBench(s, ioStep) })
			benchPieces(b, n, ioStep, func() (lane, error) { return recv.NewStream(b.Context(), send.ID(), "/bench") })
		})
	}
}

func benchPieces(b *testing.B, lanes, step int, open func() (lane, error)) {
	work := make(chan int)
	errs := make(chan error, lanes)
	for range lanes {
		go func() { errs <- takeBench(open, work, step) }()
	}
	b.SetBytes(benchPiece)
	b.ResetTimer()
	start, cpu := time.Now(), cpuTime()
	for i := range b.N {
		work <- i
	}
	close(work)
	for range lanes {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	gb := float64(b.N) * benchPiece / 1e9
	b.ReportMetric((cpuTime()-cpu).Seconds()/gb, "cpu-s/GB")
	b.ReportMetric(gb*1e3/time.Since(start).Seconds(), "MB/s-real")
}

func benchHost(b *testing.B, mux *yamux.Config) *Host {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	h, err := NewHost(HostOptions{Identity: key, Listen: "127.0.0.1:0", mux: mux})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { h.Close() })
	return h
}

// serveBench answers each byte with a piece.
func serveBench(s lane, step int) {
	defer s.Close()
	ask, data := make([]byte, 1), make([]byte, step)
	for {
		if _, err := io.ReadFull(s, ask); err != nil {
			return
		}
		for n := 0; n < benchPiece; n += step {
			if _, err := s.Write(data); err != nil {
				return
			}
		}
	}
}

// takeBench keeps two pieces in flight on one lane.
func takeBench(open func() (lane, error), work <-chan int, step int) error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close()
	buf := make([]byte, step)
	flying := 0
	take := func() error {
		for n := 0; n < benchPiece; n += step {
			if _, err := io.ReadFull(s, buf); err != nil {
				return err
			}
		}
		flying--
		return nil
	}
	for range work {
		if _, err := s.Write([]byte{1}); err != nil {
			return err
		}
		if flying++; flying == 2 {
			if err := take(); err != nil {
				return err
			}
		}
	}
	for flying > 0 {
		if err := take(); err != nil {
			return err
		}
	}
	return nil
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
