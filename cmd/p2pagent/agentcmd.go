package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
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
then HF_HUB_CACHE, HF_ENDPOINT and their kin. See p2pagent config print.

Models that the file lists under "models:" are fetched and kept. SIGHUP, or
p2pagent reload, has the file read again.`

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
		if err := cmp.Or(s.checkKey(), s.checkHub()); err != nil {
			return err
		}
		return p.serve(cmd.Context(), s)
	}
	return cmd
}

// serve runs the daemon.
func (p *program) serve(ctx context.Context, s *settings) error {
	level := new(slog.LevelVar)
	recent := newTail(keptLog)
	log := newLog(io.MultiWriter(p.stderr, recent), s.LogFormat.text(p.terminal), level)
	defer toggleDebug(level)()
	m, err := newMember(s, log, log)
	if err != nil {
		return err
	}
	m.daemon = true
	path := s.Socket
	if path == "" {
		path = s.place.serveSocket(s.StateDir)
	}
	d, err := m.listen(path)
	if err != nil {
		return errors.Join(err, m.Close())
	}
	log.Info("starting", "version", versionText(), "socket", path, "hub_cache", s.HubCache, "state_dir", s.StateDir,
		"endpoint", s.HubEndpoint, "peer", m.host.ID().String(), "upstream", s.asksHub(), "gateway", m.gateway)
	if s.SwarmKeyFile == "" {
		log.Warn("no swarm key: everybody who reaches the ports is a member")
	}
	err = m.run(ctx, func(ctx context.Context) error { return m.answer(ctx, d, recent) })
	err = errors.Join(err, m.Close())
	if cause := context.Cause(ctx); err == nil && cause != nil {
		log.Info("stopped", "why", cause.Error())
		return cause
	}
	return err
}

// doors are what the daemon listens on, ports of the swarm apart.
type doors struct {
	path     string // of commands
	commands net.Listener
	clients  net.Listener // of the Hub; nil when there is no gateway
	watchers net.Listener // of metrics and health; nil when nobody may
}

// listen opens them, all or none.
func (m *member) listen(path string) (d doors, err error) {
	d.path = path
	if d.commands, err = agent.Listen(path); err != nil {
		return d, err
	}
	if d.clients, err = m.listenGateway(); err == nil {
		d.watchers, err = m.settings.listenMetrics()
	}
	if err != nil {
		return d, errors.Join(err, d.close())
	}
	return d, nil
}

func (d doors) close() error {
	err := d.commands.Close()
	for _, l := range []net.Listener{d.clients, d.watchers} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// answer serves commands, Hub clients and whoever watches, until ctx ends.
func (m *member) answer(ctx context.Context, d doors, recent *tail) error {
	if _, err := m.desire(m.settings.models); err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	control := agent.ServerOptions{Inside: m.inside(recent), Reload: m.reload, Rollout: m.rollout}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return agent.NewServer(m.agent, control).Serve(ctx, d.commands) })
	g.Go(func() error { return m.keeper.Run(ctx) })
	g.Go(func() error { return m.reloadAt(ctx, hangups) })
	g.Go(func() error { return m.serveGateway(ctx, d.clients) })
	g.Go(func() error { return m.serveMetrics(ctx, d.watchers, d.path) })
	g.Go(func() error { return m.notifier().run(ctx) })
	return g.Wait()
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
