package swarm

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// defaultMembers is how large a swarm the limits allow for when nobody says.
const defaultMembers = 1024

// Limits of libp2p's resource manager. They bound what all peers together can
// make this process hold, well above what members need.
const (
	// Two connections to a member exist while both dial at once; the rest is
	// room for reconnecting before the old one is noticed dead, and for lanes: as
	// many each way as a member asks for pieces at once, twice over, since a lane
	// that was given up lives on for a moment at the other end.
	connsPerMember = 6 + 2*2*lanesKept
	// Neighbour stream, streams that stand in for lanes both ways, and opening ones.
	streamsPerMember = 96
	// Connections that have not proved who they are: they cost a handshake each.
	strangers = 128
	// Windows of yamux (muxing) are what libp2p accounts as memory: what peers
	// may send before anybody reads it. 48 neighbours with 4 grown streams each
	// way are 48*8*4 MiB at most, yet a member that reads holds next to nothing;
	// past the limit streams stay at 256 KiB.
	windowsPerMember = 48 << 20
	windowsTotal     = 512 << 20
	// Members behind one address translator share an address.
	connsPerAddress = 128
)

func newLimits(members int) (network.ResourceManager, error) {
	if members <= 0 {
		members = defaultMembers
	}
	all := rcmgr.ResourceLimits{
		Conns: rcmgr.LimitVal(4*members + strangers), ConnsInbound: rcmgr.LimitVal(2*members + strangers), ConnsOutbound: rcmgr.LimitVal(2*members + strangers),
		FD:      rcmgr.LimitVal(4*members + strangers),
		Streams: rcmgr.LimitVal(16 * members), StreamsInbound: rcmgr.LimitVal(8 * members), StreamsOutbound: rcmgr.LimitVal(8 * members),
		Memory: windowsTotal,
	}
	unproved := rcmgr.ResourceLimits{
		Conns: strangers, ConnsInbound: strangers, ConnsOutbound: strangers, FD: strangers,
		Streams: 2 * strangers, StreamsInbound: 2 * strangers, StreamsOutbound: 2 * strangers, Memory: 32 << 20,
	}
	limits := rcmgr.PartialLimitConfig{
		System: all, Transient: unproved, AllowlistedSystem: all, AllowlistedTransient: unproved,
		PeerDefault: rcmgr.ResourceLimits{
			Conns: connsPerMember, ConnsInbound: connsPerMember, ConnsOutbound: connsPerMember, FD: connsPerMember,
			Streams: streamsPerMember, StreamsInbound: streamsPerMember / 2, StreamsOutbound: streamsPerMember / 2,
			Memory: windowsPerMember,
		},
	}.Build(rcmgr.InfiniteLimits)
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), rcmgr.WithMetricsDisabled(), perAddress(), arrivals())
	if err != nil {
		return nil, fmt.Errorf("resource limits: %w", err)
	}
	return m, nil
}

// perAddress replaces libp2p's limits for the open internet, which count an
// IPv6 /56 (a whole site) as one.
func perAddress() rcmgr.Option {
	return rcmgr.WithLimitPerSubnet(
		[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
		[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 128, ConnCount: connsPerAddress}})
}

// arrivals bounds how fast one address may open connections.
func arrivals() rcmgr.Option {
	limit := rate.Limit{RPS: 8, Burst: connsPerAddress}
	return rcmgr.WithConnRateLimiters(&rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")}},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 128, Limit: limit}},
			GracePeriod:      time.Minute,
		},
	})
}
