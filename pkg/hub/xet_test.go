package hub_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
)

// The listing has the names of the store, and the outline of hubtest the same.
func TestXetNames(t *testing.T) {
	for _, redacted := range []bool{false, true} {
		s := hubtest.New(hubtest.Options{Xet: &hubtest.Xet{Redacted: redacted}})
		commit := s.AddRepo(model())
		c := newClient(t, hub.Options{Endpoint: s.Start(t)})
		o, err := c.List(t.Context(), ref("org/model").Repo, commit)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range o.Files {
			if f.Xet.IsZero() != (redacted || !f.LFS()) {
				t.Errorf("redacted %v: %s has name %q", redacted, f.Path, f.Xet)
			}
		}
	}
}

// A token's life is counted by the Hub's clock, whatever ours says.
func TestXetToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{Xet: &hubtest.Xet{}, Token: secret})
		spec := model()
		spec.Private = true
		commit := s.AddRepo(spec)
		c := newClient(t, hub.Options{Endpoint: hubtest.MemoryHub, Transport: s.Memory(t).Transport(t), Token: withToken, Retries: -1})
		got, err := c.XetToken(t.Context(), ref("org/model").Repo, commit)
		if err != nil || got.Token == "" || got.URL != hubtest.MemoryCDN || got.Life != 15*time.Minute {
			t.Errorf("%v, %v", got.Life, err)
		}
		s.Fail(hubtest.Fault{Do: hubtest.Headers, Route: hubtest.Token, Header: map[string]string{"Date": time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)}})
		if got, err := c.XetToken(t.Context(), ref("org/model").Repo, commit); err != nil || got.Life != 14*time.Minute {
			t.Errorf("a Hub that is a minute ahead: %v, %v", got.Life, err)
		}
		s.Heal()
		s.Fail(hubtest.Fault{Do: hubtest.Headers, Route: hubtest.Token, Header: map[string]string{"Date": time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}})
		var odd *hub.ProtocolError
		if _, err := c.XetToken(t.Context(), ref("org/model").Repo, commit); !errors.As(err, &odd) || strings.Contains(err.Error(), "xet.") {
			t.Errorf("a token that has expired: %v", err)
		}
		s.Heal()
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Token, Status: 403})
		if _, err := c.XetToken(t.Context(), ref("org/model").Repo, commit); !errors.Is(err, hub.ErrUnauthorized) {
			t.Errorf("refused: %v", err)
		}
	})
}

// Hosts that the Hub names get no token of ours, and are no way into this network.
func TestForeign(t *testing.T) {
	s := hubtest.New(hubtest.Options{Token: secret})
	local := newClient(t, hub.Options{Endpoint: s.Start(t), Token: withToken})
	get := func(c *hub.Client, url string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Foreign().RoundTrip(req)
	}
	resp, err := get(local, local.Endpoint()+"/")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.Request.Header.Get("Authorization") != "" {
		t.Error("the token went along")
	}
	if n := local.Counts().Requests[resp.StatusCode/100]; n != 1 {
		t.Errorf("%d requests counted", n)
	}
	public := newClient(t, hub.Options{Endpoint: "https://hub.example"})
	for _, url := range []string{"http://127.0.0.1:1/", "http://localhost:1/", "http://169.254.169.254/", "http://10.0.0.1/"} {
		var refused *hub.RedirectError
		if _, err := get(public, url); !errors.As(err, &refused) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
