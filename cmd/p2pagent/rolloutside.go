package main

import (
	"context"
	"errors"

	"p2pagent/internal/desired"
	"p2pagent/internal/rollout"
	"p2pagent/internal/wire"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/swarm"
)

// The parts satisfy what rollouts ask for.
var (
	_ rollout.Keeper  = (*desired.Keeper)(nil)
	_ rollout.Members = (*swarm.Members)(nil)
	_ rollout.Asker   = (*swarm.Node)(nil)
)

func (m *member) newFleet() *rollout.Fleet {
	return rollout.NewFleet(rollout.FleetOptions{
		Members: m.members, Asker: m.node, Keeper: m.keeper, Check: checkPatterns, Refuse: m.refuseRollouts,
		Kind: func(err error) string { return string(classify(err)) }, Logger: m.log.With("part", "rollout"),
	})
}

func (m *member) refuseRollouts() error {
	switch {
	case !m.daemon:
		return agent.Errorf(agent.Denied, "it takes no rollouts: it is here for one command")
	case !m.settings.TakeRollouts:
		return agent.Errorf(agent.Denied, "it takes no rollouts: --accept-rollouts=false")
	}
	return nil
}

func (m *member) takeRollout(ctx context.Context, from string, w wire.Rollout, report func(wire.Report) error) error {
	return m.fleet.Take(ctx, from, w, report)
}

// rollout asks the members that the request means, all for the commit that its ref
// means now.
func (m *member) rollout(ctx context.Context, r agent.RolloutRequest, watch func(rollout.Table)) (rollout.Table, error) {
	t, err := rollout.Run(ctx, rollout.Options{
		Swarm: m.fleet, Selector: r.Selector, Wait: r.Wait, Lasting: func(kind string) bool { return lasting[agent.Kind(kind)] },
		Order: func(ctx context.Context) (rollout.Order, string, error) {
			if err := m.node.Settled(ctx); err != nil {
				return rollout.Order{}, "", err
			}
			commit, notice, err := m.agent.Resolve(ctx, r.Ref)
			return rollout.Order{Ref: r.Ref, Commit: commit, Include: r.Include, Exclude: r.Exclude}, notice, err
		},
	}, watch)
	if errors.Is(err, rollout.ErrNobody) {
		err = &agent.Error{Kind: agent.Usage, Message: err.Error(), Err: err, Hint: "labels are of the agents' settings: --label"}
	}
	return t, err
}
