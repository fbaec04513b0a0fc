package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

const rmLong = `Take snapshots, with all refs that mean them, out of the cache. Asks first. Files
that other snapshots use stay, and so does a snapshot that is pinned or in use.`

// removing are the flags of commands that take something away.
type removing struct{ yes, dryRun, force bool }

func (r *removing) define(cmd *cobra.Command, force string) {
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "only say what would go")
	cmd.Flags().BoolVar(&r.force, "force", false, force)
}

func (p *program) rmCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm REF...", Aliases: []string{"remove"}, Short: "take snapshots out of the cache", Args: cobra.MinimumNArgs(1), Long: rmLong,
		Example: "  p2pagent rm org/name --dry-run\n  p2pagent ls -q --filter state=partial | xargs p2pagent rm --yes",
	}
	s := p.newSession(cmd).orStandalone(cmd)
	var how removing
	how.define(cmd, "also what is pinned, or open in some process")
	cmd.RunE = s.withLibrary(func(ctx context.Context, lib library, refs []pieces.Ref) error {
		return s.each(refs, func(ref pieces.Ref) error { return s.remove(ctx, lib, ref, how) })
	})
	return cmd
}

func (s *session) remove(ctx context.Context, lib library, ref pieces.Ref, how removing) error {
	req := agent.RemoveRequest{Ref: ref, DryRun: true, Force: how.force}
	if how.dryRun || !how.yes {
		would, err := lib.Remove(ctx, req)
		if err != nil {
			return err
		}
		if how.dryRun {
			return s.printRemoved(would)
		}
		if err := s.p.confirm(fmt.Sprintf("remove %s (commit %s), up to %s%s?", ref, would.Commit[:12], bytesText(would.Freed), remarks(would))); err != nil {
			return err
		}
	}
	req.DryRun = false
	gone, err := lib.Remove(ctx, req)
	if err != nil {
		return err
	}
	return s.printRemoved(gone)
}

// remarks are what is to be known before a snapshot goes.
func remarks(r agent.Removed) string {
	return when(r.LastCopy, "; no other member in sight holds it") + when(r.InUse != "", "; in use: "+r.InUse) +
		when(len(r.PinnedBy) > 0, "; pinned by "+joined(r.PinnedBy))
}

func (s *session) printRemoved(r agent.Removed) error {
	var err error
	switch {
	case s.format == formatJSON:
		err = s.p.printJSON(removedOutput{version1, r})
	case s.format == formatQuiet:
		_, err = fmt.Fprintln(s.p.stdout, r.Ref)
	case r.DryRun:
		_, err = fmt.Fprintf(s.p.stdout, "would remove %s, up to %s%s\n", clean(r.Ref), bytesText(r.Freed), clean(remarks(r)))
	default:
		_, err = fmt.Fprintf(s.p.stdout, "removed %s, %s freed\n", clean(r.Ref), bytesText(r.Freed))
	}
	return err
}

// confirm asks on stderr and reads a line.
func (p *program) confirm(question string) error {
	if !p.ask {
		return usagef("%s Nobody to ask: add --yes", question)
	}
	fmt.Fprintf(p.stderr, "%s [y/N] ", clean(question))
	line, err := bufio.NewReader(p.stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return agent.Errorf(agent.Other, "not removed")
}

const pruneLong = `Evict snapshots from the cache, the least lately used first, down to --target, or
else to the low watermark, or else to what must stay. Shows what would go and asks.

What is pinned, desired, told to be held (seed) or in use stays, what was used in
the last ten minutes too, and what only a Hub client brought. The last copy in the
swarm stays: a snapshot goes only when another member says that it keeps it.`

func (p *program) pruneCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune", Short: "evict what is not needed", Long: pruneLong, Args: cobra.NoArgs,
		Example: "  p2pagent prune --dry-run\n  p2pagent prune --target 200GiB --yes",
	}
	s := p.newSession(cmd)
	var how removing
	var target sizeValue
	how.define(cmd, "also the last copy in the swarm, and what was used just now")
	cmd.Flags().Var(&target, "target", "how many `bytes` the cache may hold afterwards")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		req := agent.PruneRequest{Force: how.force}
		if cmd.Flags().Changed("target") {
			n := int64(target)
			req.Target = &n
		}
		return s.prune(ctx, s.client(), req, how)
	}
	return cmd
}

func (s *session) prune(ctx context.Context, c *agent.Client, req agent.PruneRequest, how removing) error {
	if how.dryRun || !how.yes {
		req.DryRun = true
		would, err := c.Prune(ctx, req, nil)
		if err != nil || how.dryRun {
			return s.printPruned(would, err)
		}
		if would.Freed == 0 {
			return s.printPruned(would, nil)
		}
		if s.p.ask {
			table(s.p.stderr, prunedRows(would))
		}
		if err := s.p.confirm(fmt.Sprintf("evict %s, %s?", counted(evicted(would), "snapshot"), bytesText(would.Freed))); err != nil {
			return err
		}
	}
	req.DryRun = false
	done, err := c.Prune(ctx, req, nil)
	return s.printPruned(done, err)
}

func evicted(p agent.Pruned) (n int) {
	for _, v := range p.Verdicts {
		if v.Gone {
			n++
		}
	}
	return n
}

func (s *session) printPruned(p agent.Pruned, err error) error {
	if err != nil {
		return err
	}
	switch s.format {
	case formatJSON:
		return s.p.printJSON(prunedOutput{version1, p})
	case formatQuiet:
		for _, v := range p.Verdicts {
			if v.Gone && v.Ref != "" {
				fmt.Fprintln(s.p.stdout, v.Ref)
			}
		}
		return nil
	}
	if err := table(s.p.stdout, prunedRows(p)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.p.stdout, "%s %s of %s; target %s\n", when(p.DryRun, "would free")+unless(p.DryRun, "freed"), bytesText(p.Freed), bytesText(p.Used), bytesText(p.Target))
	return err
}

func prunedRows(p agent.Pruned) [][]string {
	rows := [][]string{{"REF", "COMMIT", "SIZE", "FREES", "USED", "VERDICT"}}
	for _, v := range p.Verdicts {
		name, commit := v.Ref, v.Commit
		if v.Blob != "" {
			name = "blob " + v.Blob[:12]
		}
		rows = append(rows, []string{name, commit[:min(12, len(commit))], bytesText(v.Size), bytesText(v.Freed), spanText(time.Since(v.Used)) + " ago", verdictText(v, p.DryRun)})
	}
	return rows
}

func verdictText(v agent.Verdict, dry bool) string {
	switch {
	case v.Gone && dry:
		return "would go"
	case v.Gone:
		return "gone"
	}
	text := "stays: " + strings.ReplaceAll(string(v.Stays), "_", " ")
	return text + when(v.Detail != "", " ("+v.Detail+")")
}
