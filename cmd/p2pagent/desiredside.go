package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"p2pagent/internal/desired"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

// newKeeper has the agent bring what is desired.
func (m *member) newKeeper() (*desired.Keeper, error) {
	return desired.New(desired.Options{
		Fetch: m.bringDesired, Notebook: notebook{m.settings.StateDir, rolloutsFile}, Logger: m.log.With("part", "desired"),
		Rollouts: func(refs []pieces.Ref) error { return m.agent.PinOnly(agent.ByRollout, refs) },
		Kind:     func(err error) (string, bool) { kind := classify(err); return string(kind), lasting[kind] },
	})
}

// desire makes these the models that the configuration wants here.
func (m *member) desire(models []desired.Model) (desired.Change, error) {
	var pinned []pieces.Ref
	for _, x := range models {
		if x.Pin {
			pinned = append(pinned, x.Ref)
		}
	}
	if err := m.agent.PinOnly(agent.ByConfig, pinned); err != nil {
		return desired.Change{}, err
	}
	return m.keeper.Set(models), nil
}

// lasting kinds of failure stay as they are when tried again at once.
var lasting = map[agent.Kind]bool{
	agent.Usage: true, agent.NotFound: true, agent.Denied: true, agent.NoSpace: true, agent.Integrity: true,
}

func (m *member) bringDesired(ctx context.Context, want desired.Model, told func(desired.Progress)) (pieces.Commit, error) {
	res, err := m.agent.Ensure(ctx, agent.Request{
		Ref: want.Ref, Commit: want.Commit, Include: want.Include, Exclude: want.Exclude, Tied: true,
		Watch: func(j agent.Job) { told(progressOf(j)) },
	})
	return pieces.Commit(res.Commit), err
}

func progressOf(j agent.Job) desired.Progress {
	p := desired.Progress{
		Doing: string(j.Status), Total: j.Total, Completed: j.Completed, Here: j.Here,
		Upstream: j.Upstream, Peers: j.FromPeers(), Rate: j.Rate,
	}
	if j.Waiting != "" {
		p.Doing += ": " + j.Waiting
	}
	return p
}

// countPhases names every phase, so that series are there from the start.
func countPhases(states []desired.State) map[string]int {
	out := map[string]int{}
	for _, p := range desired.Phases {
		out[string(p)] = 0
	}
	for _, s := range states {
		out[string(s.Phase)]++
	}
	return out
}

// desiredRows say how it stands with desired models, and what is wrong with which.
func desiredRows(states []desired.State) [][]string {
	if len(states) == 0 {
		return nil
	}
	count := countPhases(states)
	var sums []string
	for _, p := range desired.Phases {
		if n := count[string(p)]; n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", n, p))
		}
	}
	rows := [][]string{{"desired", fmt.Sprintf("%s: %s", counted(len(states), "model"), strings.Join(sums, ", "))}}
	for _, s := range states {
		if s.Phase == desired.Failed {
			rows = append(rows, []string{"failed", s.Ref + ", " + failureText(s)})
		}
	}
	return rows
}

func failureText(s desired.State) string {
	return fmt.Sprintf("%s, again at %s: %s", counted(s.Tries, "time"), s.Again.Local().Format(time.TimeOnly), s.Reason)
}

// printModels writes them as the file has them; origin is a comment or "".
func printModels(w io.Writer, models []desired.Model, origin string) {
	if len(models) == 0 {
		return
	}
	fmt.Fprintf(w, "%s:%s\n", modelsKey, origin)
	for _, m := range models {
		raw, err := yaml.Marshal(flow(m.Fields()))
		if err != nil {
			panic(err) // strings, switches and lists always encode
		}
		fmt.Fprintf(w, "  - %s\n", clean(strings.TrimSpace(string(raw))))
	}
}
