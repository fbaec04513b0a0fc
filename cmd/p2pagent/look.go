package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

// askWait bounds a question to an agent on this machine.
const askWait = 30 * time.Second

// query is a command that asks an agent one thing.
func (p *program) query(use, short string, run func(ctx context.Context, s *session, c *agent.Client) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	s := p.newSession(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		ctx, stop := context.WithTimeoutCause(ctx, askWait, &timeoutError{askWait})
		defer stop()
		return run(ctx, s, s.client())
	}
	return cmd
}

func (p *program) statusCmd() *cobra.Command {
	return p.query("status", "how the agent is", func(ctx context.Context, s *session, c *agent.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		switch s.format {
		case formatJSON:
			return p.printJSON(st)
		case formatQuiet:
			_, err := fmt.Fprintln(p.stdout, st.PeerID)
			return err
		}
		return table(p.stdout, statusRows(st))
	})
}

func statusRows(st agent.Status) [][]string {
	rows := [][]string{
		{"agent", fmt.Sprintf("%s, pid %d, up %s", st.Version, st.PID, spanText(time.Since(st.Started)))},
		{"name", st.Name}, {"peer", st.PeerID}, {"swarm key", st.SwarmKey},
		{"members", fmt.Sprintf("%s in sight%s", counted(st.Members, "other"), unless(st.Settled, ", still looking"))},
		{"hub", st.Endpoint + unless(st.Upstream, ", not asked by this member") + when(st.Offline, ", offline")},
		{"gateway", cmp.Or(st.Gateway, "none")},
		{"hub cache", fmt.Sprintf("%s, %s free", st.HubCache, bytesText(st.Free))},
		{"state", st.StateDir}, {"jobs", fmt.Sprint(st.Jobs, " running")},
	}
	rows = append(rows, desiredRows(st.Desired)...)
	if st.Waiting != "" {
		rows = append(rows, []string{"waiting", st.Waiting})
	}
	if st.JoinFault != "" {
		rows = append(rows, []string{"not joined", st.JoinFault})
	}
	for _, r := range st.Refused {
		rows = append(rows, []string{"refused", fmt.Sprintf("%s, %s, last at %s: %s", r.Who, counted(r.Count, "time"), r.Last.Local().Format(time.TimeOnly), r.Reason)})
	}
	for _, b := range st.Banned {
		rows = append(rows, []string{"banned", fmt.Sprintf("%s (%s) until %s: %s", b.Name, b.PeerID, b.BannedUntil.Local().Format(time.TimeOnly), b.Banned)})
	}
	return rows
}

func when(ok bool, text string) string {
	if ok {
		return text
	}
	return ""
}

func unless(ok bool, text string) string { return when(!ok, text) }

func (p *program) psCmd() *cobra.Command {
	return p.query("ps", "jobs that run, and the last that ended", func(ctx context.Context, s *session, c *agent.Client) error {
		jobs, err := c.Jobs(ctx)
		if err != nil {
			return err
		}
		switch s.format {
		case formatJSON:
			return p.printJSON(jobsOutput{version1, jobs})
		case formatQuiet:
			for _, j := range jobs {
				if !j.Ended() {
					fmt.Fprintln(p.stdout, j.Ref)
				}
			}
			return nil
		}
		rows := [][]string{{"ID", "REF", "STATE", "DONE", "OF", "DETAIL"}}
		for _, j := range jobs {
			rows = append(rows, []string{j.ID, strings.TrimSpace(j.Ref + " " + j.File), string(j.Status), bytesText(j.Completed), bytesText(j.Total), detail(j)})
		}
		return table(p.stdout, rows)
	})
}

func detail(j agent.Job) string {
	switch {
	case j.Status == agent.Failed:
		return j.Reason
	case j.Status == agent.Done:
		return sources(j.Upstream, j.FromPeers(), j.Here) + ", " + spanText(time.Since(j.Finished)) + " ago"
	case j.Status == agent.Fetching:
		return amounts(j)
	}
	return j.Waiting
}

func (p *program) peersCmd() *cobra.Command {
	return p.query("peers", "the other members", func(ctx context.Context, s *session, c *agent.Client) error {
		peers, err := c.Peers(ctx)
		if err != nil {
			return err
		}
		switch s.format {
		case formatJSON:
			return p.printJSON(peersOutput{version1, peers})
		case formatQuiet:
			for _, m := range peers {
				fmt.Fprintln(p.stdout, m.PeerID)
			}
			return nil
		}
		rows := [][]string{{"NAME", "PEER", "STATE", "FROM", "TO", "RATE"}}
		for _, m := range peers {
			rows = append(rows, []string{m.Name, m.PeerID, peerState(m), bytesText(m.In), bytesText(m.Out), bytesText(int64(m.Rate)) + "/s"})
		}
		return table(p.stdout, rows)
	})
}

func peerState(m agent.Peer) string {
	switch {
	case m.Banned != "":
		return "banned: " + m.Banned
	case m.Neighbour && m.Silent > 5:
		return "silent for " + spanText(seconds(m.Silent))
	case m.Neighbour:
		return "neighbour"
	case m.Fault != "":
		return "no stream: " + m.Fault
	}
	return "member"
}

