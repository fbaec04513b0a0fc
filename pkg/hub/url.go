package hub

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"p2pagent/pkg/pieces"
)

// DefaultEndpoint is the Hub itself.
const DefaultEndpoint = "https://huggingface.co"

// parseEndpoint accepts an http or https URL, with a path prefix if need be (a
// mirror). Credentials in it would end up in logs; they are refused.
func parseEndpoint(s string) (*url.URL, error) {
	if s == "" {
		s = DefaultEndpoint
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, errors.New("endpoint: not a URL") // the text may hold a secret
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("endpoint %q: want http://host or https://host", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("endpoint %s://%s: user and password in the URL are not supported, set HF_TOKEN", u.Scheme, u.Host)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("endpoint %s://%s%s: a query or fragment has no place in it", u.Scheme, u.Host, u.Path)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// at returns the endpoint with an escaped path and a query behind it.
func (c *Client) at(escaped, query string) *url.URL {
	u := *c.endpoint
	u.RawPath = c.endpoint.EscapedPath() + escaped
	u.Path, _ = url.PathUnescape(u.RawPath) // escaped by us: cannot fail
	u.RawQuery = query
	return &u
}

func revisionURL(repo pieces.Repo, revision string) string {
	return "/api/" + repo.Kind.Plural() + "/" + repo.Name + "/revision/" + escape(revision)
}

func refsURL(repo pieces.Repo) string {
	return "/api/" + repo.Kind.Plural() + "/" + repo.Name + "/refs"
}

func treeURL(repo pieces.Repo, commit pieces.Commit) string {
	return "/api/" + repo.Kind.Plural() + "/" + repo.Name + "/tree/" + string(commit)
}

func xetTokenURL(repo pieces.Repo, commit pieces.Commit) string {
	return "/api/" + repo.Kind.Plural() + "/" + repo.Name + "/xet-read-token/" + string(commit)
}

func fileURL(repo pieces.Repo, commit pieces.Commit, path string) string {
	return "/" + repo.Kind.URLPrefix() + repo.Name + "/resolve/" + string(commit) + "/" + escapePath(path)
}

// escapePath escapes every segment and keeps the slashes.
func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = escape(s)
	}
	return strings.Join(segments, "/")
}

// escape leaves only letters, digits and "-._~" bare, as huggingface_hub does:
// url.PathEscape keeps '+', '&', '=', '@', ':' and '$' too, which some servers
// and signatures read differently.
func escape(s string) string {
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// sameOrigin compares scheme, host and port: what the token is bound to.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}
