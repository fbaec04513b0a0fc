package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/gateway"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/pieces"
)

// gatewayNode makes an agent what a gateway stands in front of.
type gatewayNode struct {
	agent *agent.Agent
	cache *cachefs.Cache
}

var (
	_ gateway.Node     = gatewayNode{}
	_ gateway.Snapshot = gatewaySnapshot{}
	_ gateway.Content  = gatewayContent{}
)

func (n gatewayNode) Look(ctx context.Context, ref pieces.Ref, token string, reading bool) (gateway.Snapshot, error) {
	v, err := n.agent.View(ctx, ref, token, reading)
	if err != nil {
		return nil, refusal(err)
	}
	return gatewaySnapshot{v, n.agent, token}, nil
}

func (n gatewayNode) Refs(ctx context.Context, repo pieces.Repo, token string) (map[string]pieces.Commit, error) {
	refs, err := n.agent.Refs(ctx, repo, token)
	return refs, refusal(err)
}

func (n gatewayNode) TakenBack() uint64 { return n.cache.TakenBack() }

type gatewaySnapshot struct {
	view  *agent.View
	agent *agent.Agent
	token string // of the caller
}

func (s gatewaySnapshot) Outline() *pieces.Outline             { return s.view.Outline }
func (s gatewaySnapshot) File(path string) (pieces.File, bool) { return s.view.File(path) }
func (s gatewaySnapshot) Open() bool                           { return s.agent.Open(s.view) }

func (s gatewaySnapshot) MayRead(ctx context.Context) error {
	return refusal(s.agent.MayRead(ctx, s.view, s.token))
}

func (s gatewaySnapshot) Read(f pieces.File) gateway.Content {
	return gatewayContent{s.agent.Read(s.view, f, s.token)}
}

type gatewayContent struct{ *agent.Content }

func (c gatewayContent) Start() error { return refusal(c.Content.Start()) }

func (c gatewayContent) Await(ctx context.Context, off int64) (int64, error) {
	n, err := c.Content.Await(ctx, off)
	return n, refusal(err)
}

// refusals say what an error is to a Hub client; the first row that fits wins.
// What may go well later is busy: clients come again for that alone.
var refusalCodes = []struct {
	code gateway.Code
	is   func(error) bool
}{
	{gateway.GatedRepo, is(hub.ErrGated)},
	{gateway.RevisionNotFound, is(hub.ErrRevisionNotFound)},
	{gateway.EntryNotFound, is(hub.ErrEntryNotFound)},
	{gateway.RepoNotFound, is(hub.ErrRepoNotFound)},
	{gateway.Unauthorized, is(hub.ErrUnauthorized)},
	{gateway.Forbidden, ofKind(agent.Denied)},
	{gateway.RepoNotFound, ofKind(agent.NotFound)},
	{gateway.NoSpace, ofKind(agent.NoSpace)},
	{gateway.Busy, ofKind(agent.Stalled, agent.Unreachable, agent.NoAgent)},
}

func ofKind(kinds ...agent.Kind) func(error) bool {
	return func(err error) bool {
		for _, k := range kinds {
			if classify(err) == k {
				return true
			}
		}
		return false
	}
}

// refusal gives an error the form that the gateway answers with. The causes of
// waits that the gateway itself ended stay as they are.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cachefs.ErrSpoiled):
		return fmt.Errorf("%w: %w", gateway.ErrSpoiled, err)
	}
	for _, row := range refusalCodes {
		if row.is(err) {
			return &gateway.Refusal{Code: row.code, Message: clean(err.Error())}
		}
	}
	return err
}

// off is how the environment says that there shall be no gateway: an empty
// variable counts as none.
const off = "off"

// gatewayAddr returns where an agent's clients would find the gateway, "" for
// nowhere. An agent that runs knows better: its port may be any.
func (s *settings) gatewayAddr() string {
	if s.Gateway == off {
		return ""
	}
	return near(s.Gateway)
}

// near is how this node reaches an address that is listened on: all addresses of
// a machine are no place to go to.
func near(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip, parseErr := netip.ParseAddr(host); err == nil && (host == "" || parseErr == nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}

// listenGateway opens the gateway's port. When the default one is taken, the agent
// does without: nobody asked for it.
func (m *member) listenGateway() (net.Listener, error) {
	s := m.settings
	if s.gatewayAddr() == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.Gateway)
	if errors.Is(err, syscall.EADDRINUSE) && s.origins["gateway"] == "default" {
		m.log.Warn("no gateway: another process has its port; choose one with --gateway", "address", s.Gateway)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the gateway: %w", err)
	}
	m.gateway = near(l.Addr().String())
	if a, err := netip.ParseAddrPort(l.Addr().String()); err == nil && !a.Addr().IsLoopback() {
		m.log.Warn("the gateway can be reached from other machines, and serves them what this node may read", "address", l.Addr().String())
	}
	return l, nil
}

// serveGateway answers Hub clients until ctx ends.
func (m *member) serveGateway(ctx context.Context, l net.Listener) error {
	if l == nil {
		return nil
	}
	host, _, _ := net.SplitHostPort(m.settings.Gateway)
	repos, every, err := openRepos(m.settings.GatewayOpen)
	if err != nil {
		return err
	}
	key, err := grantKey(m.settings.StateDir)
	if err != nil {
		return err
	}
	g := gateway.New(gateway.Options{
		Node: gatewayNode{m.agent, m.cache}, Everyone: repos, EveryRepo: every, Xet: xetOffers[m.settings.GatewayXet], Key: key,
		Host: host, Logger: m.log.With("part", "gateway"),
		Watch: m.served.begin,
	})
	return g.Serve(ctx, l)
}

// xetOffers are the words of --gateway-xet.
var xetOffers = map[offerValue]gateway.XetOffer{offerOff: gateway.NoXet, offerHuge: gateway.XetHuge, offerAll: gateway.XetAll}

// grantKey derives the key of what Xet clients are given from the member's identity:
// a secret that outlives the process, and need not be kept beside it.
func grantKey(stateDir string) (key [32]byte, err error) {
	identity, err := loadIdentity(stateDir)
	if err != nil {
		return key, err
	}
	raw, err := hkdf.Key(sha256.New, identity.Seed(), nil, "p2pagent gateway grants", len(key))
	if err != nil {
		return key, fmt.Errorf("key of the gateway's grants: %w", err)
	}
	return [32]byte(raw), nil
}

// openRepos reads --gateway-open.
func openRepos(list []string) (repos []pieces.Repo, every bool, err error) {
	for _, word := range list {
		if word == "*" {
			return nil, true, nil
		}
		repo, err := pieces.ParseRepo(word)
		if err != nil {
			return nil, false, err
		}
		repos = append(repos, repo)
	}
	return repos, false, nil
}

func (s *settings) gatewayFault() error {
	if s.gatewayAddr() == "" {
		return nil
	}
	if _, port, err := net.SplitHostPort(s.Gateway); err != nil || !isPort(port) {
		return s.fault("gateway", "%q, want host:port, or %s", s.Gateway, off)
	}
	return nil
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

func (s *settings) openFault() error {
	if _, _, err := openRepos(s.GatewayOpen); err != nil {
		return s.fault("gateway-open", "%w", err)
	}
	return nil
}
