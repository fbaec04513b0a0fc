package agent

import (
	"maps"
	"time"

	"p2pagent/pkg/pieces"
)

// State says what a job is doing.
type State string

// The states of a job, in the order in which it passes through them.
const (
	Resolving  State = "resolving"
	Listing    State = "listing"
	Checking   State = "checking space"
	Adopting   State = "adopting"
	Fetching   State = "fetching"
	Committing State = "committing"
	Done       State = "done"
	Failed     State = "failed"
)

// Job is what there is to say about a job at one instant. It is sent over the
// control API: fields are only ever added.
type Job struct {
	ID       string    `json:"id"`
	Ref      string    `json:"ref"`
	Commit   string    `json:"commit,omitempty"`
	File     string    `json:"file,omitempty"` // the one that is wanted
	Include  []string  `json:"include,omitempty"`
	Exclude  []string  `json:"exclude,omitempty"`
	Status   State     `json:"status"`
	Waiting  string    `json:"waiting,omitempty"` // for what, when nothing moves
	Notice   string    `json:"notice,omitempty"`  // what the caller should know of the result
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Callers  int       `json:"callers"` // how many wait for it

	Files     int              `json:"files"`
	Total     int64            `json:"total"`     // bytes of the wanted files
	Completed int64            `json:"completed"` // of them here, verified
	Here      int64            `json:"here"`      // were here already, in other files too
	Upstream  int64            `json:"upstream"`  // came from upstream
	Peers     map[string]int64 `json:"peers,omitempty"`
	Missing   int              `json:"missing"`        // pieces that are not here
	Unheld    int              `json:"unheld"`         // of them, held by no member in sight
	Gaps      []Gap            `json:"gaps,omitempty"` // which those are, the first 32 runs
	Rate      int64            `json:"rate"`           // bytes a second, over the last seconds
	ETA       float64          `json:"eta,omitempty"`  // seconds; 0 when unknown
	Idle      float64          `json:"idle,omitempty"` // seconds since the last byte came
	Host      string           `json:"host,omitempty"` // that upstream's bytes were last asked of

	Path   string `json:"path,omitempty"`   // of the snapshot, when done
	Kind   Kind   `json:"kind,omitempty"`   // of the failure
	Reason string `json:"reason,omitempty"` // of the failure

	arriving int64  // from upstream, pieces that are not whole yet included
	trouble  string // of the last request upstream; "" when it was answered
	found    int64  // of Here, what was so before anything was copied
}

// Gap is a run of pieces of one file that no member in sight holds.
type Gap struct {
	Blob  pieces.Blob `json:"-"`
	Path  string      `json:"path"`
	First int         `json:"first"` // piece numbers, from 0
	Last  int         `json:"last"`
}

// FromPeers returns the bytes that came from other members.
func (j Job) FromPeers() int64 {
	var n int64
	for _, b := range j.Peers {
		n += b
	}
	return n
}

// Ended tells whether the job will change no more.
func (j Job) Ended() bool { return j.Status == Done || j.Status == Failed }

// received is what came over the network.
func (j Job) received() int64 { return j.Upstream + j.FromPeers() }

// take copies what the swarm reports into the job. Bytes that came twice, at the
// end of a transfer, count for their source but complete nothing.
func (j *Job) take(p Progress) {
	j.Here = j.found + p.Copied
	j.Upstream, j.arriving, j.Peers = p.Upstream, p.Arriving, maps.Clone(p.Peers)
	j.Missing, j.Unheld, j.Gaps, j.Waiting = p.Missing, p.Unheld, p.Gaps, p.Waiting
	j.Completed = min(j.Here+j.received(), j.Total)
	if j.Waiting == "upstream" && j.trouble != "" { // which is asked again and again before the swarm hears of it
		j.Waiting += ", after: " + j.trouble
	}
}

// finish makes the sums right: whatever did not come over the network for this
// job was here, or came for another job.
func (j *Job) finish() {
	j.Completed, j.Missing, j.Unheld, j.Gaps = j.Total, 0, 0, nil
	j.Here = max(j.Total-j.received(), 0)
	j.Waiting = ""
}

// meter measures the rate at which a count of bytes grows. It is not safe for
// concurrent use.
type meter struct {
	samples []sample // oldest first, about one a second
	last    time.Time
	bytes   int64
}

type sample struct {
	at    time.Time
	bytes int64
}

// meterWindow is what a rate is a mean over: long enough to smooth the arrival of
// whole pieces, short enough that a stall shows.
const meterWindow = 10 * time.Second

// observe notes the count at an instant.
func (m *meter) observe(now time.Time, bytes int64) {
	if bytes > m.bytes || m.last.IsZero() {
		m.last = now
	}
	m.bytes = bytes
	if n := len(m.samples); n > 1 && now.Sub(m.samples[n-2].at) < time.Second {
		m.samples = m.samples[:n-1] // the newest one moves on until it is a second from the one before
	}
	m.samples = append(m.samples, sample{now, bytes})
	for len(m.samples) > 2 && now.Sub(m.samples[1].at) >= meterWindow {
		m.samples = m.samples[1:]
	}
}

// rate returns bytes a second between the oldest and the newest sample.
func (m *meter) rate() int64 {
	if len(m.samples) < 2 {
		return 0
	}
	first, last := m.samples[0], m.samples[len(m.samples)-1]
	elapsed := last.at.Sub(first.at).Seconds()
	if elapsed < 0.1 {
		return 0
	}
	return int64(float64(last.bytes-first.bytes) / elapsed)
}

// gauge fills in what changes with time alone.
func (j *Job) gauge(m *meter, now time.Time) {
	if j.Status != Fetching {
		j.Rate, j.Idle, j.ETA = 0, 0, 0
		return
	}
	m.observe(now, max(j.arriving, j.Upstream)+j.FromPeers())
	j.Rate, j.Idle, j.ETA = m.rate(), now.Sub(m.last).Seconds(), 0
	if j.Rate > 0 {
		j.ETA = float64(j.Total-j.Completed) / float64(j.Rate)
	}
}
