package hub

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// Greeting is the answer to Whoami, whatever its status: that there is one shows
// that the endpoint can be reached.
type Greeting struct {
	Status int       // 200: the token is good; 401: it is not, or none was sent
	Asked  bool      // a token was sent
	Date   time.Time // the endpoint's clock; zero when it does not tell
	Page   bool      // a web page, which the Hub never sends here
}

// Whoami asks once who the token belongs to: one request, no second try, no
// redirect followed. The error says why there was no answer; a token that can't
// be read is a *TokenError.
func (c *Client) Whoami(ctx context.Context) (Greeting, error) {
	a, err := c.send(ctx, request{op: "whoami", bucket: BucketAPI, method: http.MethodGet, url: c.at("/api/whoami-v2", "")})
	if err != nil {
		return Greeting{}, err
	}
	defer a.Body.Close()
	date, _ := http.ParseTime(a.Header.Get("Date")) // none is none
	return Greeting{
		Status: a.StatusCode, Asked: a.asked, Date: date,
		Page: strings.HasPrefix(a.Header.Get("Content-Type"), "text/html"),
	}, nil
}
