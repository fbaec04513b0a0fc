package hub

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
)

// S27: proxy variables in the environment, without an exception for loopback.
//
// The proxy is asked for the world and never for loopback.
func TestS27Proxies(t *testing.T) {
	leaktest.Check(t)
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.String()+r.Host)
		fmt.Fprintf(w, `{"sha":%q}`, someCommit)
	}))
	defer proxy.Close()
	direct := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"sha":%q}`, someCommit)
	}))
	defer direct.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	t.Setenv("NO_PROXY", "")
	ref := pieces.Ref{Repo: pieces.Repo{Name: "org/model"}, Revision: "main"}
	for _, tc := range []struct {
		endpoint string
		proxied  int
	}{
		{direct.URL, 0},
		{strings.Replace(direct.URL, "127.0.0.1", "localhost", 1), 0},
		{"http://hub.invalid", 1},
	} {
		asked = nil
		c, err := New(Options{Endpoint: tc.endpoint, Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.Resolve(t.Context(), ref); err != nil || len(asked) != tc.proxied {
			t.Errorf("%s: %v, the proxy was asked %q", tc.endpoint, err, asked)
		}
		c.CloseIdle()
	}
	c, _ := New(Options{Endpoint: "https://hub.invalid", Retries: -1})
	asked = nil
	if _, _, err := c.Resolve(t.Context(), ref); err == nil || len(asked) != 1 || !strings.HasPrefix(asked[0], "CONNECT ") {
		t.Errorf("https goes through a tunnel: %v, %q", err, asked)
	}
}

// TestDialGuard: a name that resolves to a private address is refused when a
// redirect gave it, allowed when it is the endpoint, and not judged for a proxy.
func TestDialGuard(t *testing.T) {
	public, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	away, _ := url.Parse("https://localhost.example/x")
	redirected := public.purpose(t.Context(), away)
	for address, ok := range map[string]bool{"10.0.0.1:443": false, "[fd00::1]:443": false, "169.254.169.254:80": false, "127.0.0.1:443": false, "[::1]:443": false} {
		err := public.control(redirected, "tcp", address, nopConn{})
		var refused *addrError
		if (err == nil) != ok || err != nil && !errors.As(err, &refused) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := public.control(redirected, "tcp", "8.8.8.8:443", nopConn{}); err != nil {
		t.Error(err)
	}
	public.proxied = func(*url.URL) bool { return true }
	if err := public.control(public.purpose(t.Context(), away), "tcp", "10.0.0.1:3128", nopConn{}); err != nil {
		t.Errorf("a proxy: %v", err)
	}
	inside, _ := New(Options{Endpoint: "https://hub.internal"})
	if err := inside.control(inside.purpose(t.Context(), away), "tcp", "10.0.0.2:443", nopConn{}); err == nil {
		t.Error("the endpoint has not been seen at a private address yet")
	}
	if err := inside.control(inside.purpose(t.Context(), inside.endpoint), "tcp", "10.0.0.1:443", nopConn{}); err != nil {
		t.Error(err)
	}
	if err := inside.control(inside.purpose(t.Context(), away), "tcp", "10.0.0.2:443", nopConn{}); err != nil {
		t.Errorf("a private hub may redirect within its network: %v", err)
	}
	if err := inside.control(inside.purpose(t.Context(), away), "tcp", "169.254.169.254:80", nopConn{}); err == nil {
		t.Error("but not to a link-local address")
	}
}

// nopConn is a socket without options.
type nopConn struct{}

func (nopConn) Control(func(uintptr)) error    { return nil }
func (nopConn) Read(func(uintptr) bool) error  { return nil }
func (nopConn) Write(func(uintptr) bool) error { return nil }

// TestDialGuardIsWired: the same through a real request, to see that the context
// reaches the dialer.
func TestDialGuardIsWired(t *testing.T) {
	hidden := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.Error("the hidden server was asked") }))
	defer hidden.Close()
	c, err := New(Options{Endpoint: "http://hub.example", Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	port := hidden.Listener.Addr().(*net.TCPAddr).Port
	// Only the name localhost resolves everywhere without a network; target would
	// refuse it, so the request is made as if a redirect had been followed.
	u, _ := url.Parse(fmt.Sprintf("http://localhost:%d/", port))
	_, err = c.send(t.Context(), request{op: "test", method: http.MethodGet, url: u})
	var refused *RedirectError
	if !errors.As(err, &refused) || !Permanent(err) || !strings.Contains(err.Error(), "private address") {
		t.Errorf("got %v", err)
	}
}

func TestCertificateErrorsArePermanent(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = nil
	c, err := New(Options{Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Resolve(t.Context(), pieces.Ref{Repo: pieces.Repo{Name: "org/model"}, Revision: "main"})
	if !errors.Is(err, errCertificate) || !Permanent(err) {
		t.Errorf("got %v", err)
	}
}

func TestLocationsAreBounded(t *testing.T) {
	var ls locations
	for i := range 2 * maxLocations {
		ls.entry(fileKey{path: fmt.Sprint(i)})
	}
	if len(ls.of) > maxLocations {
		t.Errorf("%d locations", len(ls.of))
	}
}
