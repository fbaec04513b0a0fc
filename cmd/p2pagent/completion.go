package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"p2pagent/pkg/agent"
)

// What a shell is told when somebody presses tab.

// ofSnapshots are commands whose arguments are refs of what is here, and whether also
// of what is to be.
var ofSnapshots = map[string]bool{
	"show": false, "verify": false, "rm": false, "pin": false, "unpin": false,
	"fetch": true, "wait": true, "rollout": true,
}

// completeWait bounds what a shell waits for.
const completeWait = time.Second

// completeArgs has a shell offer refs to the commands that take them, and no files to
// those that take nothing.
func (p *program) completeArgs(c *cobra.Command, name string) {
	desired, refs := ofSnapshots[name]
	switch {
	case refs:
		c.ValidArgsFunction = func(cmd *cobra.Command, done []string, _ string) ([]string, cobra.ShellCompDirective) {
			return p.completeRefs(cmd, done, desired), cobra.ShellCompDirectiveNoFileComp
		}
	case takes(c) == "":
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
}

// choice is a flag's value that is a word of a few.
type choice interface{ choices() []string }

// paths are what help calls the values that are files or folders.
var paths = []string{"file", "folder", "path"}

// completeFlags has a shell offer the words of a flag that has a few, and files only to
// those that take one.
func completeFlags(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		var words []string
		if v, ok := f.Value.(choice); ok {
			words = v.choices()
		}
		if kind, _ := pflag.UnquoteUsage(f); !slices.Contains(paths, kind) {
			c.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails when it is there already
		}
	})
}

// completeRefs returns the refs that the agent has, and with desired those that it is
// to have, but for what the command line has already. Without an agent there are none.
func (p *program) completeRefs(cmd *cobra.Command, done []string, desired bool) []string {
	s := p.newSettings(pflag.NewFlagSet("", pflag.ContinueOnError))
	for name := range localOptions {
		if f := cmd.Flags().Lookup(name); f.Changed && s.flags.Set(name, f.Value.String()) != nil {
			return nil
		}
	}
	if s.load() != nil || len(done) > 0 && !strings.HasSuffix(cmd.Use, "...") {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeWait)
	defer cancel()
	return slices.DeleteFunc(knownRefs(ctx, s.client(), desired), func(ref string) bool { return slices.Contains(done, ref) })
}

func knownRefs(ctx context.Context, c *agent.Client, desired bool) []string {
	known := map[string]bool{}
	if list, err := c.List(ctx); err == nil {
		for _, x := range list {
			known[x.Ref] = true
		}
	}
	if !desired {
		return slices.Sorted(maps.Keys(known))
	}
	if st, err := c.Status(ctx); err == nil {
		for _, m := range st.Desired {
			known[m.Ref] = true
		}
	}
	return slices.Sorted(maps.Keys(known))
}
