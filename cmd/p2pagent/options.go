package main

import (
	"time"

	"github.com/spf13/pflag"

	"p2pagent/pkg/swarm"
)

// options are all settings of a member. Their names as flags, in capitals behind
// P2PAGENT_ as variables, and as keys of the file are the same.
type options struct {
	Config       string
	StateDir     string
	HubCache     string
	HubEndpoint  string
	Bind         string
	GossipPort   int
	SwarmPort    int
	Advertise    string
	Join         listValue
	JoinTimeout  spanValue
	SwarmKeyFile string
	Insecure     bool
	Upstream     bool
	Fetchers     int
	Xet          xetValue
	Ranges       int
	Label        labelsValue
	TakeRollouts bool
	Socket       string
	Gateway      string
	GatewayOpen  listValue
	GatewayXet   offerValue
	MetricsAddr  string
	LogFormat    logFormat

	UploadLimit   sizeValue
	DownloadLimit sizeValue
	UpstreamLimit sizeValue

	MaxCache        sizeValue
	HighWatermark   int
	LowWatermark    int
	EvictLastCopies bool

	Offline bool      // HF_HUB_OFFLINE alone
	soloKey swarm.Key // of a member without a swarm
}

const (
	defaultGossipPort  = 7946
	defaultSwarmPort   = 7947
	defaultFetchers    = 8
	defaultRanges      = 8
	defaultJoinTimeout = 30 * time.Second
	defaultHighMark    = 95 // percent of the quota
	markDistance       = 10
	defaultGateway     = "127.0.0.1:8090"
)

// define adds the flags to fs. The zero value of a path means that it depends on
// others: see fill.
func (o *options) define(fs *pflag.FlagSet) {
	o.JoinTimeout = spanValue(defaultJoinTimeout)
	o.Xet, o.GatewayXet = xetAuto, offerOff
	fs.StringVar(&o.Config, "config", "", "read settings from this YAML `file`")
	fs.StringVar(&o.StateDir, "state-dir", "", "`folder` for pieces under way, journal and identity;\noutside the hub cache, on its filesystem")
	fs.StringVar(&o.HubCache, "hub-cache", "", "the cache `folder` that Hub clients read (HF_HUB_CACHE)")
	fs.StringVar(&o.HubEndpoint, "hub-endpoint", "", "`URL` of the Hub (HF_ENDPOINT)")
	fs.StringVar(&o.Bind, "bind", "", "`IP` address to listen on (default all)")
	fs.IntVar(&o.GossipPort, "gossip-port", defaultGossipPort, "TCP and UDP `port` for membership; 0 takes any")
	fs.IntVar(&o.SwarmPort, "swarm-port", defaultSwarmPort, "TCP `port` for pieces; 0 takes any")
	fs.StringVar(&o.Advertise, "advertise", "", "`IP` address that other members reach this one at")
	fs.Var(&o.Join, "join", "`host:port` of members to join; several, or a name with\nmany addresses")
	fs.Var(&o.JoinTimeout, "join-timeout", "how long to look for them before going on alone")
	fs.StringVar(&o.SwarmKeyFile, "swarm-key-file", "", "`file` with the swarm key (p2pagent keygen)")
	fs.BoolVar(&o.Insecure, "insecure", false, "run without a swarm key: whoever reaches the ports is in")
	fs.BoolVar(&o.Upstream, "upstream", true, "this member may fetch from the Hub")
	fs.IntVar(&o.Fetchers, "fetchers", defaultFetchers, "`members` that fetch one snapshot from the Hub at once")
	fs.IntVar(&o.Ranges, "ranges", defaultRanges, "`requests` to the Hub at once, at most: extents of this member")
	fs.Var(&o.Xet, "xet", "read files from the Hub's content-addressed store: auto, with\nplain HTTP when it fails; off; only, without")
	fs.Var(&o.Label, "label", "`key=value` to tell other members about this node; node=NAME\nnames it to people")
	fs.BoolVar(&o.TakeRollouts, "accept-rollouts", true, "hold what other members ask this one to (p2pagent rollout)")
	fs.StringVar(&o.Socket, "socket", "", "unix socket `path` of the control API")
	fs.StringVar(&o.Gateway, "gateway", defaultGateway, "`address` that Hub clients on this node use as the Hub\n(HF_ENDPOINT); port 0 takes any, off or an empty one none")
	fs.Var(&o.GatewayOpen, "gateway-open", "gated or private `repositories` that the gateway serves to\neverybody on this node; * for all")
	fs.Var(&o.GatewayXet, "gateway-xet", "files that the gateway serves to hf_xet, out of the swarm: off;\nhuge, those over 50 GB; all. Others go by plain HTTP")
	fs.StringVar(&o.MetricsAddr, "metrics-addr", "", "`host:port` of a page to look at, /metrics, /livez\nand /readyz, such as 127.0.0.1:9464; off when empty")
	o.LogFormat = logAuto
	fs.Var(&o.LogFormat, "log-format", "`auto|text|json`: how the agent logs; auto is text on a\nterminal, else json")
	fs.Var(&o.UploadLimit, "upload-limit", "most `bytes` a second sent to members (0: no limit)")
	fs.Var(&o.DownloadLimit, "download-limit", "most `bytes` a second taken from members (0: no limit)")
	fs.Var(&o.UpstreamLimit, "upstream-limit", "most `bytes` a second taken from the Hub (0: no limit)")
	fs.Var(&o.MaxCache, "max-cache", "most `bytes` that the hub cache may hold (0: what the disk has)")
	fs.IntVar(&o.HighWatermark, "high-watermark", 0, "above this `percent` of --max-cache, or without it of the\nfilesystem, the agent evicts snapshots; 0 means 95\nwith --max-cache, else never")
	fs.IntVar(&o.LowWatermark, "low-watermark", 0, "and down to this `percent`; 0 means 10 below the high one")
	fs.BoolVar(&o.EvictLastCopies, "evict-last-copies", false, "let the agent evict the last copy in the swarm, of what\nthe Hub has")
}

// localOptions are those that also make sense for a command that only talks to
// an agent: they say where its socket is.
var localOptions = map[string]bool{"config": true, "socket": true, "state-dir": true, "hub-cache": true}

// fleetVariables are the ones that nodes have set already for Hub clients. They
// come after P2PAGENT_* and the file's keys, before the defaults.
var fleetVariables = map[string][]string{
	"hub-cache":    {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"},
	"hub-endpoint": {"HF_ENDPOINT"},
}
