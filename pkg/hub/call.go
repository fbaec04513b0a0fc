package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"strings"
	"time"

	"p2pagent/internal/stall"
)

// The back-off between tries of an API call.
const (
	firstPause = 500 * time.Millisecond
	maxPause   = 30 * time.Second
)

// retry runs try until it succeeds, fails for good, or has been tried often
// enough. Each try has the API deadline to itself; waiting for a rate limit does
// not count against it.
func (c *Client) retry(ctx context.Context, r request, try func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		err := c.once(ctx, r, try)
		if err == nil || Permanent(err) || ctx.Err() != nil {
			return err
		}
		if attempt >= c.o.Retries {
			return fmt.Errorf("%w (tried %d times)", err, attempt+1)
		}
		wait := pause(attempt, err)
		c.log.Warn("hub call failed, trying again", slog.String("op", r.op), slog.Any("err", err), slog.Duration("wait", wait))
		if sleep(ctx, wait) != nil {
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

func (c *Client) once(ctx context.Context, r request, try func(context.Context) error) error {
	if err := c.pass(ctx, r.op, r.bucket); err != nil {
		return err
	}
	late := &DeadlineError{What: "no whole answer", Limit: c.o.APITimeout, cause: stall.ErrStalled}
	ctx, cancel := context.WithTimeoutCause(ctx, c.o.APITimeout, late)
	defer cancel()
	return try(ctx)
}

// pause doubles up to maxPause, less up to a quarter so that many clients do not
// come back in step. What the Hub asks for comes first; a rate limit is waited
// for at the gate.
func pause(attempt int, err error) time.Duration {
	d := min(firstPause<<min(attempt, 10), maxPause)
	d -= rand.N(d/4 + 1)
	var limit *RateLimitError
	var asked interface{ RetryAfter() time.Duration }
	if !errors.As(err, &limit) && errors.As(err, &asked) {
		d = max(d, min(asked.RetryAfter(), maxPause))
	}
	return d
}

// Permanent tells whether trying again cannot help: what err itself says, or
// false when it does not say.
func Permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// maxAPIBody bounds an API answer: a page of a listing has 1,000 rows of about
// 300 bytes.
const maxAPIBody = 32 << 20

// getJSON makes an API call with retries and decodes its answer.
func (c *Client) getJSON(ctx context.Context, r request, out any) (header http.Header, err error) {
	err = c.retry(ctx, r, func(ctx context.Context) error {
		a, err := c.follow(ctx, r, false)
		if err != nil {
			return err
		}
		header = a.Header
		return c.decode(r, a, out)
	})
	return header, err
}

func (c *Client) decode(r request, a *answer, out any) error {
	if err := c.check(r, a, http.StatusOK); err != nil {
		return err
	}
	defer a.Body.Close()
	refuse := func(reason string) error { return &ProtocolError{Op: r.op, Host: a.from.Host, Reason: reason} }
	if reason := oddContent(a.Header); reason != "" {
		return refuse(reason)
	}
	data, err := io.ReadAll(io.LimitReader(a.Body, maxAPIBody+1))
	switch {
	case err != nil:
		return &BodyError{Op: r.op, Host: a.from.Host, Offset: int64(len(data)), Err: err}
	case len(data) > maxAPIBody:
		return refuse(fmt.Sprintf("more than %d bytes", maxAPIBody))
	}
	if err := json.Unmarshal(data, out); err != nil {
		return refuse("not the JSON expected: " + tidy(err.Error(), 200))
	}
	return nil
}

// oddContent gives the reason why a body can't be what was asked for, or "": a
// login page of a captive portal or proxy, or bytes that were compressed although
// identity was asked.
func oddContent(h http.Header) string {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return fmt.Sprintf("content encoding %.40q, want identity", enc)
	}
	kind := h.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(kind); err == nil && media == "text/html" {
		return fmt.Sprintf("content type %.60q: a web page (a login page of a proxy or portal?)", kind)
	}
	return ""
}

// identity asks for bytes as they are.
func identity() http.Header { return http.Header{"Accept-Encoding": {"identity"}} }
