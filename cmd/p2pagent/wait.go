package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/internal/desired"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

const waitLong = `Wait until a snapshot is complete on this node, and print the path of its folder as
the last line. Nothing is fetched: somebody else does that, or did.

An agent that does not run yet is waited for too. A snapshot that was fetched in
part is not complete, unless the configuration or a rollout wants just that part.`

// waitEvery is how often the agent is asked.
const waitEvery = time.Second

var errSilentAgent = fmt.Errorf("the agent did not answer within %v", askWait)

func (p *program) waitCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "wait REF", Short: "wait for a snapshot", Long: waitLong, Args: cobra.ExactArgs(1),
		Example: "  p2pagent wait org/name --timeout 10m",
	}
	s := p.newSession(cmd).withTimeout(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := refOf(args[0], "")
		if err != nil {
			return err
		}
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		x, err := awaited(ctx, ref, s.client(), s.sayWaiting(ref))
		if err != nil {
			return err
		}
		return s.printWaited(x)
	}
	return cmd
}

// watched is what wait asks of an agent.
type watched interface {
	Show(ctx context.Context, ref pieces.Ref) (agent.Snapshot, []agent.File, error)
	Jobs(ctx context.Context) ([]agent.Job, error)
	Status(ctx context.Context) (agent.Status, error)
}

// awaited returns the snapshot once all its files are here. Until then say hears,
// each time, what is missing.
func awaited(ctx context.Context, ref pieces.Ref, a watched, say func(why string)) (agent.Snapshot, error) {
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	why := "nothing known yet"
	for {
		x, now, err := lookFor(ctx, ref, a)
		here := now == "" && err == nil
		if ctx.Err() != nil && !here {
			return x, fmt.Errorf("wait %s: %s: %w", ref, why, context.Cause(ctx))
		}
		if err != nil || here {
			return x, err
		}
		why = now
		say(why)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// lookFor asks once, and says why the snapshot is not here: "" when it is. It fails
// when waiting won't help.
func lookFor(ctx context.Context, ref pieces.Ref, a watched) (agent.Snapshot, string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, errSilentAgent)
	defer cancel()
	x, _, err := a.Show(ctx, ref)
	if err == nil && x.Complete {
		return x, "", nil
	}
	why := ""
	if err == nil || classify(err) == agent.NotFound {
		why, err = absence(ctx, ref, x, a)
	}
	switch {
	case err == nil:
		return x, why, nil
	case classify(err) == agent.NoAgent || ctx.Err() != nil:
		return x, err.Error(), nil
	}
	return x, "", err
}

// absence says what is known of a snapshot that is not complete: what became of the
// desired model, the job that brings it or failed to, else how much is here. A desired
// model that is here as its patterns say is not absent.
func absence(ctx context.Context, ref pieces.Ref, x agent.Snapshot, a watched) (string, error) {
	st, err := a.Status(ctx)
	if err != nil {
		return "", err
	}
	if i := slices.IndexFunc(st.Desired, func(s desired.State) bool { return s.Ref == ref.String() }); i >= 0 {
		switch m := st.Desired[i]; {
		case m.Phase == desired.Here && x.Commit == m.Commit:
			return "", nil
		case m.Phase == desired.Failed:
			return "failed " + failureText(m), nil
		case m.Phase == desired.Gone:
			return "it was removed here; the agent fetches it again when it starts or is reloaded", nil
		case m.Phase == desired.Waiting:
			return "its turn among the models that are fetched first", nil
		}
	}
	jobs, err := a.Jobs(ctx)
	return absentJob(ref, x, jobs), err
}

// absentJob goes by the last job for the ref: those that ended come after those that
// run, the latest first.
func absentJob(ref pieces.Ref, x agent.Snapshot, jobs []agent.Job) string {
	i := slices.IndexFunc(jobs, func(j agent.Job) bool { return j.Ref == ref.String() })
	switch {
	case i >= 0 && jobs[i].Status != agent.Done:
		return string(jobs[i].Status) + ": " + detail(jobs[i])
	case x.Commit == "":
		return "not in the cache, and no job brings it"
	}
	return fmt.Sprintf("%s files are here, and no job brings the rest", fileCount(x))
}

// sayWaiting writes a reason when it is a new one, at most once in lineEvery.
func (s *session) sayWaiting(ref pieces.Ref) func(why string) {
	var last time.Time
	return func(why string) {
		if s.format != formatHuman || time.Since(last) < lineEvery {
			return
		}
		last = time.Now()
		fmt.Fprintf(s.p.stderr, "p2pagent: %s waiting: %s\n", ref, clean(why))
	}
}

func (s *session) printWaited(x agent.Snapshot) error {
	if s.format == formatJSON {
		return s.p.printJSON(waitResult{resultHead, x})
	}
	_, err := fmt.Fprintln(s.p.stdout, x.Path)
	return err
}
