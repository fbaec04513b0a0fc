package xet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"p2pagent/internal/stall"
	"p2pagent/pkg/pieces"
)

// Options configure a Client. Grant and Transport must be set.
type Options struct {
	// Grant asks the Hub for a read token. Its errors name no secret.
	Grant func(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (Grant, error)
	// Transport makes the requests to the CAS and the CDN. It must not compress,
	// and should bound dialling; it must not follow redirects.
	Transport http.RoundTripper
	// UserAgent names the program; default "p2pagent".
	UserAgent string
	// Insecure allows http for the CAS and the CDN: for a Hub that has no TLS
	// itself, as in tests and behind some mirrors.
	Insecure bool
	// Limits bound the pauses within a body; the zero value means DefaultLimits.
	Limits stall.Limits
	// Throttle waits until n more stored bytes may be taken; nil never waits.
	Throttle func(ctx context.Context, n int) error
	// Logger gets a line for each retry and each change of path; nil discards.
	Logger *slog.Logger
}

// DefaultLimits: silence of 15 s, or less than 256 KiB/s over a minute, ends a body.
var DefaultLimits = stall.Limits{Idle: 15 * time.Second, FloorBytes: 60 * 256 << 10, FloorWindow: time.Minute}

const (
	// headerWait bounds the wait for response headers, a new connection included.
	headerWait = 20 * time.Second
	// planWait bounds one try of a question to the CAS, with its body, and of one
	// for a token. Who says nothing for so long is not asked again: plain HTTP has to
	// replace it within 30 s.
	planWait = 20 * time.Second
	// planTries is how often it is put: plain HTTP is there when the CAS is not.
	planTries = 3
	// longestPause is the longest wait that the CAS may ask for between two tries.
	longestPause = 10 * time.Second
)

// Client reads from the content-addressed stores that a Hub names. It is safe for
// concurrent use.
type Client struct {
	*base
	grants grants
}

// base is what clients have in common, whoever grants their tokens.
type base struct {
	o      Options
	log    *slog.Logger
	decode sync.Pool // *Records

	mu  sync.Mutex
	old map[string]bool // CAS hosts that know version 1 only

	stalls atomic.Int64
}

// New returns a Client. It starts nothing and sends nothing.
func New(o Options) (*Client, error) {
	if o.Grant == nil || o.Transport == nil {
		return nil, errors.New("new xet client: a source of tokens and a transport are needed")
	}
	if o.UserAgent == "" {
		o.UserAgent = "p2pagent"
	}
	if o.Limits == (stall.Limits{}) {
		o.Limits = DefaultLimits
	}
	if o.Throttle == nil {
		o.Throttle = func(context.Context, int) error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &base{o: o, log: o.Logger, old: make(map[string]bool), decode: sync.Pool{New: func() any { return NewRecords() }}}
	return &Client{base: b, grants: grants{ask: o.Grant}}, nil
}

// As returns a client that reads by the tokens of another grant. It shares
// everything with c but its tokens, which go with it.
func (c *Client) As(grant func(context.Context, pieces.Repo, pieces.Commit) (Grant, error)) *Client {
	return &Client{base: c.base, grants: grants{ask: grant}}
}

// Stalls returns how many answers were given up so far because bytes stopped.
func (c *Client) Stalls() int64 { return c.stalls.Load() }

// failed counts the error when it is a stall, and returns it.
func (c *Client) failed(err *Error) error {
	if errors.Is(err, stall.ErrStalled) {
		c.stalls.Add(1)
	}
	return err
}

// File is a file of the store, and the repository by whose right it is read.
type File struct {
	Repo   pieces.Repo
	Commit pieces.Commit
	Name   Hash
	Size   int64
}

func (f File) op() string { return "reconstruct " + f.Name.String() }

// reconstruct asks how to read the bytes [off, off+n) of a file. v1 asks for the
// older form, in which every range has a URL of its own.
func (c *Client) reconstruct(ctx context.Context, f File, off, n int64, v1 bool) (*plan, error) {
	renewed := false
	for try := 1; ; try++ {
		p, grant, err := c.tryPlan(ctx, f, off, n, v1)
		switch {
		case err == nil:
			return p, nil
		case status(err) == http.StatusUnauthorized && !renewed:
			c.grants.drop(grantKey{f.Repo, f.Commit}, grant)
			renewed = true
			continue
		case try >= planTries || !again(err) || context.Cause(ctx) != nil:
			return nil, err
		}
		wait := pause(try, err)
		c.log.Info("xet: asking again", "err", err, "wait", wait)
		if sleep(ctx, wait) != nil {
			return nil, err
		}
	}
}

// again tells whether another try may help: the connection broke, or the server
// says that it is busy for not too long. A host that does not answer a dial is not
// dialled again: each takes as long.
func again(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false // the Hub's client has tried again by itself
	}
	late, timed := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	switch {
	case timed && late.Timeout():
		return false
	case errors.Is(err, ErrAnswer) || errors.Is(err, ErrNoFile) || errors.Is(err, stall.ErrStalled) || e.wait > longestPause:
		return false
	case e.Status == 0 || e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests:
		return true
	}
	return e.Status >= 500 && e.Status != http.StatusNotImplemented
}

func pause(try int, err error) time.Duration {
	d := 250 * time.Millisecond << try
	d += rand.N(d / 4)
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, e.wait)
	}
	return d
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tryPlan asks once, in the version that the CAS knows.
func (c *Client) tryPlan(ctx context.Context, f File, off, n int64, v1 bool) (*plan, Grant, error) {
	grant, err := c.grants.get(ctx, grantKey{f.Repo, f.Commit})
	if err != nil {
		return nil, grant, fmt.Errorf("%s: %w", f.op(), err)
	}
	base, why := checkURL(grant.CAS, c.o.Insecure)
	if why != "" {
		return nil, grant, &Error{Op: f.op(), Host: "the Hub", Err: fmt.Errorf("%w: the store's address: %s", ErrAnswer, why)}
	}
	if base.Path == "" {
		base.Path = "/"
	}
	old := v1 || c.knowsOld(base.Host)
	if !old {
		p, err := c.askPlan(ctx, f, grant, base, "/v2/reconstructions/", off, n)
		if s := status(err); s != http.StatusNotFound && s != http.StatusNotImplemented {
			return p, grant, err
		}
	}
	p, err := c.askPlan(ctx, f, grant, base, "/v1/reconstructions/", off, n)
	if err == nil && !v1 {
		c.noteOld(base.Host)
	}
	return p, grant, err
}

