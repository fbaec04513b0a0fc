package hubtest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"p2pagent/pkg/pieces"
)

// Route is a kind of request, for Fault and Stats.
type Route string

// The routes.
const (
	Info    Route = "info"    // GET /api/models/R[/revision/X]
	Tree    Route = "tree"    // GET /api/models/R/tree/X
	Paths   Route = "paths"   // POST /api/models/R/paths-info/X
	Refs    Route = "refs"    // GET /api/models/R/refs
	Head    Route = "head"    // HEAD /R/resolve/X/FILE
	Get     Route = "get"     // GET /R/resolve/X/FILE
	Cache   Route = "cache"   // /api/resolve-cache/models/R/X/FILE: where small files are redirected to
	CDN     Route = "cdn"     // signed URLs
	Token   Route = "token"   // GET /api/models/R/xet-read-token/X
	CAS     Route = "cas"     // reconstructions, at the CDN's address
	Xorb    Route = "xorb"    // signed URLs of xorbs
	Whoami  Route = "whoami"  // GET /api/whoami-v2
	Unknown Route = "unknown" // everything else
)

// bytes tells whether the route is one of a file, or leads to one.
func (r Route) bytes() bool { return r == Head || r == Get || r == Cache || r == Token }

// call is a request that has been understood.
type call struct {
	route    Route
	repo     pieces.Repo
	revision string
	path     string
	prefix   string // the escaped URL up to and with the repository's name
	suffix   string // and after it
}

// ServeHTTP answers as the Hub. It reads routes by hand: http.ServeMux can't
// tell "/org/name/resolve/" from "/datasets/org/name/resolve/".
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	escaped, ok := strings.CutPrefix(req.URL.EscapedPath(), s.o.Prefix)
	if !ok {
		refuse(w, http.StatusNotFound, "", "not below "+s.o.Prefix)
		return
	}
	if strings.HasPrefix(escaped, "/-/") {
		s.serveControl(w, req, escaped)
		return
	}
	c := parse(req.Method, escaped)
	s.run(w, req, c, s.answer)
}

// answer is a route without faults and counting.
func (s *Server) answer(w http.ResponseWriter, req *http.Request, c call) {
	s.mu.Lock()
	r := s.repos[c.repo]
	s.mu.Unlock()
	if c.route == Unknown {
		refuse(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
		return
	}
	if c.route == Whoami {
		s.whoami(w, req)
		return
	}
	if !s.allowed(w, req, r, c) {
		return
	}
	if r.spec.RenamedTo != "" {
		s.renamed(w, req, r, c)
		return
	}
	s.mu.Lock()
	commit, ok := r.commitOf(c.revision)
	tree := r.commits[commit]
	s.mu.Unlock()
	if !ok && c.route != Refs {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+c.revision)
		return
	}
	s.dispatch(w, req, r, c, commit, tree)
}

func (s *Server) dispatch(w http.ResponseWriter, req *http.Request, r *repo, c call, commit string, tree map[string]*File) {
	switch c.route {
	case Info:
		s.info(w, r, commit, tree)
	case Tree:
		s.tree(w, req, r, c, tree)
	case Paths:
		s.paths(w, req, tree)
	case Refs:
		s.refs(w, r)
	case Token:
		s.xetToken(w, r, commit)
	default:
		s.file(w, req, r, c, commit, tree)
	}
}

// renamed answers as the Hub does for a repository with a new name: a relative
// redirect that is complete in its path.
func (s *Server) renamed(w http.ResponseWriter, req *http.Request, r *repo, c call) {
	to, err := pieces.ParseRepo(r.spec.RenamedTo)
	if err != nil {
		panic("hubtest: " + err.Error())
	}
	location := s.o.Prefix + c.prefix + to.Name + c.suffix
	if req.URL.RawQuery != "" {
		location += "?" + req.URL.RawQuery
	}
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

var apiWords = map[string]Route{"revision": Info, "tree": Tree, "paths-info": Paths, "refs": Refs, "xet-read-token": Token}

// parse understands a URL by its words; a repository's name has one segment or two.
func parse(method, escaped string) call {
	segments := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	switch {
	case escaped == "/api/whoami-v2":
		return call{route: Whoami}
	case len(segments) > 2 && segments[0] == "api" && segments[1] == "resolve-cache":
		return parseCache(segments[2:])
	case len(segments) > 2 && segments[0] == "api":
		return parseAPI(segments)
	}
	return parseFile(method, segments)
}

func parseAPI(segments []string) call {
	kind, ok := kindOf(segments[1])
	rest := segments[2:]
	for n := range 2 {
		n++
		if !ok || len(rest) < n || len(rest) > n && apiWords[rest[n]] == "" {
			continue
		}
		c := call{route: Info, revision: "main", prefix: "/api/" + segments[1] + "/", suffix: "/" + strings.Join(rest[n:], "/")}
		c.repo = pieces.Repo{Kind: kind, Name: strings.Join(rest[:n], "/")}
		if len(rest) == n {
			c.suffix = ""
			return c
		}
		c.route = apiWords[rest[n]]
		if c.route != Refs {
			c.revision, c.path = revisionAndPath(rest[n+1:])
		}
		return c
	}
	return call{route: Unknown}
}

func parseCache(segments []string) call {
	kind, ok := kindOf(segments[0])
	for n := range 2 {
		n += 2
		if ok && len(segments) > n+1 && pieces.IsCommit(segments[n]) {
			return call{route: Cache, repo: pieces.Repo{Kind: kind, Name: strings.Join(segments[1:n], "/")},
				revision: segments[n], path: unescape(strings.Join(segments[n+1:], "/"))}
		}
	}
	return call{route: Unknown}
}

func parseFile(method string, segments []string) call {
	i := slices.IndexFunc(segments, func(s string) bool { return s == "resolve" || s == "raw" })
	if i < 1 || i > 3 || len(segments) < i+3 {
		return call{route: Unknown}
	}
	c := call{route: Get, prefix: "/", suffix: "/" + strings.Join(segments[i:], "/")}
	if method == http.MethodHead {
		c.route = Head
	}
	name := segments[:i]
	if kind, ok := kindOf(segments[0]); ok && kind != pieces.Model {
		c.repo.Kind, name, c.prefix = kind, segments[1:i], "/"+segments[0]+"/"
	}
	c.repo.Name = strings.Join(name, "/")
	c.revision, c.path = revisionAndPath(segments[i+1:])
	return c
}

// revisionAndPath also reads a ref that was not escaped, as JavaScript sends it.
func revisionAndPath(segments []string) (revision, path string) {
	n := 1
	if len(segments) > 2 && segments[0] == "refs" {
		n = 3
	}
	if len(segments) < n {
		return "", ""
	}
	return unescape(strings.Join(segments[:n], "/")), unescape(strings.Join(segments[n:], "/"))
}

func kindOf(plural string) (pieces.Kind, bool) {
	for _, k := range []pieces.Kind{pieces.Model, pieces.Dataset, pieces.Space} {
		if k.Plural() == plural {
			return k, true
		}
	}
	return 0, false
}

func unescape(s string) string {
	u, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return u
}

func escapePath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	}
	return strings.Join(segments, "/")
}
