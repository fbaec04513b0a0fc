package gateway

import (
	"net/url"
	"slices"
	"strings"

	"p2pagent/internal/minicas"
	"p2pagent/pkg/pieces"
)

// route is a kind of request.
type route string

const (
	routeInfo    route = "info"     // GET  /api/models/R[/revision/X]
	routeTree    route = "tree"     // GET  /api/models/R/tree/X[/PATH]
	routePaths   route = "paths"    // POST /api/models/R/paths-info/X
	routeRefs    route = "refs"     // GET  /api/models/R/refs
	routeAuth    route = "auth"     // GET  /api/models/R/auth-check
	routeResolve route = "resolve"  // GET  /R/resolve/X/PATH, /api/resolve-cache/models/R/X/PATH
	routeRaw     route = "raw"      // GET  /R/raw/X/PATH
	routeXet     route = "xet"      // GET  /api/models/R/xet-read-token/X
	routeRecipe1 route = "recipe1"  // GET  /v1/reconstructions/NAME
	routeRecipe2 route = "recipe2"  // GET  /v2/reconstructions/NAME
	routeXorb    route = "xorb"     // GET  /xorbs/NAME
	routeWhoAmI  route = "whoami"   // GET  /api/whoami-v2
	routeNone    route = "no route" // everything else
)

// call is a request that has been understood.
type call struct {
	route    route
	repo     pieces.Repo
	revision string
	path     string
}

func (c call) ref() pieces.Ref { return pieces.Ref{Repo: c.repo, Revision: c.revision} }

// word is what follows a repository's name in a URL, and what follows the word.
type word struct {
	route    route
	revision bool // a revision does
	path     int  // how much of a path follows
}

const (
	noPath = iota
	onePath
	anyPath // also none
)

var apiWords = map[string]word{
	"revision":       {routeInfo, true, noPath},
	"tree":           {routeTree, true, anyPath},
	"paths-info":     {routePaths, true, noPath},
	"refs":           {routeRefs, false, noPath},
	"auth-check":     {routeAuth, false, noPath},
	"xet-read-token": {routeXet, true, noPath},
}

var fileWords = map[string]word{"resolve": {routeResolve, true, onePath}, "raw": {routeRaw, true, onePath}}

// parse understands an escaped URL path. A repository's name has one segment or
// two, and either may be a word of the routes; so the longest name is tried first
// that leaves a whole route behind it. http.ServeMux can't do that.
func parse(escaped string) call {
	segments := strings.Split(strings.TrimPrefix(escaped, "/"), "/")
	switch {
	case segments[0] == "api" && len(segments) > 1 && segments[1] == "resolve-cache":
		return parseCache(segments[2:])
	case segments[0] == "api":
		return parseAPI(segments[1:])
	}
	if c, ok := parseStore(segments); ok {
		return c
	}
	if kind, ok := kindOf(segments[0]); ok && kind != pieces.Model {
		if c, ok := parseNamed(kind, segments[1:], fileWords); ok {
			return c
		}
	}
	if c, ok := parseNamed(pieces.Model, segments, fileWords); ok {
		return c
	}
	return call{route: routeNone}
}

func parseAPI(segments []string) call {
	if len(segments) == 0 {
		return call{route: routeNone}
	}
	if segments[0] == "whoami-v2" && len(segments) == 1 {
		return call{route: routeWhoAmI}
	}
	kind, ok := kindOf(segments[0])
	if !ok {
		return call{route: routeNone}
	}
	if c, ok := parseNamed(kind, segments[1:], apiWords); ok {
		return c
	}
	if repo, ok := repoOf(kind, segments[1:]); ok {
		return call{route: routeInfo, repo: repo, revision: pieces.DefaultRevision}
	}
	return call{route: routeNone}
}

// storeWords come before the name of a file or a xorb in the content-addressed store.
var storeWords = map[string]route{"v1/reconstructions": routeRecipe1, "v2/reconstructions": routeRecipe2, "xorbs": routeXorb}

// parseStore reads WORDS/NAME. No word of a repository's routes looks like such a
// name.
func parseStore(segments []string) (call, bool) {
	last := len(segments) - 1
	r, ok := storeWords[strings.Join(segments[:last], "/")]
	return call{route: r, path: segments[last]}, ok && minicas.IsName(segments[last])
}

// parseCache reads what the Hub redirects small files to.
func parseCache(segments []string) call {
	if len(segments) == 0 {
		return call{route: routeNone}
	}
	kind, ok := kindOf(segments[0])
	for n := 3; ok && n > 1; n-- {
		if len(segments) < n+2 || !pieces.IsCommit(segments[n]) {
			continue
		}
		if repo, ok := repoOf(kind, segments[1:n]); ok {
			return call{route: routeResolve, repo: repo, revision: segments[n], path: unescape(strings.Join(segments[n+1:], "/"))}
		}
	}
	return call{route: routeNone}
}

// parseNamed reads NAME/WORD/….
func parseNamed(kind pieces.Kind, segments []string, words map[string]word) (call, bool) {
	for n := 2; n > 0; n-- {
		if len(segments) <= n {
			continue
		}
		w, known := words[segments[n]]
		repo, named := repoOf(kind, segments[:n])
		if !known || !named {
			continue
		}
		if c, ok := w.read(segments[n+1:]); ok {
			c.repo = repo
			return c, true
		}
	}
	return call{}, false
}

// read reads what follows the word.
func (w word) read(rest []string) (c call, ok bool) {
	c.route, c.revision = w.route, pieces.DefaultRevision
	if w.revision {
		if c.revision, rest, ok = cutRevision(rest); !ok {
			return c, false
		}
	}
	c.path = strings.TrimSuffix(unescape(strings.Join(rest, "/")), "/")
	return c, w.path == anyPath || (c.path != "") == (w.path == onePath)
}

// cutRevision also reads a ref that was not escaped, as JavaScript sends it.
func cutRevision(segments []string) (revision string, rest []string, ok bool) {
	n := 1
	if len(segments) > 2 && segments[0] == "refs" {
		n = 3
	}
	if len(segments) < n {
		return "", nil, false
	}
	revision = unescape(strings.Join(segments[:n], "/"))
	if revision == "HEAD" {
		revision = pieces.DefaultRevision
	}
	return revision, segments[n:], revision != ""
}

func kindOf(plural string) (pieces.Kind, bool) {
	for _, k := range []pieces.Kind{pieces.Model, pieces.Dataset, pieces.Space} {
		if k.Plural() == plural {
			return k, true
		}
	}
	return 0, false
}

// repoOf refuses names that the Hub would not give.
func repoOf(kind pieces.Kind, segments []string) (pieces.Repo, bool) {
	if len(segments) == 0 || len(segments) > 2 || slices.Contains(segments, "") {
		return pieces.Repo{}, false
	}
	repo, err := pieces.ParseRepo(kind.Plural() + "/" + unescape(strings.Join(segments, "/")))
	return repo, err == nil
}

// unescape leaves what is badly escaped as it is: no file has that name.
func unescape(s string) string {
	u, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return u
}
