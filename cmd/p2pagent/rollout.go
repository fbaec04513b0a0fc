package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/internal/rollout"
	"p2pagent/pkg/agent"
)

const rolloutLong = `Ask every member of the swarm, or those whose labels the selector names, to hold a
model at one commit: what REF means now. On all of them REF then means that commit,
and nothing evicts it. Each fetches as fetch does, together one upstream copy.

Ends when all have answered; with --wait when each has it, or can't. Members that
come meanwhile are asked too; one that is missing is waited for a minute. The rollout
goes on when this command ends: the same command shows how far it is.

Exit code 3 when some nodes failed, refused, or are missing.`

func (p *program) rolloutCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rollout REF", Short: "have members hold a model at one commit", Long: rolloutLong, Args: cobra.ExactArgs(1),
		Example: "  p2pagent rollout org/name --wait\n  p2pagent rollout org/name@v2 --selector pool=h100 --wait --timeout 1h",
	}
	s := p.newSession(cmd).withTimeout(cmd)
	r := agent.RolloutRequest{}
	var selector labelsValue
	cmd.Flags().Var(&selector, "selector", "only members with these labels: `key=value`, several or\nwith commas")
	cmd.Flags().BoolVar(&r.Wait, "wait", false, "until each has it, or can't have it")
	cmd.Flags().StringArrayVar(&r.Include, "include", nil, "take only files that this `pattern` matches; repeatable")
	cmd.Flags().StringArrayVar(&r.Exclude, "exclude", nil, "leave out files that this `pattern` matches; repeatable")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if r.Ref, err = refOf(args[0], ""); err != nil {
			return err
		}
		r.Selector = rollout.Selector(selector)
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		return s.rollOut(ctx, r)
	}
	return cmd
}

func (s *session) rollOut(ctx context.Context, r agent.RolloutRequest) error {
	shown := &rolloutView{session: s, ref: r.Ref.String()}
	t, err := s.client().Rollout(ctx, r, shown.watch)
	shown.wipe()
	if err != nil && (ctx.Err() != nil || len(shown.last.Nodes) > 0) { // this command ends, or its agent; the rollout does not
		err = &agent.Error{Kind: classify(err), Err: err, Message: fmt.Sprintf("rollout %s: %v", r.Ref, err),
			Hint: "members that were told go on; the same command shows how far they are"}
		t = shown.last
	}
	if len(t.Nodes) == 0 {
		return err
	}
	if printed := s.printRollout(t); printed != nil {
		return printed
	}
	if err != nil {
		return err
	}
	return shortfall(t)
}

// shortfall is the error of a rollout that did not reach all nodes.
func shortfall(t rollout.Table) error {
	if t.Failed == 0 {
		return nil
	}
	kind := agent.Partial
	if t.Failed == len(t.Nodes) {
		kind = agent.Other
		if same := t.Nodes[0].Kind; same != "" && !slices.ContainsFunc(t.Nodes, func(r rollout.Row) bool { return r.Kind != same }) {
			kind = agent.Kind(same)
		}
	}
	return agent.Errorf(kind, "rollout %s: %d of %d nodes failed, refused, or are missing", t.Ref, t.Failed, len(t.Nodes))
}

func (s *session) printRollout(t rollout.Table) error {
	switch s.format {
	case formatJSON:
		return s.p.printJSON(rolloutTable{resultHead, t})
	case formatQuiet:
		_, err := fmt.Fprintln(s.p.stdout, t.Commit)
		return err
	}
	if t.Notice != "" {
		fmt.Fprintf(s.p.stderr, "p2pagent: note: %s is commit %s: %s\n", clean(t.Ref), t.Commit, clean(t.Notice))
	}
	if err := table(s.p.stdout, rolloutRows(t.Nodes)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.p.stdout, "%s is commit %s: %s\n", clean(t.Ref), t.Commit, rolloutSums(t))
	return err
}

