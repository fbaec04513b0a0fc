package agent

import (
	"time"

	"p2pagent/internal/desired"
	"p2pagent/internal/rollout"
	"p2pagent/pkg/pieces"
)

// SchemaVersion is the version of every JSON answer. It changes only when a
// field changes its meaning or goes away.
const SchemaVersion = 1

// About is what a process knows of itself beyond its jobs.
type About struct {
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Name     string `json:"name"`    // how other members call it
	PeerID   string `json:"peer_id"` // and know it
	HubCache string `json:"hub_cache"`
	StateDir string `json:"state_dir"`
	Endpoint string `json:"endpoint"`
	Gateway  string `json:"gateway,omitempty"` // host:port where Hub clients find this node
	// GatewayXet tells that it serves files as Xet too.
	GatewayXet bool   `json:"gateway_xet,omitempty"`
	Upstream   bool   `json:"upstream"` // may fetch from the Hub
	Offline    bool   `json:"offline"`
	SwarmKey   string `json:"swarm_key"` // its fingerprint
	Free       int64  `json:"free"`      // bytes that fit on the disk

	JoinFault string    `json:"join_fault,omitempty"` // why no member was joined
	Refused   []Refusal `json:"refused,omitempty"`    // strangers that were not let in
}

// Refusal is somebody who tried to be a member and was not let in.
type Refusal struct {
	Who    string    `json:"who"` // name, peer id or address, as far as known
	Reason string    `json:"reason"`
	Count  int       `json:"count"`
	Last   time.Time `json:"last"`
}

// Status says what this agent is and how it is.
type Status struct {
	SchemaVersion int `json:"schema_version"`
	About
	Started time.Time `json:"started"`
	Settled bool      `json:"settled"` // has joined its swarm, or has none to join
	Members int       `json:"members"` // other members in sight
	Banned  []Peer    `json:"banned,omitempty"`
	Jobs    int       `json:"jobs"` // running
	Waiting string    `json:"waiting,omitempty"`

	Desired []desired.State `json:"desired,omitempty"` // models that are kept here
}

// Peer is another member as this one sees it.
type Peer struct {
	Name      string  `json:"name"`
	PeerID    string  `json:"peer_id"`
	Neighbour bool    `json:"neighbour"` // a swarm stream is open
	Silent    float64 `json:"silent"`    // seconds since its last word
	Rate      float64 `json:"rate"`      // bytes a second of one request; 0 unknown
	In        int64   `json:"in"`        // bytes of verified pieces from it
	Out       int64   `json:"out"`       // and to it
	Fault     string  `json:"fault,omitempty"`

	Banned      string    `json:"banned,omitempty"` // why
	BannedUntil time.Time `json:"banned_until,omitzero"`
}

// Snapshot is what ls shows of a snapshot in the cache.
type Snapshot struct {
	Ref      string    `json:"ref"` // with its first revision, else with its commit
	Repo     string    `json:"repo"`
	Commit   string    `json:"commit"`
	Path     string    `json:"path"`
	Revision []string  `json:"revisions,omitempty"` // refs that mean this commit
	RefTime  time.Time `json:"ref_time,omitzero"`   // when they were written
	Files    int       `json:"files"`               // here
	Listed   int       `json:"listed"`              // in the outline; 0 when it is not known
	Size     int64     `json:"size"`                // bytes here
	Complete bool      `json:"complete"`            // every listed file is here
	Seeded   bool      `json:"seeded"`              // not from the Hub
	Kept     bool      `json:"kept"`                // told to hold it: seed
	Pinned   bool      `json:"pinned"`              // never evicted
	PinnedBy []Holder  `json:"pinned_by,omitempty"`
	Used     time.Time `json:"used,omitzero"` // last, as eviction sees it; only ls looks it up

	// Manifest is the CID of the outline with the proofs held here, and Proven
	// tells whether every piece has one. Only show looks them up.
	Manifest string `json:"manifest,omitempty"`
	Proven   bool   `json:"proven,omitempty"`
}

// File is one file of a snapshot.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
	Pieces int    `json:"pieces"`
	Here   bool   `json:"here"`
}

// Problem is something that verify found.
type Problem struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

