package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"p2pagent/pkg/agent"
)

const rootLong = `p2pagent brings models from the Hugging Face Hub onto every node of a fleet with
one upstream copy, each piece verified, into the cache that Hub clients read.

Exit codes: 0 ok, 1 other, 2 usage, 3 partial, 4 not found, 5 not authorised or
gated, 6 no space, 7 integrity, 8 stalled, out of time or Hub not reachable,
9 agent not reachable, 130 and 143 stopped by a signal.`

// main runs the command line and returns the exit code.
func (p *program) main(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !started(cmd) {
		err = usageOf(cmd, err)
	}
	if err != nil && !(cmd.Name() == "agent" && as[*signalError](err)) { // a daemon's end is in its log
		p.report(cmd, err)
	}
	return exitCode(err)
}

// unlisted are commands that only some builds have.
var unlisted []func(*program) *cobra.Command

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use: "p2pagent", Short: "models on every node with one upstream copy", Long: rootLong,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("p2pagent: which verb?")
		},
		PersistentPreRun: func(cmd *cobra.Command, _ []string) { markStarted(cmd) },
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "model", Title: "Models:"}, &cobra.Group{ID: "look", Title: "Look:"})
	for group, list := range map[string][]*cobra.Command{
		"run":   {p.agentCmd(), p.reloadCmd(), p.keygenCmd(), p.configCmd(), p.envCmd()},
		"model": {p.fetchCmd(), p.waitCmd(), p.seedCmd(), p.lsCmd(), p.showCmd(), p.verifyCmd(), p.pinCmd(), p.unpinCmd(), p.rmCmd(), p.pruneCmd(), p.rolloutCmd()},
		"look":  {p.statusCmd(), p.psCmd(), p.peersCmd(), p.doctorCmd(), p.debugCmd()},
	} {
		for _, c := range list {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(p.kubeCmd(), p.versionCmd())
	p.finishCommands(root)
	for _, c := range unlisted {
		root.AddCommand(c(p))
	}
	return root
}

// The annotation tells errors of the command line, which cobra finds before it
// runs anything, from those of the command.
const startedKey = "started"

func markStarted(cmd *cobra.Command) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[startedKey] = "yes"
}

func started(cmd *cobra.Command) bool { return cmd.Annotations[startedKey] != "" }

func usageOf(cmd *cobra.Command, err error) error {
	message := err.Error()
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		message = fmt.Sprintf("--%s: %v", bad.GetFlag().Name, inOurWords(bad.Unwrap()))
	}
	return &agent.Error{Kind: agent.Usage, Message: message, Err: err, Hint: "see `" + cmd.CommandPath() + " --help`"}
}

// report writes the error where people and programs look for it: on stderr, and
// with --format json as the last object on stdout too.
func (p *program) report(cmd *cobra.Command, err error) {
	text := hintFor(cmd, err)
	if f := cmd.Flags().Lookup("format"); f != nil && f.Value.String() == string(formatJSON) {
		p.printJSON(errorOutput{errorHead, exitCode(err), errorBody{string(classify(err)), err.Error(), text}})
	}
	for _, e := range flatten(err) {
		message := strings.TrimSuffix(strings.TrimPrefix(e.Error(), "p2pagent: "), "; "+text) // said once
		fmt.Fprintln(p.stderr, "p2pagent: "+clean(message))
	}
	if text != "" {
		fmt.Fprintln(p.stderr, "hint: "+clean(text))
	}
}

// hintFor adds to the hint what this command could do instead.
func hintFor(cmd *cobra.Command, err error) string {
	text := hint(err)
	if classify(err) == agent.NoAgent && cmd.Flags().Lookup("standalone") != nil {
		text += "; --standalone does without"
	}
	return text
}

// flatten returns the errors that were joined, one line each.
func flatten(err error) []error {
	faults, ok := errors.AsType[*configError](err)
	if !ok {
		return []error{err}
	}
	return faults.faults
}
