package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"p2pagent/pkg/agent"
)

const agentLong = `Run a member of the swarm until SIGTERM or SIGINT: it offers what is in the cache,
fetches what commands ask for, and answers them on a unix socket.

Settings come from flags, then P2PAGENT_* variables, then the file of --config,
then HF_HUB_CACHE, HF_ENDPOINT and their kin. See p2pagent config print.`

func (p *program) agentCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent", Aliases: []string{"serve"}, Short: "run the daemon", Long: agentLong, Args: cobra.NoArgs,
		Example: "  p2pagent keygen swarm.key   # once; copy it to every node\n  p2pagent agent --swarm-key-file swarm.key --join node1:7946,node2:7946",
	}
	cmd.Flags().SortFlags = false
	s := p.newSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := errors.Join(s.load()); err != nil {
			return err
		}
		if err := s.checkKey(); err != nil {
			return err
		}
		return p.serve(cmd.Context(), s)
	}
	return cmd
}

// serve runs the daemon.
func (p *program) serve(ctx context.Context, s *settings) error {
	level := new(slog.LevelVar)
	log := newLog(p.stderr, p.terminal, level)
	defer toggleDebug(level)()
	m, err := newMember(s, log, log)
	if err != nil {
		return err
	}
	path := s.Socket
	if path == "" {
		path = s.place.serveSocket(s.StateDir)
	}
	listener, err := agent.Listen(path)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	log.Info("starting", "version", versionText(), "socket", path, "hub_cache", s.HubCache, "state_dir", s.StateDir,
		"endpoint", s.HubEndpoint, "peer", m.host.ID().String(), "upstream", s.asksHub())
	if s.SwarmKeyFile == "" {
		log.Warn("no swarm key: everybody who reaches the ports is a member")
	}
	err = m.run(ctx, func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return agent.NewServer(m.agent).Serve(ctx, listener) })
		g.Go(func() error { return m.notifier().run(ctx) })
		return g.Wait()
	})
	err = errors.Join(err, m.Close())
	if cause := context.Cause(ctx); err == nil && cause != nil {
		log.Info("stopped", "why", cause.Error())
		return cause
	}
	return err
}

// newLog writes text for people, JSON for programs. Both escape control
// characters.
func newLog(w io.Writer, terminal bool, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if terminal {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// toggleDebug turns debug lines on and off at each SIGUSR1.
func toggleDebug(level *slog.LevelVar) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
				if level.Level() == slog.LevelDebug {
					level.Set(slog.LevelInfo)
				} else {
					level.Set(slog.LevelDebug)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(signals); close(done) }
}
