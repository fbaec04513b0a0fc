package hub_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
)

// TestWhoami: every answer is one, tells the Hub's time, and costs one request.
func TestWhoami(t *testing.T) {
	skewed := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name, token string
		fault       hubtest.Fault
		status      int
		page        bool
	}{
		{name: "good token", token: secret, status: 200},
		{name: "wrong token", token: "hf_otherwrongtoken", status: 401},
		{name: "anonymous", status: 401},
		{name: "not now", token: secret, fault: hubtest.Fault{Do: hubtest.Status, Status: 503}, status: 503},
		{name: "rate limit", token: secret, fault: hubtest.Fault{Do: hubtest.Status, Status: 429}, status: 429},
		{name: "portal", token: secret, fault: hubtest.Fault{Do: hubtest.Login}, status: 200, page: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hubtest.New(hubtest.Options{Token: secret})
			tc.fault.Header = map[string]string{"Date": skewed.Format("Mon, 02 Jan 2006 15:04:05 GMT")}
			if tc.fault.Do == "" {
				tc.fault.Do = hubtest.Headers
			}
			s.Fail(tc.fault)
			c := newClient(t, hub.Options{Endpoint: s.Start(t), Token: func() (string, error) { return tc.token, nil }})
			got, err := c.Whoami(t.Context())
			if want := (hub.Greeting{Status: tc.status, Asked: tc.token != "", Date: skewed, Page: tc.page}); err != nil || got != want {
				t.Errorf("%+v, %v, want %+v", got, err, want)
			}
			if n := s.Stats().Calls[hubtest.Whoami]; n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestWhoamiFails(t *testing.T) {
	c := newClient(t, hub.Options{Endpoint: "http://127.0.0.1:1", Token: func() (string, error) { return secret, nil }})
	if _, err := c.Whoami(t.Context()); !errors.Is(err, hub.ErrUnreachable) || strings.Contains(err.Error(), secret) {
		t.Errorf("dead port: %v", err)
	}
	noToken := &hub.TokenError{Source: "/no/such/file", Err: errors.New("gone")}
	c = newClient(t, hub.Options{Endpoint: "http://127.0.0.1:1", Token: func() (string, error) { return "", noToken }})
	if _, err := c.Whoami(t.Context()); !errors.Is(err, noToken) {
		t.Errorf("no token: %v", err)
	}
}

func TestWhoamiIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{})
		m := s.Memory(t)
		s.Fail(hubtest.Fault{Do: hubtest.Silent})
		c := newClient(t, hub.Options{Endpoint: hubtest.MemoryHub, Transport: m.Transport(t)})
		why := errors.New("long enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, why)
		defer cancel()
		begun := time.Now()
		if _, err := c.Whoami(ctx); !errors.Is(err, why) || time.Since(begun) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}
