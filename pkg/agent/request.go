package agent

import (
	"encoding/json"
	"slices"
	"time"

	"p2pagent/pkg/pieces"
)

// Request asks for a snapshot on this node.
type Request struct {
	Ref     pieces.Ref
	Commit  pieces.Commit // what Ref is to mean; "" for what it means upstream now
	Include []string      // patterns of fnmatch; none means everything
	Exclude []string      // wins over Include
	Path    string        // this one file, with those of the same content, and no patterns; "" for all

	// token is the right of the caller, "" for none. Callers with other tokens have
	// other jobs: what they bring is the same, and in the swarm one fetch for all.
	token string

	// Tied ends the job when this caller leaves and no other waits for it. Without
	// it the job goes on.
	Tied bool
	// Watch, when not nil, is called from within Ensure at every change of state
	// and about twice a second. It holds up nobody but the caller.
	Watch func(Job)
}

// key is the same for requests that mean the same job.
func (r Request) key() string {
	include, exclude := canonicalPatterns(r.Include), canonicalPatterns(r.Exclude)
	b, err := json.Marshal([]any{r.Ref.String(), r.Commit, include, exclude, r.Path, tokenName(r.token)})
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}

func canonicalPatterns(p []string) []string {
	p = slices.Clone(p)
	slices.Sort(p)
	return slices.Compact(p)
}

// Result says where a snapshot is and how it got there. It is sent over the
// control API: fields are only ever added.
type Result struct {
	Ref      string           `json:"ref"`
	Commit   string           `json:"commit"`
	Path     string           `json:"path"` // absolute, of the snapshot folder
	Files    int              `json:"files"`
	Total    int64            `json:"total"`
	Here     int64            `json:"here"`
	Upstream int64            `json:"upstream"`
	Peers    map[string]int64 `json:"peers,omitempty"`
	Seconds  float64          `json:"seconds"`
	Notice   string           `json:"notice,omitempty"`
}

// FromPeers returns the bytes that came from other members.
func (r Result) FromPeers() int64 { return Job{Peers: r.Peers}.FromPeers() }

func resultOf(j Job) Result {
	return Result{
		Ref: j.Ref, Commit: j.Commit, Path: j.Path, Files: j.Files, Total: j.Total,
		Here: j.Here, Upstream: j.Upstream, Peers: j.Peers,
		Seconds: j.Finished.Sub(j.Started).Round(time.Millisecond).Seconds(), Notice: j.Notice,
	}
}
