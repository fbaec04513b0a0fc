package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/desired"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

// history is an agent as wait sees it, one step a question; the last one stays.
type history []moment

type moment struct {
	shown agent.Snapshot
	fault error
	jobs  []agent.Job
	want  []desired.State
	hangs bool
}

type replay struct {
	steps history
	at    int
}

func (r *replay) Show(ctx context.Context, _ pieces.Ref) (agent.Snapshot, []agent.File, error) {
	now := r.steps[min(r.at, len(r.steps)-1)]
	r.at++
	if now.hangs {
		<-ctx.Done()
		return agent.Snapshot{}, nil, context.Cause(ctx)
	}
	return now.shown, nil, now.fault
}

func (r *replay) Jobs(context.Context) ([]agent.Job, error) {
	return r.steps[min(r.at-1, len(r.steps)-1)].jobs, nil
}

func (r *replay) Status(context.Context) (agent.Status, error) {
	return agent.Status{Desired: r.steps[min(r.at-1, len(r.steps)-1)].want}, nil
}

var (
	absent   = moment{fault: agent.Errorf(agent.NotFound, "not in the cache")}
	noAgent  = moment{fault: agent.Errorf(agent.NoAgent, "no agent on /run/x")}
	half     = moment{shown: agent.Snapshot{Commit: "c", Files: 1, Listed: 2}}
	whole    = moment{shown: agent.Snapshot{Commit: "c", Path: "/p", Complete: true}}
	fetching = moment{fault: absent.fault, jobs: []agent.Job{{Ref: "org/name@main", Status: agent.Resolving, Waiting: "the Hub"}}}
	failed   = moment{fault: absent.fault, jobs: []agent.Job{{Ref: "org/name@main", Status: agent.Failed, Reason: "disk full"}}}
	gone     = moment{fault: absent.fault, jobs: []agent.Job{{Ref: "org/name@main", Status: agent.Done}, {Ref: "org/name@main", Status: agent.Failed, Reason: "disk full"}}}
	others   = moment{fault: absent.fault, jobs: []agent.Job{{Ref: "org/other@main", Status: agent.Resolving}}}
)

// TestAwaited: whatever an agent that starts, fetches, fails and fetches again
// says, wait ends when the snapshot is complete, at its deadline, or when no time
// will help, and says meanwhile what is missing.
func TestAwaited(t *testing.T) {
	for name, c := range map[string]struct {
		steps history
		said  []string
		took  time.Duration
		fault string // part of the error; "" for none
		code  int
	}{
		"here": {steps: history{whole}},
		"desired in part": {
			steps: history{
				{fault: absent.fault, want: []desired.State{{Ref: "org/name@main", Phase: desired.Failed, Tries: 2, Reason: "gated"}}},
				{shown: half.shown, want: []desired.State{{Ref: "org/name@main", Phase: desired.Fetching}}},
				{shown: half.shown, want: []desired.State{{Ref: "org/name@main", Phase: desired.Here, Commit: "older"}}},
				{shown: agent.Snapshot{Commit: "c", Path: "/p", Files: 1, Listed: 2}, want: []desired.State{{Ref: "org/name@main", Phase: desired.Here, Commit: "c"}}},
			}, took: 3 * time.Second,
			said: []string{
				"failed 2 times, again at " + time.Time{}.Local().Format(time.TimeOnly) + ": gated",
				"1/2 files are here, and no job brings the rest", "1/2 files are here, and no job brings the rest",
			},
		},
		"desired and removed": {
			steps: history{
				{fault: absent.fault, want: []desired.State{{Ref: "org/name@main", Phase: desired.Waiting}}},
				{fault: absent.fault, jobs: gone.jobs, want: []desired.State{{Ref: "org/name@main", Phase: desired.Gone}}},
				gone, whole,
			}, took: 3 * time.Second,
			said: []string{
				"its turn among the models that are fetched first", "it was removed here; the agent fetches it again when it starts or is reloaded",
				"not in the cache, and no job brings it",
			},
		},
		"comes": {
			steps: history{noAgent, absent, others, fetching, failed, half, whole}, took: 6 * time.Second,
			said: []string{
				"no agent on /run/x", "not in the cache, and no job brings it", "not in the cache, and no job brings it",
				"resolving: the Hub", "failed: disk full", "1/2 files are here, and no job brings the rest",
			},
		},
		"a silent agent":  {steps: history{{hangs: true}, whole}, took: askWait, said: []string{errSilentAgent.Error()}},
		"never":           {steps: history{failed}, took: time.Minute, fault: "wait org/name@main: failed: disk full: out of time: --timeout 1m0s", code: 8},
		"silent for ever": {steps: history{{hangs: true}}, took: time.Minute, fault: "did not answer within 30s: out of time: --timeout 1m0s", code: 8},
		"not allowed":     {steps: history{absent, {fault: agent.Errorf(agent.Denied, "no")}}, took: time.Second, fault: "no", code: 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, &timeoutError{time.Minute})
				defer cancel()
				began := time.Now()
				var said []string
				ref, err := refOf("org/name", "")
				if err != nil {
					t.Fatal(err)
				}
				x, err := awaited(ctx, ref, &replay{steps: c.steps}, func(why string) { said = append(said, why) })
				if c.fault == "" && (err != nil || x.Path != "/p") {
					t.Errorf("got %q and %v, want the path", x.Path, err)
				}
				if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || exitCode(err) != c.code) {
					t.Errorf("got error %v (exit code %d), want %q (%d)", err, exitCode(err), c.fault, c.code)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if c.said != nil && !slices.Equal(said, c.said) {
					t.Errorf("said %q, want %q", said, c.said)
				}
			})
		})
	}
}
