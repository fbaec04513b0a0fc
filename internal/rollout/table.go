package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// Order is what the members are asked to hold.
type Order struct {
	Ref     pieces.Ref
	Commit  pieces.Commit // what Ref is to mean on all of them
	Include []string
	Exclude []string
}

// Node is a member of the swarm.
type Node struct {
	ID     string
	Name   string // for people
	Labels map[string]string
	Addr   string // where it listens
	Lost   bool   // not in sight, but was lately
}

// Selector is what the labels of a node must have.
type Selector map[string]string

// means tells whether the selector means the node: every label is as it says.
func (s Selector) means(n Node) bool {
	for k, v := range s {
		if got, ok := n.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func (s Selector) String() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(s)) {
		out = append(out, k+"="+s[k])
	}
	return strings.Join(out, ",")
}

// maxNamed bounds the labels that an error names.
const maxNamed = 10

// nobody says which labels nodes have with the keys of a selector that means none.
func (s Selector) nobody(nodes []Node) error {
	have := map[string]bool{}
	for _, n := range nodes {
		for k := range s {
			if v, ok := n.Labels[k]; ok {
				have[k+"="+v] = true
			}
		}
	}
	list := slices.Sorted(maps.Keys(have))
	switch {
	case len(list) == 0:
		return fmt.Errorf("%w %q: none has a label %s", ErrNobody, s, strings.Join(slices.Sorted(maps.Keys(s)), " or "))
	case len(list) > maxNamed:
		list = append(list[:maxNamed], "…")
	}
	return fmt.Errorf("%w %q: there are %s", ErrNobody, s, strings.Join(list, ", "))
}

// State is how it stands with one node.
type State string

// The states of a node.
const (
	Asking   State = "asking"   // it has not answered yet
	Refused  State = "refused"  // it does not take the rollout
	Waiting  State = "waiting"  // it will fetch when it is the model's turn
	Fetching State = "fetching" // or looks for what is here
	Here     State = "here"     // complete and verified
	Failed   State = "failed"   // it tries again by itself
	Missing  State = "missing"  // it can't be asked now
)

// Report is what a node says of itself. Numbers are bytes.
type Report struct {
	State     State  `json:"state"`
	Kind      string `json:"kind,omitempty"` // of the failure
	Reason    string `json:"reason,omitempty"`
	Total     int64  `json:"total"`
	Completed int64  `json:"completed"` // here, verified
	Here      int64  `json:"here"`      // were here before
	Upstream  int64  `json:"upstream"`  // came from upstream
	Peers     int64  `json:"peers"`     // came from members
	Rate      int64  `json:"rate"`      // a second
}

// ETA is the time that is left; 0 when it is not known.
func (r Report) ETA() time.Duration {
	if r.State != Fetching || r.Rate <= 0 {
		return 0
	}
	return time.Duration(float64(r.Total-r.Completed) / float64(r.Rate) * float64(time.Second))
}

// Row is a node and what it last said.
type Row struct {
	Node string `json:"node"`
	Peer string `json:"peer"`
	Report
	Seconds float64 `json:"eta,omitempty"` // left; 0 when not known
}

// Table is a rollout at one moment. It is sent over the control API: fields are only
// ever added.
type Table struct {
	Ref    string `json:"ref"`
	Commit string `json:"commit,omitempty"` // "" until it is known
	Notice string `json:"notice,omitempty"` // what who asked should know of the commit
	Nodes  []Row  `json:"nodes"`            // by name
	Told   int    `json:"told"`             // nodes that have taken the rollout
	Here   int    `json:"here"`             // of them complete
	Failed int    `json:"failed"`           // refused, missing, or failed
}

// sum counts the rows.
func (t *Table) sum() {
	slices.SortFunc(t.Nodes, func(a, b Row) int { return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Peer, b.Peer)) })
	for i := range t.Nodes {
		r := &t.Nodes[i]
		r.Seconds = r.ETA().Seconds()
		switch r.State {
		case Waiting, Fetching:
			t.Told++
		case Here:
			t.Told++
			t.Here++
		case Failed:
			t.Told++
			t.Failed++
		case Refused, Missing:
			t.Failed++
		}
	}
}
