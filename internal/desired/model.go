package desired

import (
	"slices"
	"time"

	"p2pagent/pkg/pieces"
)

// Model is what is to be on this node.
type Model struct {
	Ref     pieces.Ref
	Commit  pieces.Commit // what Ref is to mean here; "" for what it means upstream
	Pin     bool          // is not to be removed while it is desired
	Include []string      // patterns of fnmatch; none means everything
	Exclude []string      // wins over Include
	Refresh time.Duration // how often the meaning of a branch is asked anew; 0 is never
}

// same tells whether two models ask for the same.
func (m Model) same(o Model) bool {
	return m.Ref == o.Ref && m.Commit == o.Commit && m.Pin == o.Pin && m.Refresh == o.Refresh &&
		slices.Equal(m.Include, o.Include) && slices.Equal(m.Exclude, o.Exclude)
}

// moves tells whether the model may mean another commit tomorrow.
func (m Model) moves() bool { return m.Commit == "" && !pieces.IsCommit(m.Ref.Revision) }

// Phase says what is being done about a model.
type Phase string

// The phases of a model.
const (
	Waiting  Phase = "waiting"  // for its turn
	Fetching Phase = "fetching" // or looked up, or checked
	Here     Phase = "here"     // complete and verified, as its patterns say
	Failed   Phase = "failed"   // tried again at Again
	Gone     Phase = "gone"     // was removed here; fetched again at the next reload or start
)

// Phases lists them.
var Phases = []Phase{Waiting, Fetching, Here, Failed, Gone}

// Where a model was named.
const (
	FromConfig  = "config"
	FromRollout = "rollout"
)

// State is how it stands with a model. It is sent over the control API: fields are
// only ever added.
type State struct {
	Ref     string   `json:"ref"`
	Commit  string   `json:"commit,omitempty"` // as far as known
	From    string   `json:"from"`             // config or rollout
	Pin     bool     `json:"pin"`
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`

	Phase  Phase     `json:"phase"`
	Kind   string    `json:"kind,omitempty"`   // of the last failure
	Reason string    `json:"reason,omitempty"` // of the last failure
	Tries  int       `json:"tries,omitempty"`  // failures in a row
	Again  time.Time `json:"again,omitzero"`   // when the next try is due

	Progress
}

// Progress counts bytes of the model's files.
type Progress struct {
	Doing     string `json:"doing,omitempty"` // in words, while it is fetched
	Total     int64  `json:"total"`
	Completed int64  `json:"completed"` // here, verified
	Here      int64  `json:"here"`      // were here already
	Upstream  int64  `json:"upstream"`  // came from upstream
	Peers     int64  `json:"peers"`     // came from members
	Rate      int64  `json:"rate"`      // bytes a second
}

// Change says what reading the list again changed, by reference.
type Change struct {
	Added     []string `json:"added"`
	Removed   []string `json:"removed"`
	Changed   []string `json:"changed"` // other patterns, pin or refresh
	Unchanged []string `json:"unchanged"`
}