type (
	jobsAnswer struct {
		SchemaVersion int   `json:"schema_version"`
		Jobs          []Job `json:"jobs"`
	}
	peersAnswer struct {
		SchemaVersion int    `json:"schema_version"`
		Peers         []Peer `json:"peers"`
	}
	snapshotsAnswer struct {
		SchemaVersion int        `json:"schema_version"`
		Snapshots     []Snapshot `json:"snapshots"`
	}
	snapshotAnswer struct {
		SchemaVersion int `json:"schema_version"`
		Snapshot
		Contents []File `json:"contents"`
	}
	reloadAnswer struct {
		SchemaVersion int `json:"schema_version"`
		Reloaded
	}
	removeAnswer struct {
		SchemaVersion int `json:"schema_version"`
		Removed
	}
	pinAnswer struct {
		SchemaVersion int `json:"schema_version"`
		Pinned
	}
	errorAnswer struct {
		SchemaVersion int        `json:"schema_version"`
		Error         *wireError `json:"error"`
	}
	wireError struct {
		Kind    Kind   `json:"kind"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
)

func (e *Error) wire() *wireError { return &wireError{e.Kind, e.Message, e.Hint} }

func (e *wireError) unwire() error { return &Error{Kind: e.Kind, Message: e.Message, Hint: e.Hint} }

// Requests, as the client sends them.
type (
	fetchCall struct {
		Ref     string   `json:"ref"`
		Include []string `json:"include,omitempty"`
		Exclude []string `json:"exclude,omitempty"`
	}
	seedCall struct {
		Ref string `json:"ref"`
		Dir string `json:"dir,omitempty"`
	}
	verifyCall struct {
		Ref string `json:"ref"`
	}
	rolloutCall struct {
		Ref      string            `json:"ref"`
		Include  []string          `json:"include,omitempty"`
		Exclude  []string          `json:"exclude,omitempty"`
		Selector map[string]string `json:"selector,omitempty"`
		Wait     bool              `json:"wait,omitempty"`
	}
	removeCall struct {
		Ref    string `json:"ref"`
		DryRun bool   `json:"dry_run,omitempty"`
		Force  bool   `json:"force,omitempty"`
	}
	pinCall struct {
		Ref string `json:"ref"`
	}
)

// streamLine is one line of a streamed answer: exactly one of the others is
// set, as Type says.
type streamLine struct {
	SchemaVersion int        `json:"schema_version"`
	Type          string     `json:"type"` // progress, result, error
	Job           *Job       `json:"job,omitempty"`
	Verify        *Verifying `json:"verify,omitempty"`
	Result        *Result    `json:"result,omitempty"`
	Problems      []Problem  `json:"problems,omitempty"`
	Verdict       *Verdict   `json:"verdict,omitempty"`
	Pruned        *Pruned    `json:"pruned,omitempty"`
	Error         *wireError `json:"error,omitempty"`

	Rollout *rollout.Table `json:"rollout,omitempty"` // of progress, and of the result
}

const (
	typeProgress = "progress"
	typeResult   = "result"
	typeError    = "error"
)

// Verifying is how far a verify is.
type Verifying struct {
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
}

// RolloutRequest asks members to hold a snapshot.
type RolloutRequest struct {
	Ref      pieces.Ref
	Include  []string
	Exclude  []string
	Selector rollout.Selector // which members; empty means all
	Wait     bool             // until each has it or can't have it
}

// Reloaded is what reading the configuration again changed.
type Reloaded struct {
	Models  desired.Change `json:"models"`
	Restart []string       `json:"restart"` // settings that changed and count after a restart
}

// Removed is what a removal took away, or would.
type Removed struct {
	Ref    string `json:"ref"`
	Commit string `json:"commit"`
	Freed  int64  `json:"freed"` // bytes; files that other snapshots use stay
	DryRun bool   `json:"dry_run"`

	PinnedBy []Holder `json:"pinned_by,omitempty"`
	// Of a dry run only.
	InUse    string `json:"in_use,omitempty"` // by whom
	LastCopy bool   `json:"last_copy"`        // no other member in sight holds it
}

func parseRef(s string) (pieces.Ref, error) {
	ref, err := pieces.ParseRef(s)
	if err != nil {
		return pieces.Ref{}, Errorf(Usage, "%w", err)
	}
	return ref, nil
}
