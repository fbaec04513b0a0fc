package main

import (
	"crypto/ed25519"
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

// builder is a member while it is built, and what its parts share.
type builder struct {
	*member
	jobs     *slog.Logger
	pool     *buffers.Pool
	key      swarm.Key
	identity ed25519.PrivateKey
	signer   pieces.Signer
	gater    *swarm.Gater
	facts    swarm.Facts
}

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
	b := &builder{member: m, jobs: jobs, pool: buffers.New(pieceMemory)}
	for _, step := range []func() error{b.identify, b.openCache, b.openHost, b.openMembers, b.openNode, b.openAgent} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (b *builder) identify() (err error) {
	if b.key, err = b.settings.key(); err != nil {
		return err
	}
	if b.identity, err = loadIdentity(b.settings.StateDir); err != nil {
		return err
	}
	b.signer, b.gater = pieces.NewSigner(b.identity), swarm.NewGater(b.key)
	return nil
}

func (b *builder) openCache() (err error) {
	s := b.settings
	b.cache, err = cachefs.Open(cachefs.Options{
		Hub: s.HubCache, State: filepath.Join(s.StateDir, "cache"), Signer: b.signer, Quota: int64(s.MaxCache), Logger: b.log.With("part", "cache"),
		OnHash: func(name string, done, total int64) { b.agent.NoteHash(name, done, total) },
	})
	return err
}

func (b *builder) openHost() (err error) {
	swarm.LibraryLog(b.log.Handler())
	b.host, err = swarm.NewHost(swarm.HostOptions{
		Identity: b.identity, Listen: net.JoinHostPort(b.settings.Bind, strconv.Itoa(b.settings.SwarmPort)),
		Gater: b.gater, Software: software(),
	})
	return err
}

func (b *builder) openMembers() (err error) {
	s := b.settings
	if b.facts, err = b.member.facts(); err != nil {
		return err
	}
	b.members, err = swarm.NewMembers(swarm.MemberOptions{
		Key: b.key, Bind: s.Bind, Port: s.GossipPort, Advertise: s.Advertise,
		Join: s.Join, JoinTimeout: time.Duration(s.JoinTimeout), Facts: b.facts, Gater: b.gater,
		OnUp:      func(f swarm.Facts) { b.node.MemberUp(f) },
		OnDown:    func(id peer.ID) { b.node.MemberDown(id) },
		OnMessage: func(raw []byte) { b.node.Message(raw) },
		Logger:    b.log.With("part", "gossip"),
	})
	return err
}

func (b *builder) openNode() (err error) {
	s := b.settings
	b.node, err = swarm.New(swarm.Config{
		Host: b.host, Members: b.members, Store: b.cache, Signer: b.signer, Name: b.facts.Name, Software: b.facts.Software,
		Records:  func(key string) ([]byte, bool) { return b.agent.Record(key) },
		Answers:  b.answers,
		Fetchers: s.Fetchers, Ranges: s.Ranges, Memory: pieceMemory, Buffers: b.pool, Upstream: b.facts.Upstream,
		UploadLimit: int64(s.UploadLimit), DownloadLimit: int64(s.DownloadLimit),
		OnHold: b.held, OnRollout: b.takeRollout, Logger: b.log.With("part", "swarm"),
	})
	b.side = &swarmSide{node: b.node, members: b.members}
	return err
}

func (b *builder) openAgent() (err error) {
	if b.keeper, err = b.newKeeper(); err != nil {
		return err
	}
	b.fleet = b.newFleet()
	s := b.settings
	o := agent.Options{
		Cache: b.cache, Swarm: b.side, Offline: s.Offline, Notebook: notebook{s.StateDir, notesFile},
		Desired: b.keeper.States, OnRemoved: b.keeper.Removed, OnUnpin: func(r pieces.Ref) error { return b.keeper.Forget(r) },
		Eviction: agent.Eviction{High: s.HighWatermark, Low: s.LowWatermark, LastCopies: s.EvictLastCopies},
		Seeder:   seeder.New(seeder.Options{Signer: b.signer, Memory: pieceMemory, Border: b.cache.Border, Buffers: b.pool, Logger: b.log.With("part", "seeder")}),
		Classify: classify, Hint: hint, About: b.about(b.key), Peers: b.side.peers, Prefer: b.node.Prefer, Logger: b.jobs,
	}
	if b.facts.Upstream {
		if err = b.openHub(&o); err != nil {
			return err
		}
	}
	b.addDeltas(&o)
	b.agent, err = agent.New(o)
	return err
}

// openHub adds the upstream.
func (b *builder) openHub(o *agent.Options) (err error) {
	b.hub, err = hub.New(hub.Options{
		Endpoint: b.settings.HubEndpoint, Token: hub.EnvToken(b.settings.get), UserAgent: software(),
		OnWait: b.told, Logger: b.log.With("part", "hub"),
	})
	if err != nil {
		return usagef("%w", err)
	}
	limit := newLimit(b.settings.UpstreamLimit)
	if err = b.openXet(limit); err != nil {
		return err
	}
	o.Rights = b.rights(b.hub, limit)
	o.As = func(token string) agent.Rights { return b.rights(b.hub.As(token), limit) }
	return nil
}
