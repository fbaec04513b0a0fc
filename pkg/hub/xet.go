package hub

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"p2pagent/pkg/pieces"
)

// XetToken is the right to read the files of one commit from the Hub's
// content-addressed store.
type XetToken struct {
	Token string
	URL   string        // of the store that takes it
	Life  time.Duration // by the Hub's clock
}

// XetToken asks for a token. It is one API call; the caller keeps the token for
// its life, for all files of the commit.
func (c *Client) XetToken(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (XetToken, error) {
	r := request{op: fmt.Sprintf("ask for a xet token of %s at %s", repo, commit), bucket: BucketAPI, method: http.MethodGet,
		header: identity(), url: c.at(xetTokenURL(repo, commit), ""), missing: ErrRevisionNotFound}
	var said struct {
		Token string `json:"accessToken"`
		URL   string `json:"casUrl"`
		Exp   int64  `json:"exp"`
	}
	header, err := c.getJSON(ctx, r, &said)
	if err != nil {
		return XetToken{}, err
	}
	now, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		now = time.Now() // a server without a clock: ours has to do
	}
	life := time.Unix(said.Exp, 0).Sub(now)
	if _, err := checkToken(said.Token, "the Hub"); err != nil || said.Token == "" || said.URL == "" || life <= 0 {
		return XetToken{}, &ProtocolError{Op: r.op, Host: c.endpoint.Host, Reason: fmt.Sprintf("no token of use: %d characters for %v", len(said.Token), life)}
	}
	return XetToken{Token: said.Token, URL: said.URL, Life: life}, nil
}

// Foreign returns a transport for hosts that the Hub names: bounded and guarded as
// the client's own requests to them are, without its token, and without redirects.
func (c *Client) Foreign() http.RoundTripper { return foreign{c} }

type foreign struct{ c *Client }

// RoundTrip implements http.RoundTripper.
func (f foreign) RoundTrip(r *http.Request) (*http.Response, error) {
	if !sameOrigin(r.URL, f.c.endpoint) {
		if reason := f.c.refused(hostAddr(r.URL.Hostname())); reason != "" {
			return nil, &RedirectError{Op: "connect", Target: origin(r.URL), Reason: reason}
		}
	}
	resp, err := f.c.transport.RoundTrip(r.WithContext(f.c.purpose(r.Context(), r.URL)))
	f.c.count.answered(resp)
	return resp, err
}