func (p *program) lsCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "snapshots in the cache", Long: "List the snapshots in the cache.", Args: cobra.NoArgs}
	s := p.newSession(cmd).orStandalone(cmd)
	var filters filtersValue
	order := byName
	cmd.Flags().Var(&filters, "filter", "only those for which this `condition` holds: repo=PATTERN,\nstate=WORD, size>BYTES, size<BYTES; repeatable")
	cmd.Flags().Var(&order, "sort", "in which order")
	cmd.RunE = s.withLibrary(func(ctx context.Context, lib library, _ []pieces.Ref) error {
		list, err := lib.List(ctx)
		if err != nil {
			return err
		}
		list = filters.choose(list)
		order.sort(list)
		switch s.format {
		case formatJSON:
			return p.printJSON(snapshotsOutput{version1, list})
		case formatQuiet:
			for _, x := range list {
				fmt.Fprintln(p.stdout, x.Ref)
			}
			return nil
		}
		rows := [][]string{{"REF", "COMMIT", "SIZE", "FILES", "USED", "STATE"}}
		for _, x := range list {
			rows = append(rows, []string{x.Ref, x.Commit[:12], bytesText(x.Size), fileCount(x), spanText(time.Since(x.Used)) + " ago", snapshotState(x)})
		}
		return table(p.stdout, rows)
	})
	return cmd
}

func fileCount(x agent.Snapshot) string {
	if x.Listed == 0 {
		return "?"
	}
	return fmt.Sprintf("%d/%d", x.Files, x.Listed)
}

func snapshotState(x agent.Snapshot) string {
	state := "partial"
	switch {
	case x.Complete:
		state = "complete"
	case x.Listed == 0:
		state = "unlisted"
	}
	return state + when(x.Seeded, ", seeded") + when(x.Kept, ", kept") + when(x.Pinned, ", pinned")
}

func (p *program) showCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "show REF", Short: "one snapshot and its files", Long: "Show one snapshot in the cache and its files.", Args: cobra.ExactArgs(1)}
	s := p.newSession(cmd).orStandalone(cmd)
	cmd.RunE = s.withLibrary(func(ctx context.Context, lib library, refs []pieces.Ref) error {
		x, files, err := lib.Show(ctx, refs[0])
		if err != nil {
			return err
		}
		switch s.format {
		case formatJSON:
			return p.printJSON(snapshotOutput{version1, x, files})
		case formatQuiet:
			_, err := fmt.Fprintln(p.stdout, x.Path)
			return err
		}
		return p.showText(x, files)
	})
	return cmd
}

func (p *program) showText(x agent.Snapshot, files []agent.File) error {
	rows := [][]string{
		{"ref", x.Ref}, {"commit", x.Commit}, {"revisions", strings.Join(x.Revision, " ")}, {"path", x.Path},
		{"size", bytesText(x.Size)}, {"files", fileCount(x)}, {"state", snapshotState(x)}, {"updated", x.RefTime.Local().Format(time.DateTime)},
	}
	if err := table(p.stdout, rows); err != nil || len(files) == 0 {
		return err
	}
	fmt.Fprintln(p.stdout)
	rows = [][]string{{"SIZE", "PIECES", "HERE", "DIGEST", "PATH"}}
	for _, f := range files {
		rows = append(rows, []string{bytesText(f.Size), fmt.Sprint(f.Pieces), when(f.Here, "yes") + unless(f.Here, "no"), f.Digest[:12], f.Path})
	}
	return table(p.stdout, rows)
}

func (p *program) verifyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "verify REF...", Short: "hash snapshots again", Args: cobra.MinimumNArgs(1),
		Long: "Hash every file of snapshots in the cache and compare it with its digest.\nExit code 7 when one differs."}
	s := p.newSession(cmd).orStandalone(cmd)
	cmd.RunE = s.withLibrary(func(ctx context.Context, lib library, refs []pieces.Ref) error {
		return s.each(refs, func(ref pieces.Ref) error { return s.verify(ctx, lib, ref) })
	})
	return cmd
}

func (s *session) verify(ctx context.Context, lib library, ref pieces.Ref) error {
	last := time.Now()
	problems, err := lib.Verify(ctx, ref, func(v agent.Verifying) {
		if s.format == formatHuman && time.Since(last) >= lineEvery {
			last = time.Now()
			fmt.Fprintf(s.p.stderr, "p2pagent: %s verifying %s of %s\n", ref, bytesText(v.Done), bytesText(v.Total))
		}
	})
	if err != nil {
		return err
	}
	if s.format == formatJSON {
		if problems == nil {
			problems = []agent.Problem{}
		}
		err = s.p.printJSON(verifyResult{resultHead, ref.String(), problems})
	} else {
		err = s.verifyText(ref, problems)
	}
	if err == nil && len(problems) > 0 {
		err = &agent.Error{Kind: agent.Integrity, Message: fmt.Sprintf("verify %s: not as they should be: %s", ref, counted(len(problems), "file")),
			Hint: "remove the snapshot with `p2pagent rm` and fetch it again; look at the disk's health"}
	}
	return err
}

func (s *session) verifyText(ref pieces.Ref, problems []agent.Problem) error {
	for _, x := range problems {
		fmt.Fprintf(s.p.stdout, "%s: %s\n", clean(x.Path), clean(x.Reason))
	}
	if len(problems) > 0 || s.format == formatQuiet {
		return nil
	}
	_, err := fmt.Fprintf(s.p.stdout, "%s: every file is as it should be\n", ref)
	return err
}

// withLibrary makes a command's body out of do: settings, references, agent.
func (s *session) withLibrary(do func(ctx context.Context, lib library, refs []pieces.Ref) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		refs, err := refsOf(args)
		if err != nil {
			return err
		}
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		return s.look(ctx, func(ctx context.Context, lib library) error { return do(ctx, lib, refs) })
	}
}
