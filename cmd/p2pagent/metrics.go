package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"p2pagent/internal/metrics"
	"p2pagent/internal/page"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/swarm"
)

// listenMetrics opens the port of metrics and health; nil when it is off.
func (s *settings) listenMetrics() (net.Listener, error) {
	if s.MetricsAddr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("open metrics address: %w", err)
	}
	return l, nil
}

// serveMetrics shows the member to a monitoring system until ctx ends.
func (m *member) serveMetrics(ctx context.Context, l net.Listener, socket string) error {
	if l == nil {
		return nil
	}
	m.log.Info("metrics", "addr", l.Addr().String())
	side := newPageSide(m)
	shown := page.New(side)
	server := metrics.NewServer(metrics.Options{
		Read: m.sample, Alive: m.alive, Page: shown, Logger: m.log.With("part", "metrics"),
		Ready: []metrics.Check{
			{Name: "api", Check: func(ctx context.Context) error { _, err := agent.NewClient(socket).Status(ctx); return err }},
			{Name: "cache", Check: func(context.Context) error { return m.cache.Writable() }},
			{Name: "identity", Check: func(context.Context) error { return m.checkIdentity() }},
		},
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return side.survey.Run(ctx) })
	g.Go(func() error { return shown.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, l) })
	return g.Wait()
}

// checkIdentity tells whether the state still has the key that this member is
// known by: after a restart without it the fleet would see a stranger.
func (m *member) checkIdentity() error {
	root, err := os.OpenRoot(m.settings.StateDir)
	if err != nil {
		return err
	}
	defer root.Close()
	id, err := swarm.IdentityIn(root)
	if err == nil && id != m.host.ID() {
		err = fmt.Errorf("%s is of %s, this member is %s", filepath.Join(m.settings.StateDir, "identity.pem"), id, m.host.ID())
	}
	return err
}

// sample gathers what the parts count.
func (m *member) sample(ctx context.Context) (metrics.Sample, error) {
	st, err := m.node.Status(ctx)
	if err != nil {
		return metrics.Sample{}, err
	}
	usage, err := m.cache.Usage()
	if err != nil {
		return metrics.Sample{}, err
	}
	s := metrics.Sample{
		Version: versionText(), Go: runtime.Version(), Members: len(st.Members), Settled: m.settled(),
		PeerIn: st.In, PeerOut: st.Out, Copied: st.Copied, Cut: st.Cut, Taken: st.Taken, Refused: st.Refused, Twice: st.Duplicates,
		Bans: st.Counters.Bans, Claims: st.Claims, Takeovers: st.Takeovers, DeafNeighbours: st.Deaf, Sending: st.Sending,
		Banned: len(st.Bans), PieceTimes: st.Took, CacheWhole: usage.Whole, CachePartial: usage.Partial, CacheFree: freeBytes(m.settings.HubCache),
	}
	for _, p := range st.Members {
		if p.Neighbour {
			s.Neighbours++
		}
	}
	if m.hub != nil {
		n := m.hub.Counts()
		s.UpstreamAnswers, s.UpstreamStalls = n.Requests, n.Stalls
	}
	if m.xet != nil {
		s.UpstreamStalls += m.xet.Stalls()
	}
	m.sampleJobs(&s)
	m.served.sample(&s)
	return s, nil
}

func (m *member) settled() bool {
	select {
	case <-m.members.Settled():
		return true
	default:
		return false
	}
}

// sampleJobs names every state and kind, so that series are there from the start.
func (m *member) sampleJobs(s *metrics.Sample) {
	s.JobsByState, s.EndedByOutcome = map[string]int{}, map[string]int64{}
	for _, state := range []agent.State{agent.Resolving, agent.Listing, agent.Checking, agent.Adopting, agent.Fetching, agent.Committing} {
		s.JobsByState[string(state)] = 0
	}
	for _, j := range m.agent.Jobs() {
		if !j.Ended() {
			s.JobsByState[string(j.Status)]++
			s.IdleSeconds = max(s.IdleSeconds, j.Idle)
		}
	}
	s.DesiredByPhase = countPhases(m.keeper.States())
	c := m.agent.Counters()
	for kind := range exitCodes {
		s.EndedByOutcome[string(kind)] = c.Ended[kind]
	}
	s.EndedByOutcome[string(agent.Done)] = c.Ended[""]
	s.UpstreamBytes, s.UpstreamWaits, s.ExtentTimes, s.JobTimes = c.Upstream, c.Waits, c.Extents, c.Fetches
	for _, x := range c.Snapshots {
		s.Snapshots = append(s.Snapshots, metrics.Snapshot(x))
	}
}