func rolloutRows(nodes []rollout.Row) [][]string {
	rows := [][]string{{"NODE", "STATE", "DONE", "OF", "UPSTREAM", "PEERS", "HERE", "RATE", "LEFT", "DETAIL"}}
	for _, r := range nodes {
		row := []string{r.Node, string(r.State), percent(r.Completed, r.Total), bytesText(r.Total), bytesText(r.Upstream), bytesText(r.Peers), bytesText(r.Here), "", "", r.Reason}
		if r.State == rollout.Fetching {
			row[7], row[8] = bytesText(r.Rate)+"/s", when(r.Seconds > 0, spanText(seconds(r.Seconds)))
		}
		rows = append(rows, row)
	}
	return rows
}

func percent(done, of int64) string {
	if of == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", done*100/of)
}

// rolloutSums says how it stands with all nodes together.
func rolloutSums(t rollout.Table) string {
	var done, of, rate int64
	coming := 0
	for _, r := range t.Nodes {
		done, of, rate = done+r.Completed, of+r.Total, rate+r.Rate
		if r.State == rollout.Waiting || r.State == rollout.Fetching {
			coming++
		}
	}
	text := fmt.Sprintf("%d of %d nodes have it", t.Here, len(t.Nodes))
	if coming > 0 {
		text += fmt.Sprintf(", %d are getting it", coming)
	}
	if t.Failed > 0 {
		text += fmt.Sprintf(", %d failed, refused, or are missing", t.Failed)
	}
	if done < of {
		text += fmt.Sprintf(", %s of all bytes, %s/s", percent(done, of), bytesText(rate))
	}
	return text
}

// rolloutView shows a rollout while it runs.
type rolloutView struct {
	*session
	ref   string
	last  rollout.Table
	at    time.Time // of the last line
	lines int       // on the terminal, to be wiped
}

// liveRows is how many nodes a terminal shows: those that are not done come first.
const liveRows = 16

func (v *rolloutView) watch(t rollout.Table) {
	if len(t.Nodes) > 0 {
		v.last = t
	}
	switch {
	case v.format == formatQuiet:
	case v.format == formatJSON:
		v.p.printJSON(rolloutTable{progressHead, t})
	case v.p.terminal:
		v.draw(t)
	case time.Since(v.at) >= lineEvery:
		v.at = time.Now()
		fmt.Fprintf(v.p.stderr, "p2pagent: rollout %s: %s\n", v.ref, v.sums(t))
	}
}

func (v *rolloutView) sums(t rollout.Table) string {
	if len(t.Nodes) == 0 {
		return "asking what it means"
	}
	return rolloutSums(t)
}

// draw replaces what was drawn before.
func (v *rolloutView) draw(t rollout.Table) {
	nodes := slices.Clone(t.Nodes)
	slices.SortStableFunc(nodes, func(a, b rollout.Row) int { return done(a) - done(b) })
	var out strings.Builder
	if len(nodes) > 0 {
		table(&out, rolloutRows(nodes[:min(len(nodes), liveRows)])) // a builder takes everything
	}
	if more := len(nodes) - liveRows; more > 0 {
		fmt.Fprintf(&out, "and %d more\n", more)
	}
	fmt.Fprintf(&out, "rollout %s: %s\n", clean(v.ref), v.sums(t))
	v.wipe()
	width := terminalWidth(v.p.stderr)
	for line := range strings.Lines(out.String()) {
		fmt.Fprintln(v.p.stderr, cut(strings.TrimRight(line, "\n"), width-1))
		v.lines++
	}
}

func done(r rollout.Row) int {
	if r.State == rollout.Here {
		return 1
	}
	return 0
}

func (v *rolloutView) wipe() {
	if v.lines > 0 {
		fmt.Fprintf(v.p.stderr, "\x1b[%dA\x1b[J", v.lines)
	}
	v.lines = 0
}
