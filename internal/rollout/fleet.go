package rollout

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// Members says who is in the swarm; *swarm.Members does.
type Members interface {
	Self() swarm.Facts
	List() []swarm.Facts
	Lost() []swarm.Facts
}

// Asker has another member hold something; *swarm.Node does.
type Asker interface {
	Rollout(ctx context.Context, to swarm.Facts, order wire.Rollout, heard func(wire.Report)) error
}

// FleetOptions are what a Fleet is made of.
type FleetOptions struct {
	Members Members
	Asker   Asker
	Keeper  Keeper
	// Refuse says why this member takes no rollouts of others; nil when it does, or
	// always.
	Refuse func() error
	// Check judges patterns, Kind names the kind of an error.
	Check  func(include, exclude []string) error
	Kind   func(error) string
	Logger *slog.Logger
}

// Fleet joins rollouts to a member of the swarm: it asks the others, and takes what
// they ask.
type Fleet struct{ FleetOptions }

// NewFleet starts nothing.
func NewFleet(o FleetOptions) *Fleet { return &Fleet{o} }

// Nodes implements Swarm.
func (f *Fleet) Nodes() []Node {
	out := []Node{nodeOf(f.Members.Self(), false)}
	for _, facts := range f.Members.List() {
		out = append(out, nodeOf(facts, false))
	}
	for _, facts := range f.Members.Lost() {
		out = append(out, nodeOf(facts, true))
	}
	return out
}

func nodeOf(f swarm.Facts, lost bool) Node {
	n := Node{ID: f.Peer.String(), Name: f.Name, Labels: f.Labels, Lost: lost}
	if len(f.Addrs) > 0 {
		n.Addr = f.Addrs[0]
	}
	return n
}

var errNotInSight = errors.New("not in sight")

// Ask implements Swarm. This member is told as the others are, without the network.
func (f *Fleet) Ask(ctx context.Context, id string, o Order, every time.Duration, heard func(Report)) error {
	if id == f.Members.Self().Peer.String() {
		return take(ctx, f.Keeper, o, every, f.Kind, func(r Report) error { heard(r); return nil })
	}
	order := wire.Rollout{Ref: o.Ref.String(), Commit: o.Commit, Include: o.Include, Exclude: o.Exclude, Every: int64(every.Seconds())}
	for _, facts := range f.Members.List() {
		if facts.Peer.String() == id {
			return f.Asker.Rollout(ctx, facts, order, func(r wire.Report) { heard(reportOf(r)) })
		}
	}
	return errNotInSight
}

// Take holds what another member asks for and reports on it. It has the shape that the
// swarm's node asks for.
func (f *Fleet) Take(ctx context.Context, from string, w wire.Rollout, report func(wire.Report) error) error {
	tell := func(r Report) error { return report(wireReport(r)) }
	o, err := f.orderOf(w)
	if f.Refuse != nil {
		err = cmp.Or(f.Refuse(), err)
	}
	if err != nil {
		f.Logger.Warn("rollout refused", "from", from, "error", err)
		return tell(Report{State: Refused, Kind: f.Kind(err), Reason: err.Error()})
	}
	f.Logger.Info("rollout", "ref", o.Ref.String(), "commit", string(o.Commit), "from", from)
	return take(ctx, f.Keeper, o, time.Duration(w.Every)*time.Second, f.Kind, tell)
}

// orderOf checks what a member asks for as if a caller had.
func (f *Fleet) orderOf(w wire.Rollout) (Order, error) {
	ref, err := pieces.ParseRef(w.Ref)
	if err == nil {
		_, err = pieces.ParseCommit(string(w.Commit))
	}
	if err == nil && pieces.IsCommit(ref.Revision) && ref.Revision != string(w.Commit) {
		err = fmt.Errorf("%s can't mean commit %s", ref, w.Commit)
	}
	if err == nil {
		err = f.Check(w.Include, w.Exclude)
	}
	return Order{Ref: ref, Commit: w.Commit, Include: w.Include, Exclude: w.Exclude}, err
}

// stages are the states of a node on the wire.
var stages = map[State]wire.Stage{
	Refused: wire.Refused, Waiting: wire.Waiting, Fetching: wire.Fetching, Here: wire.Here, Failed: wire.Failed,
}

func wireReport(r Report) wire.Report {
	return wire.Report{
		Stage: stages[r.State], Kind: r.Kind, Reason: shortened(r.Reason, wire.MaxReason-len(r.Kind)), Total: r.Total, Completed: r.Completed,
		Here: r.Here, Upstream: r.Upstream, Peers: r.Peers, Rate: r.Rate,
	}
}

// shortened keeps the front of a text that is longer than so many bytes.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

func reportOf(w wire.Report) Report {
	r := Report{
		Kind: w.Kind, Reason: w.Reason, Total: w.Total, Completed: w.Completed,
		Here: w.Here, Upstream: w.Upstream, Peers: w.Peers, Rate: w.Rate,
	}
	for state, stage := range stages {
		if stage == w.Stage {
			r.State = state
		}
	}
	return r
}
