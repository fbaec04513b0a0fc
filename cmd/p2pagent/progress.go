package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"p2pagent/pkg/agent"
)

// lineEvery is how often progress is told where there is no terminal; with a
// late timer still within the ten seconds that are promised.
const lineEvery = 8 * time.Second

// progress shows what a job does while a command waits for it. It has a clock of
// its own, so that a silent agent is no silent command.
type progress struct {
	show func(v agent.Job, since time.Duration) // called with mu held
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	job  agent.Job
	from time.Time // when the job got into its state
}

// newProgress starts showing; end stops it.
func (s *session) newProgress(ref string) *progress {
	g := &progress{stop: make(chan struct{}), done: make(chan struct{}), from: time.Now()}
	g.job = agent.Job{Ref: ref, Status: "starting"}
	every := 200 * time.Millisecond
	switch {
	case s.format == formatJSON:
		g.show, every = jsonProgress(s.p.stdout), lineEvery/2
	case s.format == formatQuiet:
		g.show = func(agent.Job, time.Duration) {}
	case s.p.terminal:
		g.show = barProgress(s.p.stderr)
	default:
		g.show = lineProgress(s.p.stderr)
	}
	go g.run(every)
	return g
}

func (g *progress) run(every time.Duration) {
	defer close(g.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-g.stop:
			return
		case <-tick.C:
			g.refresh()
		}
	}
}

func (g *progress) refresh() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.show(g.job, time.Since(g.from))
}

// watch takes in what the agent says.
func (g *progress) watch(v agent.Job) {
	g.mu.Lock()
	changed := v.Status != g.job.Status
	if changed {
		g.from = time.Now()
	}
	g.job = v
	g.mu.Unlock()
	if changed {
		g.refresh()
	}
}

// end stops the display and wipes a bar.
func (g *progress) end() {
	close(g.stop)
	<-g.done
	g.mu.Lock()
	defer g.mu.Unlock()
	g.show(agent.Job{Status: ended}, 0)
}

// ended is the state in which a display cleans up after itself.
const ended agent.State = ""

// jsonProgress writes every view as a line of JSON on stdout.
func jsonProgress(w io.Writer) func(agent.Job, time.Duration) {
	return func(v agent.Job, _ time.Duration) {
		if v.Status != ended && !v.Ended() {
			json.NewEncoder(w).Encode(fetchProgress{progressHead, v})
		}
	}
}

// lineProgress writes a line at each change of state and every lineEvery.
func lineProgress(w io.Writer) func(agent.Job, time.Duration) {
	var seen agent.State
	var last time.Time
	return func(v agent.Job, since time.Duration) {
		if v.Status == ended || v.Ended() || (v.Status == seen && time.Since(last) < lineEvery) {
			return
		}
		if v.Status == "starting" && since < lineEvery {
			return
		}
		seen, last = v.Status, time.Now()
		fmt.Fprintf(w, "p2pagent: %s %s\n", clean(v.Ref), clean(describe(v, since)))
	}
}

// barProgress draws one line on a terminal: a bar while bytes are fetched, words
// before and after.
func barProgress(w io.Writer) func(agent.Job, time.Duration) {
	var bar *progressbar.ProgressBar
	dirty := false
	return func(v agent.Job, since time.Duration) {
		width := terminalWidth(w)
		switch {
		case v.Status == ended || v.Ended():
			if dirty {
				fmt.Fprint(w, "\r\x1b[K")
			}
			dirty = false
		case v.Status == agent.Fetching && v.Total > 0:
			if bar == nil {
				bar = newBar(w, v.Total)
			}
			bar.Describe(cut(clean(barText(v)), width-barColumns))
			bar.Set64(v.Completed)
			dirty = true
		case since > time.Second || dirty:
			fmt.Fprint(w, "\r\x1b[K"+cut(clean(v.Ref+" "+describe(v, since)), width-1))
			dirty = true
		}
	}
}

