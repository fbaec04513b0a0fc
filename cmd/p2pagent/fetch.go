package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
)

const fetchLong = `Bring a model, dataset or space onto this node, each piece verified, and print the
path of the snapshot folder as the last line.

REF is [datasets/|spaces/]org/name[@revision]; hf:// in front is fine. Patterns are
those of Hub clients: * also matches /, and --exclude wins.`

func (p *program) fetchCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fetch REF", Aliases: []string{"pull", "download"}, Short: "get a snapshot here, verified", Long: fetchLong,
		Args: cobra.ExactArgs(1), Example: "  p2pagent fetch org/name\n  p2pagent fetch org/name@v1 --include '*.safetensors' --include '*.json'",
	}
	var revision, localDir string
	var include, exclude []string
	s := p.newSession(cmd).withTimeout(cmd).orStandalone(cmd)
	fs := cmd.Flags()
	fs.StringVar(&revision, "revision", "", "branch, tag, refs/pr/N or commit (default main)")
	fs.StringArrayVar(&include, "include", nil, "take only files that this `pattern` matches; repeatable")
	fs.StringArrayVar(&exclude, "exclude", nil, "leave out files that this `pattern` matches; repeatable")
	fs.StringVar(&localDir, "local-dir", "", "copy the files, as real files, into this `folder` too\nand print it instead")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := refOf(args[0], revision)
		if err != nil {
			return err
		}
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		if err := absolute(&localDir); err != nil {
			return err
		}
		return s.fetch(ctx, agent.Request{Ref: ref, Include: include, Exclude: exclude, Tied: s.standalone}, localDir)
	}
	return cmd
}

func (s *session) fetch(ctx context.Context, r agent.Request, localDir string) error {
	shown := s.newProgress(r.Ref.String())
	var last agent.Job
	r.Watch = func(v agent.Job) {
		last = v
		shown.watch(v)
	}
	var res agent.Result
	err := s.use(ctx, func(ctx context.Context, svc service) (err error) {
		if res, err = svc.Ensure(ctx, r); err != nil {
			return err
		}
		if localDir != "" {
			if err := copyOut(ctx, svc, r, res, localDir, shown.watch); err != nil {
				return err
			}
			res.Path = localDir
		}
		if own, ok := svc.(inProcess); ok {
			s.linger(ctx, own.Peers)
		}
		return nil
	})
	shown.end()
	if ctx.Err() != nil && classify(err) == agent.NoAgent {
		err = context.Cause(ctx) // the agent in this process ended with it, and said so first
	}
	if as[*timeoutError](err) && last.Waiting != "" {
		err = &waitedError{err, last.Waiting}
	}
	if err != nil {
		return err
	}
	return s.printResult(res)
}

// printResult writes how it went to stderr and the path, last, to stdout.
func (s *session) printResult(r agent.Result) error {
	if s.format == formatJSON {
		return s.p.printJSON(fetchResult{resultHead, r})
	}
	if r.Notice != "" {
		fmt.Fprintf(s.p.stderr, "p2pagent: note: %s is commit %s: %s\n", clean(r.Ref), r.Commit, clean(r.Notice))
	}
	if s.format == formatHuman {
		fmt.Fprintf(s.p.stderr, "p2pagent: %s: %s, %s in %s: %s\n", clean(r.Ref), counted(r.Files, "file"), bytesText(r.Total),
			spanText(seconds(r.Seconds)), sources(r.Upstream, r.FromPeers(), r.Here))
	}
	_, err := fmt.Fprintln(s.p.stdout, r.Path)
	return err
}

const seedLong = `Hold a snapshot and offer it to the swarm, also after a restart of the agent.

A REF is fetched first. A folder gets the name of --as and a commit made from its
content; other nodes then fetch it by that name or by the commit, and the Hub is
not needed. With --standalone the command goes on offering until it is stopped.`

func (p *program) seedCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "seed REF|DIR", Short: "hold and offer a snapshot or a folder", Long: seedLong, Args: cobra.ExactArgs(1),
		Example: "  p2pagent seed org/name\n  p2pagent seed ./my-model --as org/my-model",
	}
	var as string
	s := p.newSession(cmd).withTimeout(cmd).orStandalone(cmd)
	cmd.Flags().StringVar(&as, "as", "", "`name` for the folder: org/name[@branch]")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := seedRequest(args[0], as)
		if err != nil {
			return err
		}
		ctx, cancel, err := s.begin(cmd.Context())
		if err != nil {
			return err
		}
		defer cancel()
		r.Tied = s.standalone
		return s.seed(ctx, cmd.Context(), r)
	}
	return cmd
}

// seedRequest tells a folder from a reference: --as decides.
func seedRequest(arg, as string) (agent.SeedRequest, error) {
	if as == "" {
		ref, err := refOf(arg, "")
		if info, serr := os.Stat(arg); err != nil && serr == nil && info.IsDir() {
			return agent.SeedRequest{}, usagef("%s is a folder: name it with --as org/name", arg)
		}
		return agent.SeedRequest{Ref: ref}, err
	}
	ref, err := refOf(as, "")
	if err != nil {
		return agent.SeedRequest{}, err
	}
	dir, err := filepath.Abs(arg)
	if err != nil {
		return agent.SeedRequest{}, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return agent.SeedRequest{}, &agent.Error{Kind: agent.NotFound, Message: "seed: " + err.Error(), Err: err}
	}
	if !info.IsDir() {
		return agent.SeedRequest{}, usagef("seed %s: not a folder", arg)
	}
	return agent.SeedRequest{Ref: ref, Dir: dir}, nil
}

// seed ends, in a member of its own, only with whole: the timeout of ctx is for
// getting the snapshot.
func (s *session) seed(ctx, whole context.Context, r agent.SeedRequest) error {
	shown := s.newProgress(r.Ref.String())
	r.Watch = shown.watch
	finished := false
	finish := func() {
		if !finished {
			finished = true
			shown.end()
		}
	}
	defer finish()
	return s.use(whole, func(member context.Context, svc service) error {
		limited, cancel := context.WithCancelCause(member)
		defer cancel(nil)
		defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
		res, err := svc.Seed(limited, r)
		finish()
		if err != nil {
			return err
		}
		if err := s.printResult(res); err != nil || !s.standalone {
			return err
		}
		fmt.Fprintf(s.p.stderr, "p2pagent: offering %s until stopped\n", clean(res.Ref))
		<-member.Done()
		return context.Cause(member)
	})
}
