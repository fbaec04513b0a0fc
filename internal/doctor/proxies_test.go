package doctor

import (
	"strings"
	"testing"
)

// G26: proxy variables of the client.
//
// doctor finds them and prints the fix; the variables of `p2pagent env` have NO_PROXY.
func TestG26ProxyVariables(t *testing.T) {
	const proxy = "http://user:secret@proxy.example:3128"
	for _, c := range []struct {
		name    string
		vars    map[string]string
		verdict Verdict
		fix     string // what NO_PROXY should be
	}{
		{"none", nil, OK, "127.0.0.1,localhost"},
		{"HTTP_PROXY alone", map[string]string{"HTTP_PROXY": proxy}, Warn, "127.0.0.1,localhost"},
		{"and clients use the gateway", map[string]string{"HTTP_PROXY": proxy, "HF_ENDPOINT": "http://127.0.0.1:8090"}, Fail, "127.0.0.1,localhost"},
		{"and it goes by its name", map[string]string{"HTTP_PROXY": proxy, "HF_ENDPOINT": "http://localhost:8090/"}, Fail, "127.0.0.1,localhost"},
		{"ALL_PROXY", map[string]string{"ALL_PROXY": "socks5://proxy.example:1080"}, Warn, "127.0.0.1,localhost"},
		{"small letters", map[string]string{"http_proxy": "proxy.example:3128"}, Warn, "127.0.0.1,localhost"},
		{"the gateway is not https", map[string]string{"HTTPS_PROXY": proxy}, OK, "127.0.0.1,localhost"},
		{"small letters set to nothing", map[string]string{"HTTP_PROXY": proxy, "http_proxy": ""}, OK, "127.0.0.1,localhost"},
		{"loopback", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "internal, 127.0.0.1"}, OK, "internal,127.0.0.1,localhost"},
		{"others", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": ".cluster.local,10.0.0.0/8"}, Warn, ".cluster.local,10.0.0.0/8,127.0.0.1,localhost"},
		{"httpx knows no networks", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "127.0.0.0/8"}, Warn, "127.0.0.0/8,127.0.0.1,localhost"},
		{"requests knows no ports", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "127.0.0.1:8090"}, Warn, "127.0.0.1:8090,127.0.0.1,localhost"},
		{"the name is not the address", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "localhost"}, Warn, "localhost,127.0.0.1"},
		{"everything", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "*"}, OK, "*"},
		{"the small one hides the other", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "127.0.0.1", "no_proxy": "a"}, Warn, "127.0.0.1,a,localhost"},
		{"the small one is enough", map[string]string{"HTTP_PROXY": proxy, "NO_PROXY": "a", "no_proxy": "127.0.0.1"}, OK, "a,127.0.0.1,localhost"},
	} {
		e := healthy(c.vars)
		r := find(t, e, "proxy")
		if r.Verdict != c.verdict {
			t.Errorf("%s: %+v, want %s", c.name, r, c.verdict)
		}
		if got := NoProxy(e.Lookup, "127.0.0.1"); got != c.fix {
			t.Errorf("%s: NO_PROXY should be %q, got %q", c.name, c.fix, got)
		}
		if r.Verdict != OK && !strings.Contains(r.Do, "NO_PROXY='"+c.fix+"'") {
			t.Errorf("%s: the fix is not in %q", c.name, r.Do)
		}
		if strings.Contains(r.Seen+r.Do, "secret") || r.Verdict != OK && !strings.Contains(r.Seen, "proxy.example") {
			t.Errorf("%s: %q should name the proxy and not its password", c.name, r.Seen)
		}
		fixed := healthy(c.vars)
		fixed.Lookup = func(name string) (string, bool) {
			if strings.EqualFold(name, "NO_PROXY") {
				return c.fix, true
			}
			return e.Lookup(name)
		}
		if r := find(t, fixed, "proxy"); r.Verdict != OK {
			t.Errorf("%s: with the fix it is still %+v", c.name, r)
		}
	}
	e := healthy(map[string]string{"HTTP_PROXY": proxy})
	e.Gateway = ""
	if r := find(t, e, "proxy"); r.Verdict != Skipped {
		t.Errorf("without a gateway: %+v", r)
	}
}
