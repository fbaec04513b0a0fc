package main

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"p2pagent/internal/durable"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/swarm"
)

// key reads the swarm key; without one the swarm is open.
func (s *settings) key() (swarm.Key, error) {
	if s.SwarmKeyFile == "" {
		return s.soloKey, nil
	}
	return swarm.ReadKeyFile(s.SwarmKeyFile)
}

// loadIdentity returns the member's key, making folder and key on the first run.
func loadIdentity(stateDir string) (ed25519.PrivateKey, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w", err)
	}
	root, err := os.OpenRoot(stateDir)
	if err != nil {
		return nil, fmt.Errorf("open state folder: %w", err)
	}
	defer root.Close()
	return swarm.LoadIdentity(root)
}

// facts are what other members are told about this one.
func (m *member) facts() (swarm.Facts, error) {
	addrs, err := m.addrs()
	if err != nil {
		return swarm.Facts{}, err
	}
	return swarm.Facts{
		Peer: m.host.ID(), Name: m.settings.name(), Addrs: addrs, Labels: m.settings.Label, Software: software(),
		Free: freeBytes(m.settings.HubCache), Upstream: m.settings.asksHub(),
	}, nil
}

// name is how people call this member: what the label "node" says, else the host
// name.
func (s *settings) name() string {
	if name := s.Label["node"]; name != "" {
		return name
	}
	name, _ := os.Hostname() // none is fine
	return name
}

// asksHub tells whether this member ever talks to the Hub.
func (s *settings) asksHub() bool { return s.Upstream && !s.Offline }

// addrs returns where the swarm port can be reached: at the advertised address,
// else at the bound one, else at the one that AdvertiseIP finds.
func (m *member) addrs() ([]string, error) {
	port, err := m.swarmPort()
	if err != nil {
		return nil, err
	}
	for _, text := range []string{m.settings.Advertise, m.settings.Bind} {
		if ip, err := netip.ParseAddr(text); err == nil && !ip.IsUnspecified() {
			return []string{netip.AddrPortFrom(ip, port).String()}, nil
		}
	}
	ip, err := swarm.AdvertiseIP()
	if err != nil {
		return nil, &agent.Error{Kind: agent.Other, Message: err.Error(), Err: err, Hint: "name the address with --advertise, or --bind 127.0.0.1 for this machine alone"}
	}
	return []string{netip.AddrPortFrom(ip, port).String()}, nil
}

// swarmPort returns the port that the host got.
func (m *member) swarmPort() (uint16, error) {
	for _, a := range m.host.Network().ListenAddresses() {
		if addr, err := netAddr(a); err == nil {
			return addr.Port(), nil
		}
	}
	return 0, errors.New("the swarm port is not open")
}

func netAddr(a multiaddr.Multiaddr) (netip.AddrPort, error) {
	n, err := manet.ToNetAddr(a)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.ParseAddrPort(n.String())
}

// freeBytes returns what an ordinary user can still write to dir; 0 when that
// can't be told.
func freeBytes(dir string) int64 {
	fs, _ := statfs(dir)
	return fs.Free
}

// about returns what status says of the process.
func (m *member) about(key swarm.Key) func() agent.About {
	s := m.settings
	return func() agent.About {
		self := m.members.Self()
		return agent.About{
			Version: versionText(), PID: os.Getpid(), Name: self.Name, PeerID: self.Peer.String(),
			HubCache: s.HubCache, StateDir: s.StateDir, Endpoint: s.HubEndpoint, Gateway: m.gateway, GatewayXet: m.gateway != "" && s.GatewayXet != offerOff,
			Upstream: s.Upstream, Offline: s.Offline, SwarmKey: key.Fingerprint(), Free: freeBytes(s.HubCache),
			JoinFault: faultText(m.members.JoinError()), Refused: refusals(m.members.Refused()),
		}
	}
}

func faultText(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// refusals names each stranger by the best that is known of it.
func refusals(in []swarm.Refusal) []agent.Refusal {
	out := make([]agent.Refusal, len(in))
	for i, r := range in {
		out[i] = agent.Refusal{Who: cmp.Or(r.Name, r.Peer.String(), r.Addr), Reason: r.Reason, Count: r.Count, Last: r.At}
	}
	return out
}

// notebook keeps notes in a file of the state folder.
type notebook struct{ dir, file string }

const (
	notesFile    = "notes.json"
	rolloutsFile = "rollouts.json"
	notesStage   = "tmp"
	maxNotes     = 16 << 20
)

// Load implements agent.Notebook and desired.Notebook.
func (n notebook) Load() ([]byte, error) {
	root, err := durable.Open(n.dir, nil)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	raw, err := root.ReadFile(n.file, maxNotes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// Save implements agent.Notebook and desired.Notebook.
func (n notebook) Save(raw []byte) error {
	root, err := durable.Open(n.dir, nil)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(notesStage, 0o700); err != nil {
		return err
	}
	return durable.NewStage(root, notesStage).WriteFile(root, n.file, raw, 0o600)
}
