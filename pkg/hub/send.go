package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"p2pagent/internal/stall"
)

// request is one thing asked of the Hub, with the words for its errors.
type request struct {
	op      string // "list org/name at 0123…"
	bucket  string
	method  string
	url     *url.URL
	header  http.Header
	missing error // what a 404 without a code means here
}

// answer is a response whose headers are in. Whoever gets it closes Body.
type answer struct {
	*http.Response
	from  *url.URL // the URL that answered, after redirects
	asked bool     // a token was sent
	conn  net.Conn // that the body comes on
}

// maxRedirects is generous: the Hub needs two (a renamed repository, its file cache).
const maxRedirects = 5

// follow sends a request and goes where redirects lead. With relativeOnly an
// absolute redirect is the answer.
func (c *Client) follow(ctx context.Context, r request, relativeOnly bool) (*answer, error) {
	for range maxRedirects + 1 {
		a, err := c.send(ctx, r)
		if err != nil {
			return nil, err
		}
		if !a.moved() {
			return a, nil
		}
		target, relative, err := c.target(r, a.Header.Get("Location"))
		if err != nil {
			a.Body.Close()
			return nil, err
		}
		if relativeOnly && !relative {
			return a, nil
		}
		a.Body.Close()
		r.url = target
	}
	return nil, &RedirectError{Op: r.op, Target: origin(r.url), Reason: fmt.Sprintf("more than %d in a row", maxRedirects)}
}

// moved tells whether the answer is a redirect that leads somewhere.
func (a *answer) moved() bool { return redirects(a.StatusCode) && a.Header.Get("Location") != "" }

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// target judges where a redirect leads.
func (c *Client) target(r request, location string) (u *url.URL, relative bool, err error) {
	ref, err := url.Parse(location)
	if err != nil {
		return nil, false, &ProtocolError{Op: r.op, Host: r.url.Host, Reason: "Location is no URL"}
	}
	u = r.url.ResolveReference(ref)
	fail := func(reason string) error { return &RedirectError{Op: r.op, Target: origin(u), Reason: reason} }
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, false, fail("only http and https are followed")
	case r.url.Scheme == "https" && u.Scheme == "http":
		return nil, false, fail("it would leave https")
	case u.User != nil:
		return nil, false, fail("it carries credentials")
	}
	if !sameOrigin(u, c.endpoint) {
		if reason := c.refused(hostAddr(u.Hostname())); reason != "" {
			return nil, false, fail(reason)
		}
	}
	return u, ref.Scheme == "" && ref.Host == "", nil
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// send makes one request and waits, within bounds, for its response headers.
// The token goes along only when the URL is the endpoint's. The caller has passed
// the gate of the request's bucket.
func (c *Client) send(ctx context.Context, r request) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var conn net.Conn
	traced, stop := c.bounded(c.purpose(ctx, r.url), cancel, &conn)
	defer stop()
	req, asked, err := c.build(traced, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := c.transport.RoundTrip(req)
	c.count.answered(resp)
	if err != nil {
		if errors.Is(context.Cause(ctx), stall.ErrStalled) {
			c.count.stalls.Add(1)
			c.CloseIdle() // a NAT that forgot this connection forgot the pooled ones too
		}
		err = c.failed(ctx, r, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &body{resp.Body, ctx, cancel}
	return &answer{Response: resp, from: r.url, asked: asked, conn: conn}, nil
}

// bounded cancels a request whose response headers do not come: HeaderTimeout
// after it has a connection, and in all cases once dialling could have ended. The
// connection is in conn once there is a response.
func (c *Client) bounded(ctx context.Context, cancel context.CancelCauseFunc, conn *net.Conn) (_ context.Context, stop func() bool) {
	late := &DeadlineError{What: "no connection", Limit: DialTimeout + TLSTimeout + c.o.HeaderTimeout, cause: stall.ErrStalled}
	silent := &DeadlineError{What: "no response headers", Limit: c.o.HeaderTimeout, cause: stall.ErrStalled}
	var connected atomic.Bool
	timer := time.AfterFunc(late.Limit, func() {
		if connected.Load() {
			cancel(silent)
		}
		cancel(late) // the first cause counts
	})
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		*conn = got.Conn
		connected.Store(true)
		timer.Reset(silent.Limit)
	}}), timer.Stop
}

func (c *Client) build(ctx context.Context, r request) (req *http.Request, asked bool, err error) {
	req, err = http.NewRequestWithContext(ctx, r.method, r.url.String(), nil)
	if err != nil {
		return nil, false, &ProtocolError{Op: r.op, Host: r.url.Host, Reason: "not a URL that can be asked"}
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	if !sameOrigin(r.url, c.endpoint) {
		return req, false, nil
	}
	token, err := c.token()
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", r.op, err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, token != "", nil
}

// body ends the request's context with its body. Its errors are the context's
// cause, if that is what ended it: "canceled" says too little.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && context.Cause(b.ctx) != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// errCertificate is permanent: a clock or a proxy has to be put right.
var errCertificate error = &sentinel{"certificate not trusted", true}

// where names a URL in an error. The path of another host than the endpoint may
// be a secret, and a query always.
func (c *Client) where(u *url.URL) string {
	if sameOrigin(u, c.endpoint) {
		return origin(u) + u.EscapedPath()
	}
	return origin(u)
}

// failed turns a transport's error into one that names the operation, the host
// and, when a context ended it, the cause.
func (c *Client) failed(ctx context.Context, r request, err error) error {
	var addr *addrError
	var cert *tls.CertificateVerificationError
	var dial *net.OpError
	var dns *net.DNSError
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return fmt.Errorf("%s: %s: %w", r.op, c.where(r.url), cause)
	case errors.As(err, &addr):
		return &RedirectError{Op: r.op, Target: origin(r.url), Reason: addr.reason}
	case errors.As(err, &cert):
		return fmt.Errorf("%s: %s: %w: %w", r.op, r.url.Host, errCertificate, err)
	case errors.As(err, &dns), errors.As(err, &dial) && (dial.Op == "dial" || dial.Op == "proxyconnect"):
		return fmt.Errorf("%s: %w at %s: %w", r.op, ErrUnreachable, origin(r.url), err)
	}
	return &ConnError{Op: r.op, Host: r.url.Host, Err: err}
}
