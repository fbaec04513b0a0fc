package page

import (
	"context"
	"time"
)

// Source tells what the page shows.
type Source interface {
	// View is the agent and its swarm now. It is asked for once a second at most.
	View(ctx context.Context) (View, error)
	// Counts is cheap: it is asked for every few seconds as long as the agent runs.
	Counts(ctx context.Context) (Counts, error)
	// Map tells who holds what of the model with the id, in strips of at most
	// MaxCells cells. A model that is not known has no strips.
	Map(ctx context.Context, id string) (Map, error)
}

// Counts are bytes since the agent started: files from upstream, pieces from
// members and to them.
type Counts struct {
	Upstream int64 `json:"upstream"`
	In       int64 `json:"in"`
	Out      int64 `json:"out"`
}

// View is an agent and its swarm at one moment.
type View struct {
	Self    Self
	Models  []Model
	Members []Member // the others
}

// Self is the agent whose page this is.
type Self struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Upstream  bool      `json:"upstream"` // may fetch from the Hub
	Settled   bool      `json:"settled"`
	Waiting   string    `json:"waiting,omitempty"`
	JoinFault string    `json:"join_fault,omitempty"`
	Members   int       `json:"members"`   // other members in sight
	Near      int       `json:"near"`      // of them, with a stream
	Asked     int       `json:"asked"`     // of those, asked what they hold
	Answered  int       `json:"answered"`  // that said it
	Cache     int64     `json:"cache"`     // bytes in the cache
	Free      int64     `json:"free"`      // bytes that still fit
	Uploading int       `json:"uploading"` // pieces
}

// Model is one commit of a repository: on this node, and over the members that
// said what they hold.
type Model struct {
	ID      string `json:"id"`
	Ref     string `json:"ref"` // with a revision if one is known
	Commit  string `json:"commit"`
	State   string `json:"state"` // of the job; "ready", "part" or "elsewhere" without one
	Waiting string `json:"waiting,omitempty"`
	Reason  string `json:"reason,omitempty"` // of a failure

	Total     int64   `json:"total"`     // bytes; 0: not known here
	Completed int64   `json:"completed"` // of them here, verified
	Here      int64   `json:"here"`      // were here before the last job
	Upstream  int64   `json:"upstream"`  // came from upstream in it
	Peers     int64   `json:"peers"`     // and from members
	Rate      int64   `json:"rate"`      // bytes a second
	ETA       float64 `json:"eta,omitempty"`

	Fleet Fleet `json:"fleet"`
}

// Fleet is a model over all members that answered, this one included.
type Fleet struct {
	Ready    int   `json:"ready"`    // members that have it
	Partly   int   `json:"partly"`   // that have a part of it
	Upstream int64 `json:"upstream"` // bytes that they got from the Hub for it
	Size     int64 `json:"size"`     // of the model, by whoever knows most of it
}

// Member is another member as this one sees it.
type Member struct {
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Near   bool      `json:"near"` // a stream is open
	Rate   int64     `json:"rate"` // bytes a second of one request; 0 unknown
	In     int64     `json:"in"`
	Out    int64     `json:"out"`
	Silent int       `json:"silent,omitempty"` // seconds, when it should have spoken
	Fault  string    `json:"fault,omitempty"`
	Banned string    `json:"banned,omitempty"` // why
	Until  time.Time `json:"until,omitzero"`
}

// Map is who holds what of a model. Its pieces lie in the order of the files, cut
// into Cells equal stretches.
type Map struct {
	Pieces int
	Cells  int
	Strips []Strip
}

// Strip is what one member holds: for each cell how much, '0' for nothing to '9'
// for all.
type Strip struct {
	ID, Name string
	Levels   string
}

// MaxCells bounds the cells of a strip: more than a screen can tell apart.
const MaxCells = 240

// Bounds of one answer. What goes beyond is counted and not shown.
const (
	maxModels  = 64
	maxMembers = 2048
	maxName    = 256 // bytes of any text
)
