package hub

import (
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"p2pagent/internal/stall"
)

// Options configures a Client. The zero value reads the public Hub anonymously.
type Options struct {
	// Endpoint is the Hub's URL, or a mirror's; a path prefix is kept.
	Endpoint string
	// Token is asked for every request to the endpoint; nil is anonymous.
	Token TokenSource
	// Transport replaces the client's own one, which bounds dialling and TLS, keeps
	// connections alive, honours the proxy variables and guards against redirects
	// to names that resolve to private addresses.
	Transport http.RoundTripper
	// UserAgent names the program to the Hub; default "p2pagent".
	UserAgent string
	// Limits bound the pauses within a body; the zero value means DefaultLimits.
	Limits stall.Limits
	// HeaderTimeout bounds the wait for response headers on an open connection,
	// and with DialTimeout and TLSTimeout on top for a new one; default 15 s.
	HeaderTimeout time.Duration
	// APITimeout bounds one try of an API call with its body; default 30 s.
	APITimeout time.Duration
	// Retries is how often an API call is tried again; default 4, negative: never.
	Retries int
	// Logger gets a line for each retry, wait and stall; nil discards.
	Logger *slog.Logger
	// OnWait is told when the Hub asks this client to wait, so that other members
	// can be told too. It must not block. It is not called for Hold.
	OnWait func(bucket string, until time.Time)
}

// DefaultLimits: silence of 15 s, or less than 256 KiB/s over a minute, ends a body.
var DefaultLimits = stall.Limits{Idle: 15 * time.Second, FloorBytes: 60 * 256 << 10, FloorWindow: time.Minute}

// The buckets in which the Hub counts requests (its rate limit documentation).
const (
	BucketAPI       = "api"       // repository information and listings
	BucketResolvers = "resolvers" // files
	BucketCDN       = "cdn"       // the hosts that files are redirected to; ours, not the Hub's word
)

// IsBucket tells whether requests are counted in a bucket of that name.
func IsBucket(name string) bool {
	return name == BucketAPI || name == BucketResolvers || name == BucketCDN
}

const (
	defaultHeaderTimeout = 15 * time.Second
	defaultAPITimeout    = 30 * time.Second
	defaultRetries       = 4
)

// Client reads from one Hub. It is safe for concurrent use.
type Client struct {
	*base
	token     TokenSource
	locations locations // signed by the right of the token
}

// base is what clients of one Hub have in common, whatever their tokens.
type base struct {
	endpoint  *url.URL
	o         Options
	transport http.RoundTripper
	log       *slog.Logger
	gates     gates
	local     atomic.Bool // the endpoint has a private or loopback address
	linkLocal atomic.Bool
	proxied   func(*url.URL) bool
	count     counts
}

// New checks the options. It starts nothing and sends nothing.
func New(o Options) (*Client, error) {
	endpoint, err := parseEndpoint(o.Endpoint)
	if err != nil {
		return nil, err
	}
	c := &Client{base: &base{endpoint: endpoint, o: o, transport: o.Transport, log: o.Logger}}
	c.setDefaults()
	c.token = c.o.Token
	c.gates.until = make(map[string]time.Time)
	c.noteEndpoint(hostAddr(endpoint.Hostname()))
	if c.transport == nil {
		c.transport = c.newTransport()
	}
	return c, nil
}

// As returns a client that shows another token to the Hub instead, "" for none.
// It shares connections, waits and counts with c, and nothing that was found by a
// token. It needs no end: what it knows goes with it.
func (c *Client) As(token string) *Client {
	return &Client{base: c.base, token: func() (string, error) {
		if _, err := checkToken(token, "the caller"); err != nil {
			return "", ErrUnauthorized
		}
		return token, nil
	}}
}

func (c *Client) setDefaults() {
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.o.Token == nil {
		c.o.Token = func() (string, error) { return "", nil }
	}
	if c.o.UserAgent == "" {
		c.o.UserAgent = "p2pagent"
	}
	if c.o.Limits == (stall.Limits{}) {
		c.o.Limits = DefaultLimits
	}
	if c.o.HeaderTimeout <= 0 {
		c.o.HeaderTimeout = defaultHeaderTimeout
	}
	if c.o.APITimeout <= 0 {
		c.o.APITimeout = defaultAPITimeout
	}
	if c.o.Retries == 0 {
		c.o.Retries = defaultRetries
	}
	if c.o.OnWait == nil {
		c.o.OnWait = func(string, time.Time) {}
	}
}

// Endpoint returns the URL that requests go to, without credentials.
func (c *Client) Endpoint() string { return c.endpoint.String() }

// CloseIdle closes pooled connections. Bodies that are open stay open.
func (c *Client) CloseIdle() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// gates holds back requests while the Hub has asked for a pause.
type gates struct {
	mu    sync.Mutex
	until map[string]time.Time
}
