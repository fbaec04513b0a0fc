package rollout

import (
	"context"
	"slices"
	"time"

	"p2pagent/internal/desired"
)

// Keeper keeps models on this node; *desired.Keeper is one.
type Keeper interface {
	Add(m desired.Model) error
	State(ref string) (desired.State, bool)
}

// take has k keep what is ordered and, once that is durable, reports how far it is,
// about every so often, until it is here, is not kept any more, ctx ends, or report
// fails. kind names the kind of an error.
func take(ctx context.Context, k Keeper, o Order, every time.Duration, kind func(error) string, report func(Report) error) error {
	m := desired.Model{Ref: o.Ref, Commit: o.Commit, Pin: true, Include: o.Include, Exclude: o.Exclude}
	if err := k.Add(m); err != nil {
		return report(Report{State: Refused, Kind: kind(err), Reason: err.Error()})
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		r := look(k, o)
		if err := report(r); err != nil || r.State == Here || r.State == Refused {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// look asks the keeper how far it is.
func look(k Keeper, o Order) Report {
	s, ok := k.State(o.Ref.String())
	if !ok || s.From != desired.FromRollout || s.Commit != string(o.Commit) || !slices.Equal(s.Include, o.Include) || !slices.Equal(s.Exclude, o.Exclude) {
		return Report{State: Refused, Reason: "the node does not hold it any more: it was removed, or another rollout of it took the place of this one"}
	}
	return Report{
		State: states[s.Phase], Kind: s.Kind, Reason: s.Reason, Total: s.Total, Completed: s.Completed,
		Here: s.Progress.Here, Upstream: s.Upstream, Peers: s.Peers, Rate: s.Rate,
	}
}

var states = map[desired.Phase]State{
	desired.Waiting: Waiting, desired.Fetching: Fetching, desired.Here: Here, desired.Failed: Failed, desired.Gone: Refused,
}
