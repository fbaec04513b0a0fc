package swarm

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/pkg/pieces"
)

// ProtocolVersion is what members must agree on to talk: the form of facts, of
// gossip messages and of frames on streams.
const ProtocolVersion = 1

// Limits on facts. memberlist carries 512 bytes about a member and no more.
const (
	maxFactsBytes = 512
	maxFactName   = 64
	maxFactAddrs  = 4
	maxFactLabels = 16
	maxFactLabel  = 63
	maxSoftware   = 32
)

var (
	// ErrVersion marks facts of a member that speaks another protocol version.
	ErrVersion = errors.New("other protocol version")
	// ErrProof marks facts without a valid proof of the swarm key.
	ErrProof = errors.New("no proof of this swarm's key")
	// ErrFactsTooLong marks facts that had to lose labels to fit into gossip.
	ErrFactsTooLong = errors.New("facts too long for gossip")
)

// Facts is what a member tells all others about itself. Everything but Peer and
// Proof is a hint: it is used, not believed.
type Facts struct {
	Peer     peer.ID           // not encoded: it is the member's name in gossip
	Name     string            // host name, for people
	Addrs    []string          // ip:port of the swarm port, best first
	Proof    []byte            // Key.Proof(Peer)
	Labels   map[string]string // what the operator says about the node
	Free     int64             // bytes free for the cache
	Upstream bool              // may fetch upstream
	Version  int               // ProtocolVersion
	Software string            // name/version, for people
}

// encodedFacts is the canonical form. Version comes first and alone decides
// whether the rest can be read.
type encodedFacts struct {
	_        struct{} `cbor:",toarray"`
	Version  int
	Name     string
	Addrs    []string
	Proof    []byte
	Labels   map[string]string
	Free     int64
	Upstream bool
	Software string
}

// Encode returns the canonical form, at most 512 bytes. When it would be
// longer, labels are dropped from the last key backwards until it fits: then
// the bytes are usable and the error, wrapping ErrFactsTooLong, names what was
// dropped. Any other error comes without bytes.
func (f Facts) Encode() ([]byte, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("encode facts: %w", err)
	}
	e := encodedFacts{Version: f.Version, Name: f.Name, Addrs: f.Addrs, Proof: f.Proof, Labels: maps.Clone(f.Labels), Free: f.Free, Upstream: f.Upstream, Software: f.Software}
	keys := slices.Sorted(maps.Keys(f.Labels))
	for n := len(keys); ; n-- {
		b, err := pieces.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode facts: %w", err)
		}
		if len(b) <= maxFactsBytes {
			return b, dropped(keys[n:])
		}
		if n == 0 {
			return nil, fmt.Errorf("encode facts: %d bytes without labels: %w", len(b), ErrFactsTooLong)
		}
		delete(e.Labels, keys[n-1])
	}
}

func dropped(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	return fmt.Errorf("encode facts: labels %s dropped: %w", strings.Join(keys, ", "), ErrFactsTooLong)
}

// DecodeFacts reads what Encode made, for the member named p in gossip. A
// member of another version gives an error wrapping ErrVersion and Facts that
// hold the version alone.
func DecodeFacts(p peer.ID, b []byte) (Facts, error) {
	version, err := factsVersion(b)
	if err != nil {
		return Facts{Peer: p}, fmt.Errorf("decode facts: %w", err)
	}
	if version != ProtocolVersion {
		return Facts{Peer: p, Version: version}, fmt.Errorf("decode facts: it speaks version %d, this member %d: %w", version, ProtocolVersion, ErrVersion)
	}
	var e encodedFacts
	if err := pieces.Unmarshal(b, maxFactsBytes, &e); err != nil {
		return Facts{Peer: p}, fmt.Errorf("decode facts: %w", err)
	}
	f := Facts{p, e.Name, e.Addrs, e.Proof, e.Labels, e.Free, e.Upstream, e.Version, e.Software}
	if err := f.check(); err != nil {
		return Facts{Peer: p}, fmt.Errorf("decode facts: %w", err)
	}
	return f, nil
}

// factsVersion reads the first element whatever the others are.
func factsVersion(b []byte) (int, error) {
	var row []any
	if err := pieces.Unmarshal(b, maxFactsBytes, &row); err != nil {
		return 0, err
	}
	if len(row) == 0 {
		return 0, errors.New("empty")
	}
	v, ok := row[0].(uint64)
	if !ok || v > 1<<16 {
		return 0, errors.New("no version")
	}
	return int(v), nil
}

// check holds both ways: we neither send nor accept facts beyond the limits.
func (f Facts) check() error {
	switch {
	case !printable(f.Name, maxFactName):
		return fmt.Errorf("name %q: want at most %d printable characters", f.Name, maxFactName)
	case !printable(f.Software, maxSoftware):
		return fmt.Errorf("software %q: want at most %d printable characters", f.Software, maxSoftware)
	case len(f.Addrs) > maxFactAddrs:
		return fmt.Errorf("%d addresses, at most %d", len(f.Addrs), maxFactAddrs)
	case len(f.Labels) > maxFactLabels:
		return fmt.Errorf("%d labels, at most %d", len(f.Labels), maxFactLabels)
	case len(f.Proof) > 64:
		return fmt.Errorf("proof of %d bytes", len(f.Proof))
	case f.Free < 0:
		return fmt.Errorf("%d bytes free", f.Free)
	}
	return errors.Join(checkAddrs(f.Addrs), checkLabels(f.Labels))
}

func checkAddrs(addrs []string) error {
	for _, a := range addrs {
		ap, err := netip.ParseAddrPort(a)
		if err != nil || ap.Port() == 0 || ap.Addr().IsUnspecified() || ap.Addr().IsMulticast() || ap.Addr().Zone() != "" {
			return fmt.Errorf("address %q: want ip:port that others can reach", a)
		}
	}
	return nil
}

// addrPorts returns the addresses, best first.
func (f Facts) addrPorts() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(f.Addrs))
	for _, a := range f.Addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			out = append(out, ap)
		}
	}
	return out
}

// ips returns the addresses without ports.
func (f Facts) ips() []netip.Addr {
	var out []netip.Addr
	for _, ap := range f.addrPorts() {
		if !slices.Contains(out, ap.Addr()) {
			out = append(out, ap.Addr())
		}
	}
	return out
}

func checkLabels(labels map[string]string) error {
	for k, v := range labels {
		if k == "" || !printable(k, maxFactLabel) || !printable(v, maxFactLabel) {
			return fmt.Errorf("label %q=%q: want at most %d printable characters each", k, v, maxFactLabel)
		}
	}
	return nil
}

// printable keeps terminal escapes and half characters of others out of our
// status output.
func printable(s string, limit int) bool {
	return len(s) <= limit && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
