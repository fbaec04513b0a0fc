package doctor

import (
	"context"
	"net"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"
)

// maxSkew is how far the clock may be off. Certificates and signed URLs have
// minutes.
const maxSkew = time.Minute

// stage is how far a request got.
type stage int

const (
	stageStart stage = iota
	stageDNS
	stageTCP
	stageProxy // connected to it, and not yet through it
	stageTLS
	stageHTTP
)

var stageNames = map[stage]string{stageStart: "no request", stageDNS: "DNS", stageTCP: "TCP", stageProxy: "proxy", stageTLS: "TLS", stageHTTP: "HTTP"}

var stageCures = map[stage]string{
	stageStart: "set HF_ENDPOINT to the URL of a Hub",
	stageDNS:   "check the name in HF_ENDPOINT and the name servers in /etc/resolv.conf",
	stageTCP:   "let this node open TCP connections there (firewall, route), or set HTTPS_PROXY",
	stageProxy: "check HTTPS_PROXY, and that the proxy lets this node through to the Hub",
	stageTLS:   "check that HF_ENDPOINT speaks TLS and that the clock is right, and put the certificate of a proxy that opens TLS into the system's store",
	stageHTTP:  "check that HF_ENDPOINT is a Hub, and try again later",
}

// way watches how far a request gets. The transport calls it from goroutines of
// its own.
type way struct {
	mu   sync.Mutex
	at   stage
	addr string // host:port that it connects to: the Hub's, or a proxy's
}

func (w *way) reach(s stage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = max(w.at, s)
}

func (w *way) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(addr string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.addr = addr
		},
		DNSStart:     func(httptrace.DNSStartInfo) { w.reach(stageDNS) },
		ConnectStart: func(string, string) { w.reach(stageTCP) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				w.reach(stageProxy)
			}
		},
		TLSHandshakeStart: func() { w.reach(stageTLS) },
		GotConn:           func(httptrace.GotConnInfo) { w.reach(stageHTTP) },
	})
}

// end returns the stage that was reached, and the proxy or "".
func (w *way) end(endpoint string) (at stage, proxy string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.addr != "" && w.addr != hostPort(endpoint) {
		return w.at, w.addr
	}
	if w.at == stageProxy { // connected, and there is none
		return stageTLS, ""
	}
	return w.at, ""
}

func hostPort(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	if port := u.Port(); port != "" {
		return net.JoinHostPort(u.Hostname(), port)
	}
	return net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}

// checkHub asks the Hub once. One answer says three things: that it can be
// reached, what time it is there, and whether it takes the token.
func checkHub(ctx context.Context, e *Env) []Result {
	const self = "the Hub of the agent would be its own gateway, %s"
	switch {
	case !e.AsksHub:
		return rest("this member never asks the Hub")
	case SameHost(e.Endpoint, e.Gateway):
		return rest("the Hub was not asked", fail("unset HF_ENDPOINT for the agent, or name the Hub with --hub-endpoint", self, e.Gateway))
	}
	w := &way{}
	begun := e.Now()
	a, err := e.Hub(w.watch(ctx))
	now := e.Now()
	at, proxy := w.end(e.Endpoint)
	if err != nil {
		return rest("the Hub did not answer", fail(stageCures[at], "%s: %v%s", stageNames[at], err, through(proxy)))
	}
	return []Result{judgeHub(a, e.Endpoint, through(proxy), now.Sub(begun)), judgeClock(a.Date, now), judgeToken(e, a)}
}

// rest makes three results out of those that there are.
func rest(why string, first ...Result) []Result {
	for len(first) < 3 {
		first = append(first, skipped("%s", why))
	}
	return first
}

func through(proxy string) string {
	if proxy == "" {
		return ""
	}
	return " (through the proxy " + proxy + ")"
}

func judgeHub(a Answer, endpoint, through string, took time.Duration) Result {
	switch {
	case a.Page:
		return fail("check the proxy variables and sign in to the network if it wants that", "a web page answers at %s%s, not the Hub", endpoint, through)
	case a.Status == 407:
		return fail("put the proxy's user and password into HTTPS_PROXY and HTTP_PROXY", "the proxy wants to know who asks (407)%s", through)
	case a.Status == 429:
		return warn("wait: all nodes behind this address share the limit", "%s limits requests (429)%s", endpoint, through)
	case a.Status >= 500:
		return fail(stageCures[stageHTTP], "HTTP: %s answers %d%s", endpoint, a.Status, through)
	case a.Status >= 300 && a.Status < 400:
		return warn("set HF_ENDPOINT to where it leads", "%s redirects (%d)%s", endpoint, a.Status, through)
	}
	return ok("%s answers in %d ms%s", endpoint, took.Milliseconds(), through)
}

func judgeClock(hub, now time.Time) Result {
	if hub.IsZero() {
		return skipped("the Hub does not tell its time")
	}
	skew := now.Sub(hub).Round(time.Second)
	direction := "ahead of"
	if skew < 0 {
		direction = "behind"
	}
	if skew.Abs() > maxSkew {
		return fail("set this machine's clock, and keep it right with NTP", "this clock is %v %s the Hub's", skew.Abs(), direction)
	}
	return ok("within %v of the Hub's", skew.Abs()+time.Second) // which are whole ones
}

// judgeToken tells apart a token that can't be read and one that is refused.
func judgeToken(e *Env, a Answer) Result {
	set, err := e.Token()
	switch {
	case err != nil:
		return fail("make the file readable for the agent's user, or put one valid token into it", "%v", err)
	case !set:
		return skipped("none: only what is public can be fetched, or what callers of the gateway show a token for")
	case !a.Asked || a.Page || a.Status != 200 && a.Status != 401:
		return skipped("the endpoint does not say (%d)", a.Status)
	case a.Status == 401:
		return fail("put a valid token into HF_TOKEN or the file of HF_TOKEN_PATH, or remove the bad one", "the Hub refuses it (401)")
	}
	return ok("the Hub takes it")
}
