package hub

import (
	"net/netip"
	"net/url"
	"testing"

	"p2pagent/pkg/pieces"
)

const someCommit = "0123456789abcdef0123456789abcdef01234567"

func TestURLs(t *testing.T) {
	model := pieces.Repo{Name: "gpt2"}
	dataset := pieces.Repo{Kind: pieces.Dataset, Name: "org/data"}
	space := pieces.Repo{Kind: pieces.Space, Name: "org/app"}
	for _, tc := range []struct{ endpoint, path, want string }{
		{"", revisionURL(model, "main"), "https://huggingface.co/api/models/gpt2/revision/main"},
		{"http://h:1/", revisionURL(dataset, "refs/pr/1"), "http://h:1/api/datasets/org/data/revision/refs%2Fpr%2F1"},
		{"http://h/hf/", revisionURL(model, "v1+x@y"), "http://h/hf/api/models/gpt2/revision/v1%2Bx%40y"},
		{"http://h/a%2Fb", treeURL(space, someCommit), "http://h/a%2Fb/api/spaces/org/app/tree/" + someCommit},
		{"http://h", fileURL(model, someCommit, "a/tok+x #1?.json"), "http://h/gpt2/resolve/" + someCommit + "/a/tok%2Bx%20%231%3F.json"},
		{"http://h", fileURL(dataset, someCommit, "é&=:@$,;~-._"), "http://h/datasets/org/data/resolve/" + someCommit + "/%C3%A9%26%3D%3A%40%24%2C%3B~-._"},
		{"http://h", fileURL(space, someCommit, "100%/%2F"), "http://h/spaces/org/app/resolve/" + someCommit + "/100%25/%252F"},
	} {
		c, err := New(Options{Endpoint: tc.endpoint})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.at(tc.path, "").String(); got != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for _, bad := range []string{"huggingface.co", "ftp://h", "http://", "http://user:secret@h", "http://h?x=1", "http://h#f", "http://h\x7f", ":"} {
		if _, err := New(Options{Endpoint: bad}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"https://h/a", "https://h:443/b?q", true},
		{"http://h", "http://H:80", true},
		{"https://h", "http://h", false},
		{"http://h:1", "http://h:2", false},
		{"https://h", "https://cdn.h", false},
		{"http://127.0.0.1:1", "http://127.0.0.2:1", false},
	} {
		a, _ := url.Parse(tc.a)
		b, _ := url.Parse(tc.b)
		if sameOrigin(a, b) != tc.want || sameOrigin(b, a) != tc.want {
			t.Errorf("%s and %s: want %v", tc.a, tc.b, tc.want)
		}
	}
}

func TestScopes(t *testing.T) {
	for addr, want := range map[string]scope{
		"8.8.8.8": scopePublic, "2600::1": scopePublic,
		"127.0.0.1": scopeLocal, "127.9.9.9": scopeLocal, "::1": scopeLocal, "::ffff:127.0.0.1": scopeLocal,
		"10.1.2.3": scopeLocal, "172.16.0.1": scopeLocal, "192.168.0.1": scopeLocal, "fd00::1": scopeLocal,
		"100.64.0.1": scopeLocal, "0.0.0.0": scopeLocal, "::": scopeLocal,
		"169.254.169.254": scopeLink, "fe80::1": scopeLink, "::ffff:169.254.169.254": scopeLink, "224.0.0.1": scopeLink,
	} {
		if got := scopeOf(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %d, want %d", addr, got, want)
		}
	}
	if scopeOf(netip.Addr{}) != scopePublic || scopeOf(hostAddr("example.com")) != scopePublic || scopeOf(hostAddr("localhost")) != scopeLocal {
		t.Error("names are judged when they are dialled, localhost is loopback")
	}
}

// TestRedirectTargets: what an endpoint may redirect to, by its own place.
func TestRedirectTargets(t *testing.T) {
	for _, tc := range []struct {
		endpoint, location string
		ok                 bool
	}{
		{"https://huggingface.co", "https://cdn.hf.co/x?Signature=s", true},
		{"https://huggingface.co", "/relative", true},
		{"https://huggingface.co", "//cdn.hf.co/x", true},
		{"https://huggingface.co", "http://cdn.hf.co/x", false}, // leaves https
		{"https://huggingface.co", "https://127.0.0.1/x", false},
		{"https://huggingface.co", "https://localhost/x", false},
		{"https://huggingface.co", "https://[::1]/x", false},
		{"https://huggingface.co", "https://10.0.0.1/x", false},
		{"https://huggingface.co", "https://169.254.169.254/latest/meta-data", false},
		{"https://huggingface.co", "https://[::ffff:169.254.169.254]/latest", false},
		{"https://huggingface.co", "https://user:pass@cdn.hf.co/x", false},
		{"https://huggingface.co", "file:///etc/passwd", false},
		{"https://huggingface.co", "https:///x", false},
		{"http://127.0.0.1:80", "http://127.0.0.2/x", true},
		{"http://127.0.0.1:80", "http://10.0.0.1/x", true},
		{"http://127.0.0.1:80", "http://169.254.169.254/x", false},
		{"http://10.0.0.1", "http://10.0.0.2/x", true},
		{"http://169.254.1.1", "http://169.254.1.2/x", true},
		{"http://hub.internal", "http://10.0.0.2/x", false}, // until the endpoint was seen at a private address
	} {
		c, err := New(Options{Endpoint: tc.endpoint})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.target(request{op: "test", url: c.at("/a", "")}, tc.location)
		if (err == nil) != tc.ok {
			t.Errorf("%s to %s: %v", tc.endpoint, tc.location, err)
		}
	}
}