// barColumns is what the bar itself takes: percent, frame and bar.
const (
	barWidth   = 12
	barColumns = barWidth + 9
)

// barText is what stands before the bar. In 80 columns the sources, the rate and
// the time left have room; the name is cut first.
func barText(v agent.Job) string {
	text := fmt.Sprintf("upstream %s, peers %s, here %s, ", bytesText(v.Upstream), bytesText(v.FromPeers()), bytesText(v.Here))
	switch {
	case v.Idle > 3:
		text += "no byte for " + spanText(seconds(v.Idle))
		if v.Waiting != "" {
			text += ", waiting for " + v.Waiting
		}
	case v.ETA > 0:
		text += bytesText(v.Rate) + "/s, " + spanText(seconds(v.ETA))
	default:
		text += bytesText(v.Rate) + "/s"
	}
	return text + " " + v.Ref
}

func newBar(w io.Writer, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(barWidth),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
		progressbar.OptionUseANSICodes(true), progressbar.OptionThrottle(100*time.Millisecond),
	)
}

func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= max(width, 10) {
		return s
	}
	return string(r[:max(width, 10)-1]) + "…"
}

// describe says what a job does, in one line.
func describe(v agent.Job, since time.Duration) string {
	text := string(v.Status)
	if v.Status == agent.Fetching && v.Total > 0 {
		text += fmt.Sprintf(" %d %% of %s", v.Completed*100/v.Total, bytesText(v.Total)) + ", " + amounts(v)
	} else {
		if v.Waiting != "" {
			text += ": " + v.Waiting
		}
		if since > 2*time.Second {
			text += " (" + spanText(since) + ")"
		}
	}
	return text
}

// amounts says how fast and, always, where the bytes came from.
func amounts(v agent.Job) string {
	parts := []string{bytesText(v.Rate) + "/s"}
	if v.ETA > 0 {
		parts = append(parts, spanText(seconds(v.ETA))+" left")
	}
	parts = append(parts, sources(v.Upstream, v.FromPeers(), v.Here))
	if v.Idle > 3 {
		parts = append(parts, fmt.Sprintf("last byte %s ago", spanText(seconds(v.Idle))))
		if v.Waiting != "" {
			parts = append(parts, "waiting for "+v.Waiting)
		}
		if v.Host != "" {
			parts = append(parts, "upstream is "+v.Host)
		}
		if v.Unheld > 0 {
			parts = append(parts, fmt.Sprintf("%d pieces nobody holds yet%s", v.Unheld, gaps(v.Gaps)))
		}
	}
	return strings.Join(parts, ", ")
}

// gaps says which pieces, of which files: the first few, all are in --format json.
func gaps(list []agent.Gap) string {
	const most = 4
	var parts []string
	for _, g := range list[:min(len(list), most)] {
		numbers := fmt.Sprint(g.First)
		if g.Last > g.First {
			numbers = fmt.Sprintf("%d-%d", g.First, g.Last)
		}
		parts = append(parts, clean(g.Path)+" "+numbers)
	}
	if len(list) > most {
		parts = append(parts, "…")
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func sources(upstream, peers, here int64) string {
	return fmt.Sprintf("upstream %s, peers %s, already here %s", bytesText(upstream), bytesText(peers), bytesText(here))
}

// linger keeps a one-shot member in the swarm for as long as others still take
// pieces from it, so that nobody has to ask the Hub for them again.
func (s *session) linger(ctx context.Context, peers func() []agent.Peer) {
	const (
		step  = 250 * time.Millisecond
		quiet = 6  // steps without a byte going out
		most  = 60 // steps
	)
	tick := time.NewTicker(step)
	defer tick.Stop()
	sent, still := int64(-1), 0
	for range most {
		var out int64
		neighbours := 0
		for _, p := range peers() {
			out += p.Out
			if p.Neighbour {
				neighbours++
			}
		}
		if still++; out != sent {
			sent, still = out, 0
		}
		if neighbours == 0 || still >= quiet {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
