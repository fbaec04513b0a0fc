package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// service is what commands ask of an agent: one on its socket, or one that lives
// as long as the command.
type service interface {
	Ensure(ctx context.Context, r agent.Request) (agent.Result, error)
	Seed(ctx context.Context, r agent.SeedRequest) (agent.Result, error)
	library
}

type library interface {
	List(ctx context.Context) ([]agent.Snapshot, error)
	Show(ctx context.Context, ref pieces.Ref) (agent.Snapshot, []agent.File, error)
	Verify(ctx context.Context, ref pieces.Ref, watch func(agent.Verifying)) ([]agent.Problem, error)
	Remove(ctx context.Context, r agent.RemoveRequest) (agent.Removed, error)
	Prune(ctx context.Context, r agent.PruneRequest, watch func(agent.Verdict)) (agent.Pruned, error)
	Pin(ctx context.Context, ref pieces.Ref) (agent.Pinned, error)
	Unpin(ctx context.Context, ref pieces.Ref) (agent.Pinned, error)
}

// inProcess makes an Agent a service.
type inProcess struct{ *agent.Agent }

func (s inProcess) List(context.Context) ([]agent.Snapshot, error) { return s.Agent.List() }

func (s inProcess) Show(_ context.Context, ref pieces.Ref) (agent.Snapshot, []agent.File, error) {
	return s.Agent.Show(ref)
}

func (s inProcess) Pin(_ context.Context, ref pieces.Ref) (agent.Pinned, error) {
	return s.Agent.PinHere(ref, agent.ByCommand)
}

func (s inProcess) Unpin(_ context.Context, ref pieces.Ref) (agent.Pinned, error) {
	return s.Agent.Unpin(ref, agent.ByCommand)
}

// session is what the commands that use an agent have in common.
type session struct {
	*settings
	p          *program
	format     formatValue
	quiet      bool
	standalone bool
	timeout    spanValue
}

const standaloneLong = `

With --standalone the command does it itself, without a daemon, and takes the
flags of p2pagent agent.`

// newSession adds the flags to cmd. Those of a member work, but help does not
// list them again.
func (p *program) newSession(cmd *cobra.Command) *session {
	s := &session{p: p, format: formatHuman}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.Var(&s.format, "format", "how to write results")
	fs.BoolVarP(&s.quiet, "quiet", "q", false, "the same as --format quiet: names alone, for pipes")
	s.settings = p.newSettings(fs)
	s.showOnly("socket", "config")
	return s
}

// orStandalone adds --standalone.
func (s *session) orStandalone(cmd *cobra.Command) *session {
	cmd.Flags().BoolVar(&s.standalone, "standalone", false, "do it in this process, without a daemon")
	cmd.Long += standaloneLong
	return s
}

// withTimeout adds --timeout.
func (s *session) withTimeout(cmd *cobra.Command) *session {
	cmd.Flags().Var(&s.timeout, "timeout", "give up after this long")
	return s
}