func (c *Client) knowsOld(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.old[host]
}

const maxOldHosts = 64

func (c *Client) noteOld(host string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.old) < maxOldHosts {
		c.old[host] = true
	}
}

func (c *Client) askPlan(ctx context.Context, f File, grant Grant, base *url.URL, route string, off, n int64) (*plan, error) {
	late := fmt.Errorf("%w: no whole answer for %v", stall.ErrStalled, planWait)
	ctx, cancel := context.WithTimeoutCause(ctx, planWait, late)
	defer cancel()
	header := http.Header{"Authorization": {"Bearer " + grant.Token}, "Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}}
	resp, err := c.send(ctx, f.op(), base.JoinPath(route, f.Name.String()), header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	fail := func(err error) error { return c.failed(&Error{Op: f.op(), Host: base.Host, Err: err}) }
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, c.refused(f.op(), base.Host, resp)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxPlanBytes+1))
	switch {
	case err != nil:
		return nil, fail(cause(ctx, err))
	case len(raw) > maxPlanBytes:
		return nil, fail(fmt.Errorf("%w: more than %d bytes", ErrAnswer, maxPlanBytes))
	}
	p, err := parsePlan(raw, off, n, f.Size, c.o.Insecure)
	if err != nil {
		return nil, fail(err)
	}
	return p, nil
}

func (c *Client) refused(op, host string, resp *http.Response) error {
	e := &Error{Op: op, Host: host, Status: resp.StatusCode, Err: errStatus, wait: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	if resp.StatusCode == http.StatusNotFound {
		e.Err = ErrNoFile
	}
	return e
}

// retryAfter reads both forms of Retry-After: seconds and a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// cause is why a context ended, when that is why err came.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// send makes one request and waits, within bounds, for its response headers.
func (c *Client) send(ctx context.Context, op string, u *url.URL, header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(headerWait, func() {
		cancel(fmt.Errorf("%w: no response headers for %v", stall.ErrStalled, headerWait))
	})
	defer late.Stop()
	header.Set("User-Agent", c.o.UserAgent)
	req := (&http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
	resp, err := c.o.Transport.RoundTrip(req)
	if err != nil {
		err = c.failed(&Error{Op: op, Host: u.Host, Err: cause(ctx, err)})
		cancel(nil)
		return nil, err
	}
	resp.Body = &body{resp.Body, ctx, cancel}
	return resp, nil
}

// body ends the request's context with its body, and says why that ended.
type body struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = cause(b.ctx, err)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
