package main

import (
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/internal/buffers"
	"p2pagent/internal/desired"
	"p2pagent/internal/layout"
	"p2pagent/internal/rollout"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
	"p2pagent/pkg/xet"
)

// member is one live member with all its parts: what `agent` runs for long and
// --standalone for one command.
type member struct {
	settings *settings
	log      *slog.Logger

	cache   *cachefs.Cache
	host    *swarm.Host
	members *swarm.Members
	node    *swarm.Node
	hub     *hub.Client   // nil when the Hub is not asked
	xet     *xet.Client   // nil when its store is not
	layouts *layout.Index // nil when nothing is copied from files that are here
	agent   *agent.Agent
	keeper  *desired.Keeper
	fleet   *rollout.Fleet
	side    *swarmSide

	daemon    bool       // lives for more than one command
	reloading sync.Mutex // held while the configuration is read again

	served  gatewayWatch
	gateway string // host:port where clients of this node find it; "" without one
}

// Unfinished pieces are the largest part of an agent's memory, whatever the model.
// Eight small ones or two of the largest fit; those from upstream may take all.
const pieceMemory = 32 << 20

// newMember builds a member out of its settings. It takes the cache's lock and
// opens the swarm port; Close gives both back. jobs gets the lines on jobs, log
// all others.
func newMember(s *settings, log, jobs *slog.Logger) (_ *member, err error) {
	m := &member{settings: s, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	key, err := s.key()
	if err != nil {
		return nil, err
	}
	identity, err := loadIdentity(s.StateDir)
	if err != nil {
		return nil, err
	}
	signer := pieces.NewSigner(identity)
	m.cache, err = cachefs.Open(cachefs.Options{
		Hub: s.HubCache, State: filepath.Join(s.StateDir, "cache"), Signer: signer, Quota: int64(s.MaxCache), Logger: log.With("part", "cache"),
		OnHash: func(name string, done, total int64) { m.agent.NoteHash(name, done, total) },
	})
	if err != nil {
		return nil, err
	}
	swarm.LibraryLog(log.Handler())
	gater := swarm.NewGater(key)
	m.host, err = swarm.NewHost(swarm.HostOptions{
		Identity: identity, Listen: net.JoinHostPort(s.Bind, strconv.Itoa(s.SwarmPort)),
		Gater: gater, Software: software(),
	})
	if err != nil {
		return nil, err
	}
	facts, err := m.facts()
	if err != nil {
		return nil, err
	}
	m.members, err = swarm.NewMembers(swarm.MemberOptions{
		Key: key, Bind: s.Bind, Port: s.GossipPort, Advertise: s.Advertise,
		Join: s.Join, JoinTimeout: time.Duration(s.JoinTimeout), Facts: facts, Gater: gater,
		OnUp:      func(f swarm.Facts) { m.node.MemberUp(f) },
		OnDown:    func(id peer.ID) { m.node.MemberDown(id) },
		OnMessage: func(b []byte) { m.node.Message(b) },
		Logger:    log.With("part", "gossip"),
	})
	if err != nil {
		return nil, err
	}
	pool := buffers.New(pieceMemory)
	m.node, err = swarm.New(swarm.Config{
		Host: m.host, Members: m.members, Store: m.cache, Signer: signer, Name: facts.Name, Software: facts.Software,
		Records:  func(key string) ([]byte, bool) { return m.agent.Record(key) },
		Answers:  m.answers,
		Fetchers: s.Fetchers, Ranges: s.Ranges, Memory: pieceMemory, Buffers: pool, Upstream: facts.Upstream,
		UploadLimit: int64(s.UploadLimit), DownloadLimit: int64(s.DownloadLimit),
		OnHold: m.held, OnRollout: m.takeRollout, Logger: log.With("part", "swarm"),
	})
	if err != nil {
		return nil, err
	}
	m.side = &swarmSide{node: m.node, members: m.members}
	if m.keeper, err = m.newKeeper(); err != nil {
		return nil, err
	}
	m.fleet = m.newFleet()
	o := agent.Options{
		Cache: m.cache, Swarm: m.side, Offline: s.Offline, Notebook: notebook{s.StateDir, notesFile}, Desired: m.keeper.States, OnRemoved: m.keeper.Removed, OnUnpin: func(r pieces.Ref) error { return m.keeper.Forget(r) },
		Eviction: agent.Eviction{High: s.HighWatermark, Low: s.LowWatermark, LastCopies: s.EvictLastCopies},
		Seeder:   seeder.New(seeder.Options{Signer: signer, Memory: pieceMemory, Border: m.cache.Border, Buffers: pool, Logger: log.With("part", "seeder")}),
		Classify: classify, Hint: hint, About: m.about(key), Peers: m.side.peers, Prefer: m.node.Prefer, Logger: jobs,
	}
	if facts.Upstream {
		m.hub, err = hub.New(hub.Options{
			Endpoint: s.HubEndpoint, Token: hub.EnvToken(s.get), UserAgent: software(),
			OnWait: m.told, Logger: log.With("part", "hub"),
		})
		if err != nil {
			return nil, usagef("%w", err)
		}
		limit := newLimit(s.UpstreamLimit)
		if err = m.openXet(limit); err != nil {
			return nil, err
		}
		o.Rights = m.rights(m.hub, limit)
		o.As = func(token string) agent.Rights { return m.rights(m.hub.As(token), limit) }
	}
	m.addDeltas(&o)
	m.agent, err = agent.New(o)
	return m, err
}