// begin loads the settings and bounds the context.
func (s *session) begin(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := s.load(); err != nil {
		return nil, nil, err
	}
	if err := cmp.Or(s.refuseUnused(), s.settleFormat()); err != nil {
		return nil, nil, err
	}
	if s.timeout == 0 {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	d := time.Duration(s.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, d, &timeoutError{d})
	return ctx, cancel, nil
}

// settleFormat makes one of --format and -q.
func (s *session) settleFormat() error {
	if s.quiet && s.flags.Changed("format") && s.format != formatQuiet {
		return usagef("-q and --format %s contradict each other", s.format)
	}
	if s.quiet {
		s.format = formatQuiet
	}
	return nil
}

// refuseUnused: a flag that would have no effect is a misunderstanding.
func (s *session) refuseUnused() error {
	for _, name := range s.names() {
		if s.flags.Changed(name) && !s.standalone && !localOptions[name] {
			return usagef("--%s is a setting of the agent: give it to `p2pagent agent`, or add --standalone", name)
		}
	}
	return nil
}

// client returns the agent on the socket.
func (s *settings) client() *agent.Client {
	if s.Socket != "" {
		return agent.NewClient(s.Socket)
	}
	return agent.NewClient(s.place.findSocket(s.StateDir))
}

// use calls do with an agent that can fetch. A member of its own takes part in
// the swarm for as long as do runs.
func (s *session) use(ctx context.Context, do func(context.Context, service) error) error {
	if !s.standalone {
		return do(ctx, s.client())
	}
	if err := s.alone(); err != nil {
		return err
	}
	return bounded(ctx, func() error {
		m, err := newMember(s.settings, s.log(), nil)
		if err != nil {
			return err
		}
		err = m.run(ctx, func(ctx context.Context) error { return do(ctx, inProcess{m.agent}) })
		return errors.Join(err, m.Close())
	})
}

// look calls do with an agent that only has to know the cache.
func (s *session) look(ctx context.Context, do func(context.Context, library) error) error {
	if !s.standalone {
		return do(ctx, s.client())
	}
	s.apart()
	return bounded(ctx, func() error {
		m, err := newMember(s.settings, s.log(), nil)
		if err != nil {
			return err
		}
		return errors.Join(do(ctx, inProcess{m.agent}), m.Close())
	})
}

// alone prepares the settings of a member for one command: ports that an agent
// beside it does not use, and no swarm at all when none is named.
func (s *session) alone() error {
	if len(s.Join) == 0 && s.SwarmKeyFile == "" && !s.Insecure {
		s.apart()
		return nil
	}
	if s.origins["gossip-port"] == "default" {
		s.GossipPort = 0
	}
	if s.origins["swarm-port"] == "default" {
		s.SwarmPort = 0
	}
	return s.checkKey()
}

// apart makes a swarm of one that nobody can reach.
func (s *session) apart() {
	s.Join, s.Bind, s.Advertise = nil, "127.0.0.1", ""
	s.GossipPort, s.SwarmPort = 0, 0
	s.SwarmKeyFile, s.soloKey = "", swarm.NewKey()
}

// log is for people who see the progress too: only what is wrong.
func (s *session) log() *slog.Logger {
	if s.format == formatJSON {
		return newLog(s.p.stderr, false, slog.LevelWarn)
	}
	return newLog(s.p.stderr, true, slog.LevelWarn)
}

// grace is how long a command that is out of time may tidy up: --timeout is kept
// within a second.
const grace = 700 * time.Millisecond

// bounded runs do and does not wait for it much longer than ctx. What is then
// left undone, a crash would have left too: the cache believes only its journal.
func bounded(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	wait := drainWait
	if as[*timeoutError](context.Cause(ctx)) {
		wait = grace
	}
	select {
	case err := <-done:
		return err
	case <-time.After(wait):
		return context.Cause(ctx)
	}
}

// refOf reads a reference from the command line; revision is --revision or "".
func refOf(arg, revision string) (pieces.Ref, error) {
	ref, err := pieces.ParseRef(arg)
	if err != nil {
		return pieces.Ref{}, usagef("%w", err)
	}
	if revision == "" || revision == ref.Revision {
		return ref, nil
	}
	if ref.Revision != pieces.DefaultRevision {
		return pieces.Ref{}, usagef("%s and --revision %s name two revisions", arg, revision)
	}
	if err := pieces.CheckRevision(revision); err != nil {
		return pieces.Ref{}, usagef("%w", err)
	}
	ref.Revision = revision
	return ref, nil
}

func refsOf(args []string) ([]pieces.Ref, error) {
	out := make([]pieces.Ref, len(args))
	for i, arg := range args {
		ref, err := refOf(arg, "")
		if err != nil {
			return nil, err
		}
		out[i] = ref
	}
	return out, nil
}

// each runs do for every reference, reports all that fail, and returns nil, the
// one error there was, or kind Partial when some worked.
func (s *session) each(refs []pieces.Ref, do func(pieces.Ref) error) error {
	var last error
	failed := 0
	for _, ref := range refs {
		err := do(ref)
		if err == nil {
			continue
		}
		if last = err; len(refs) > 1 {
			failed++
			fmt.Fprintf(s.p.stderr, "p2pagent: %s: %s\n", ref, clean(err.Error()))
		}
	}
	switch {
	case failed > 0 && failed < len(refs):
		return agent.Errorf(agent.Partial, "%d of %d failed", failed, len(refs))
	case failed > 0:
		return agent.Errorf(classify(last), "all %d failed", failed)
	}
	return last
}
