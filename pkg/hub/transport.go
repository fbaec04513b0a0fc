package hub

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"

	"p2pagent/internal/sockopt"
)

// The bounds of a new connection.
const (
	DialTimeout = 10 * time.Second
	TLSTimeout  = 10 * time.Second
)

// newTransport makes the client's own transport: dial and TLS bounded, pooled
// connections dropped before a NAT forgets them, keep-alive and TCP_USER_TIMEOUT
// so that the kernel too notices a dead peer, proxies from the environment but
// never for loopback, HTTP/1.1 only and no transparent compression.
func (c *Client) newTransport() *http.Transport {
	proxy := httpproxy.FromEnvironment().ProxyFunc() // never for loopback
	c.proxied = func(u *url.URL) bool { p, err := proxy(u); return p != nil || err != nil }
	dialer := &net.Dialer{
		Timeout:         DialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
		ControlContext:  c.control,
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return proxy(r.URL) },
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    TLSTimeout,
		ResponseHeaderTimeout:  c.o.HeaderTimeout + time.Second, // second line: send has the better message
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		MaxIdleConnsPerHost:    16,
		DisableCompression:     true, // a range of a compressed body is no range of the file
		Protocols:              &protocols,
	}
}

type dialKey struct{}

// dialPurpose travels in the request's context to the dialer, which alone knows
// the address that a name resolved to.
type dialPurpose int

const (
	toEndpoint dialPurpose = iota + 1
	toForeign              // a host that a redirect named: no private addresses
)

// purpose tells the dialer where a request goes. A proxy's address is the
// operator's choice, so what is dialled for it is not judged.
func (c *Client) purpose(ctx context.Context, u *url.URL) context.Context {
	if c.proxied != nil && c.proxied(u) {
		return ctx
	}
	if sameOrigin(u, c.endpoint) {
		return context.WithValue(ctx, dialKey{}, toEndpoint)
	}
	return context.WithValue(ctx, dialKey{}, toForeign)
}

func (c *Client) control(ctx context.Context, _, address string, raw syscall.RawConn) error {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		switch ctx.Value(dialKey{}) {
		case toEndpoint:
			c.noteEndpoint(ap.Addr())
		case toForeign:
			if reason := c.refused(ap.Addr()); reason != "" {
				return &addrError{reason}
			}
		}
	}
	return sockopt.UserTimeout(raw)
}

// addrError is what the dialer says about a forbidden address.
type addrError struct{ reason string }

func (e *addrError) Error() string   { return e.reason }
func (e *addrError) Permanent() bool { return true }

// noteEndpoint remembers in which part of the world the endpoint is: from there,
// redirects to its own surroundings are fine.
func (c *Client) noteEndpoint(a netip.Addr) {
	switch scopeOf(a) {
	case scopeLocal:
		c.local.Store(true)
	case scopeLink:
		c.linkLocal.Store(true)
	}
}

// refused gives the reason why a redirect may not lead to an address, or "". A
// redirect from the Internet into the network of this node would make it fetch
// on behalf of a stranger (the metadata service of a cloud is link-local).
func (c *Client) refused(a netip.Addr) string {
	switch scopeOf(a) {
	case scopeLocal:
		if !c.local.Load() {
			return fmt.Sprintf("%s is a private address and the endpoint has none", a)
		}
	case scopeLink:
		if !c.linkLocal.Load() {
			return fmt.Sprintf("%s is a link-local address and the endpoint has none", a)
		}
	}
	return ""
}

type scope int

const (
	scopePublic scope = iota
	scopeLocal        // loopback, private, carrier-grade NAT
	scopeLink
)

var sharedNet = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598; overlays use it

// scopeOf sorts an address; the zero Addr (a name) is public until it is dialled.
func scopeOf(a netip.Addr) scope {
	a = a.Unmap()
	switch {
	case a.IsLinkLocalUnicast(), a.IsMulticast():
		return scopeLink
	case a.IsLoopback(), a.IsPrivate(), a.IsValid() && a.IsUnspecified(), sharedNet.Contains(a):
		return scopeLocal
	}
	return scopePublic
}

// hostAddr reads a host as an address; a name gives the zero Addr, but for
// localhost, which is loopback by definition (RFC 6761).
func hostAddr(host string) netip.Addr {
	if host == "localhost" {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a, _ := netip.ParseAddr(host)
	return a
}
