// Feed serves the page over a made-up swarm, for looking at it and for the
// browser's checks: models under way and whole, bans, and names that try to be
// markup.
//
//	go run ./scripts/page/feed -listen 127.0.0.1:9464 -members 1000
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"p2pagent/internal/page"
)

func main() {
	log.SetFlags(0)
	listen := flag.String("listen", "127.0.0.1:0", "where to serve")
	members := flag.Int("members", 1000, "how many other members there are")
	odd := flag.Bool("odd", true, "with names that try to be markup")
	flag.Parse()
	if err := run(*listen, newSwarm(*members, *odd)); err != nil {
		log.Fatalf("feed: %v", err)
	}
}

func run(listen string, s *swarm) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	fmt.Printf("page=http://%s/\n", l.Addr())
	p := page.New(s)
	server := &http.Server{Handler: p, ReadHeaderTimeout: 5 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error { <-ctx.Done(); return server.Close() })
	g.Go(func() error {
		if err := server.Serve(l); err != http.ErrServerClosed {
			return err
		}
		return nil
	})
	return g.Wait()
}

// swarm is made up: everything in it follows from the time since it began.
type swarm struct {
	began   time.Time
	members []page.Member
	odd     bool
}

const ugly = `<script>alert(1)</script><img src=x onerror=alert(2)>`

func newSwarm(n int, odd bool) *swarm {
	rng := rand.New(rand.NewPCG(1, 2))
	s := &swarm{began: time.Now(), odd: odd}
	for i := range n {
		m := page.Member{ID: fmt.Sprintf("%012x", rng.Uint64()>>16), Name: fmt.Sprintf("gpu-%02d-%02d", (i+1)/24, (i+1)%24), Near: i < 256}
		switch {
		case i == 7:
			m.Banned, m.Until = "sent a bad piece", s.began.Add(10*time.Minute)
		case i == 11:
			m.Near, m.Fault = false, "dial: connection refused"
		case i == 13 && odd:
			m.Name = ugly
		case i == 14 && odd:
			m.Name = "right\u202eleft\nnewline"
		case i == 15:
			m.Silent = 9
		}
		s.members = append(s.members, m)
	}
	return s
}

// share is how much of the model under way a member has.
func (s *swarm) share(i int) float64 {
	t := time.Since(s.began).Seconds()
	return math.Min(1, math.Max(0, 0.25+t/240+0.3*math.Sin(float64(i)*1.7)))
}

const gb = 1_000_000_000

// View implements page.Source.
func (s *swarm) View(context.Context) (page.View, error) {
	t := time.Since(s.began).Seconds()
	total := int64(141 * gb)
	done := int64(s.share(0) * float64(total))
	answered := min(len(s.members), 256)
	v := page.View{
		Self: page.Self{ID: "self", Name: "gpu-00-00", Version: "v0.1.0", Started: s.began.Add(-26 * time.Hour), Upstream: true, Settled: true,
			Members: len(s.members), Near: answered, Asked: answered, Answered: answered, Cache: 512 * gb, Free: 3100 * gb},
		Models: []page.Model{
			{ID: "a", Ref: "meta-llama/Llama-3.3-70B-Instruct@main", Commit: "6f6073b423013f6a7d4d9f39144961bfbfbc386b", State: "fetching", Total: total, Completed: done,
				Here: 2 * gb, Upstream: done / 9, Peers: done - done/9 - 2*gb, Rate: int64(1.9*gb + 0.2*gb*math.Sin(t/3)), ETA: float64(total-done) / 1.9 / gb,
				Fleet: page.Fleet{Partly: answered + 1, Upstream: int64(min(1, s.share(0)+0.2) * float64(total)), Size: total}},
			{ID: "b", Ref: "Qwen/Qwen3-32B@main", Commit: "9216db5781bf21249d130ec9da846c4624c16137", State: "ready", Total: 65 * gb, Completed: 65 * gb,
				Upstream: 8 * gb, Peers: 57 * gb, Fleet: page.Fleet{Ready: answered + 1, Upstream: 65 * gb, Size: 65 * gb}},
			{ID: "c", Ref: "datasets/HuggingFaceFW/fineweb-edu@refs/pr/4", Commit: "651a648da38bf545cc5487530dbf59d8168c8de3", State: "elsewhere", Fleet: page.Fleet{Ready: 12, Upstream: 30 * gb, Size: 30 * gb}},
			{ID: "d", Ref: "mistralai/Mixtral-8x22B-v0.1@main", Commit: "b03e260818710044a2f088d88fab12bb220884fb", State: "failed", Reason: "no space: need 281057058304 bytes, 201 GB are free", Total: 281 * gb, Completed: 80 * gb, Here: 80 * gb,
				Fleet: page.Fleet{Ready: 9, Partly: 1}},
		},
	}
	if s.odd {
		v.Models = append(v.Models, page.Model{ID: "e", Ref: "org/" + ugly, Commit: "0123456789012345678901234567890123456789", State: "ready", Total: 5 * gb, Completed: 5 * gb, Here: 5 * gb, Fleet: page.Fleet{Ready: 1}})
	}
	for i, m := range s.members {
		if m.Near {
			m.Rate = int64(200e6 * (1.2 + math.Sin(t/5+float64(i))))
			m.In, m.Out = int64(t*1e6*float64(i%9)), int64(t*1e6*float64(i%7))
		}
		v.Members = append(v.Members, m)
	}
	return v, nil
}

// Counts implements page.Source.
func (s *swarm) Counts(context.Context) (page.Counts, error) {
	t := time.Since(s.began).Seconds()
	wave := func(a float64) int64 { return int64(a * (t + 6*math.Sin(t/11) + 3*math.Sin(t/5))) }
	return page.Counts{Upstream: wave(220e6), In: wave(1.6e9), Out: wave(1.3e9)}, nil
}

// Map implements page.Source.
func (s *swarm) Map(_ context.Context, id string) (page.Map, error) {
	m := page.Map{Pieces: 33618, Cells: page.MaxCells}
	for i := range min(len(s.members), 256) {
		strip := page.Strip{ID: s.members[i].ID, Name: s.members[i].Name}
		if id != "a" || i%40 == 0 {
			strip.Levels = strings.Repeat("9", m.Cells)
		} else {
			strip.Levels = s.levels(i, m.Cells)
		}
		m.Strips = append(m.Strips, strip)
	}
	return m, nil
}

// levels fills a member's cells in runs, as extents come.
func (s *swarm) levels(i, cells int) string {
	rng := rand.New(rand.NewPCG(uint64(i), 3))
	out := []byte(strings.Repeat("0", cells))
	for need := int(s.share(i) * float64(cells)); need > 0; {
		at, n := rng.IntN(cells), 1+rng.IntN(9)
		for j := at; j < min(at+n, cells) && need > 0; j++ {
			if out[j] != '9' {
				out[j] = "6789"[rng.IntN(4)]
				if rng.IntN(3) > 0 {
					out[j] = '9'
				}
				need--
			}
		}
	}
	return string(out)
}
