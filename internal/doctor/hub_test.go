package doctor

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestStages: however a request ends, it is known how far it came, with a real
// transport and real sockets.
func TestStages(t *testing.T) {
	abort := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	plain, trusted := httptest.NewServer(abort), httptest.NewTLSServer(abort)
	defer plain.Close()
	defer trusted.Close()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not there", http.StatusForbidden) }))
	defer proxy.Close()
	mute, accepted := silent(t)
	for _, c := range []struct {
		name, endpoint, proxy string
		verdict               string
	}{
		{"no such name", "http://hub.invalid", "", "DNS: "},
		{"dead port", "http://127.0.0.1:1", "", "TCP: "},
		{"dead proxy", "https://hub.invalid", "http://127.0.0.1:1", "TCP: "},
		{"proxy that refuses", "https://hub.invalid", proxy.URL, "proxy: "},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), "", "TLS: "},
		{"a certificate of nobody", trusted.URL, "", "TLS: "},
		{"TLS never answers", "https://" + mute, "", "TLS: "},
		{"HTTP breaks", plain.URL, "", "HTTP: "},
		{"HTTP never answers", "http://" + mute, "", "HTTP: "},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { // what is silent ends the patience of who asks
			select {
			case <-accepted:
				cancel(errLate)
			case <-ctx.Done():
			}
		}()
		e := healthy(nil)
		e.Endpoint = c.endpoint
		e.Hub = func(ctx context.Context) (Answer, error) { return Answer{}, ask(ctx, c.endpoint, c.proxy) }
		r := checkHub(ctx, e)[0]
		cancel(nil)
		if r.Verdict != Fail || !strings.HasPrefix(r.Seen, c.verdict) || r.Do == "" {
			t.Errorf("%s: %+v", c.name, r)
		}
		if want := strings.TrimPrefix(c.proxy, "http://"); c.proxy != "" && !strings.Contains(r.Seen, "(through the proxy "+want+")") {
			t.Errorf("%s: no word of the proxy in %q", c.name, r.Seen)
		}
	}
}

// silent accepts connections, says so, and never answers.
func silent(t *testing.T) (addr string, accepted <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	heard := make(chan struct{})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			go func() {
				conn.Read(make([]byte, 1)) // the client has begun to talk
				heard <- struct{}{}
			}()
		}
	}()
	return l.Addr().String(), heard
}

// ask sends one request; names resolve to nothing.
func ask(ctx context.Context, endpoint, proxy string) error {
	offline := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no name server") }}
	transport := &http.Transport{DialContext: (&net.Dialer{Resolver: offline}).DialContext}
	defer transport.CloseIdleConnections()
	if proxy != "" {
		u, err := url.Parse(proxy)
		if err != nil {
			return err
		}
		transport.Proxy = http.ProxyURL(u)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		return errors.New("it answered " + resp.Status)
	}
	return err
}
