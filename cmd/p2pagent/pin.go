package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

const pinLong = `Keep snapshots from being evicted or removed, also after a restart of the agent.

The pin is on the name: of a branch it keeps what the branch means here, and when
that is fetched anew the new snapshot. Pin REF@COMMIT to keep one commit.`

const unpinLong = `Take away the pins that p2pagent pin gave, and end rollouts of these models on this
node. The snapshots stay until room is needed.`

func (p *program) pinCmd() *cobra.Command {
	return p.pinning("pin", "keep snapshots from eviction", pinLong, "pinned", library.Pin)
}

func (p *program) unpinCmd() *cobra.Command {
	return p.pinning("unpin", "let go of pinned snapshots", unpinLong, "unpinned", library.Unpin)
}

func (p *program) pinning(verb, short, long, done string, do func(library, context.Context, pieces.Ref) (agent.Pinned, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " REF...", Short: short, Long: long, Args: cobra.MinimumNArgs(1),
		Example: "  p2pagent " + verb + " org/name\n  p2pagent ls -q | xargs p2pagent " + verb,
	}
	s := p.newSession(cmd).orStandalone(cmd)
	cmd.RunE = s.withLibrary(func(ctx context.Context, lib library, refs []pieces.Ref) error {
		return s.each(refs, func(ref pieces.Ref) error {
			out, err := do(lib, ctx, ref)
			if err != nil {
				return err
			}
			return s.printPinned(done, out)
		})
	})
	return cmd
}

func (s *session) printPinned(done string, x agent.Pinned) error {
	var err error
	switch {
	case s.format == formatJSON:
		err = s.p.printJSON(pinOutput{version1, x})
	case s.format == formatQuiet:
		_, err = fmt.Fprintln(s.p.stdout, x.Ref)
	default:
		_, err = fmt.Fprintf(s.p.stdout, "%s %s%s%s\n", done, clean(x.Ref), when(x.Commit != "", ", commit "+x.Commit), stillPinned(done, x))
	}
	return err
}

// stillPinned names the holders that an unpin left.
func stillPinned(done string, x agent.Pinned) string {
	if done == "pinned" || len(x.By) == 0 {
		return ""
	}
	return fmt.Sprintf("; still pinned by %s", joined(x.By))
}
