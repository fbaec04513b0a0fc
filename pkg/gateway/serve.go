package gateway

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := parse(r.URL.EscapedPath())
	g.watched(w, r, c, func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, c) })
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, c call) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := g.checkOrigin(r); err != nil {
		refuse(w, err)
		return
	}
	if err := checkMethod(c.route, r.Method); err != nil {
		refuse(w, err)
		return
	}
	if g.mint == nil && c.route.xet() {
		c.route = routeNone
	}
	switch c.route {
	case routeNone:
		refuse(w, &Refusal{Code: RouteNotFound, Message: "this gateway does not answer " + r.URL.EscapedPath()})
	case routeWhoAmI:
		refuse(w, &Refusal{Code: Unauthorized, Message: "this gateway knows nobody by name"})
	case routeRefs:
		g.refs(w, r, c)
	case routeRecipe1, routeRecipe2:
		g.recipe(w, r, c)
	case routeXorb:
		g.xorb(w, r, c)
	default:
		g.commit(w, r, c)
	}
}

// checkOrigin refuses what a web page in a browser on this node could send: by a
// name that was made to mean this address, or from another site. Programs call
// the gateway by an IP address, localhost, or the name that it was given.
func (g *Gateway) checkOrigin(r *http.Request) error {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = strings.Trim(r.Host, "[]")
	}
	_, err = netip.ParseAddr(host)
	named := strings.EqualFold(host, "localhost") || host != "" && strings.EqualFold(host, g.o.Host)
	site := r.Header.Get("Sec-Fetch-Site")
	if err != nil && !named || site == "cross-site" || site == "same-site" {
		return &Refusal{Code: Forbidden, Message: "this gateway is for programs on this node: call it by its address"}
	}
	return nil
}

func checkMethod(route route, method string) error {
	want := method == http.MethodGet || method == http.MethodHead
	if route == routePaths {
		want = method == http.MethodPost
	}
	if !want && route != routeNone {
		return &Refusal{Code: RouteNotFound, Message: "this gateway only reads"}
	}
	return nil
}

// commit answers what is about one commit, once the caller may know it.
func (g *Gateway) commit(w http.ResponseWriter, r *http.Request, c call) {
	began := time.Now()
	s, err := g.open(r, c)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("X-Repo-Commit", string(s.Outline().Commit))
	switch c.route {
	case routeInfo:
		info(w, r, s.Outline())
	case routeTree:
		g.tree(w, r, s.Outline(), c.path)
	case routePaths:
		g.paths(w, r, s)
	case routeXet:
		g.xetToken(w, r, s)
	case routeAuth:
		writeJSON(w, http.StatusOK, map[string]string{})
	default:
		g.file(w, r, c, s, began)
	}
}

// open looks the commit up and checks the caller's right to it.
func (g *Gateway) open(r *http.Request, c call) (Snapshot, error) {
	if err := pieces.CheckRevision(c.revision); err != nil {
		return nil, &Refusal{Code: RevisionNotFound, Message: "Invalid rev id: " + c.revision}
	}
	reading := c.route == routeResolve || c.route == routeRaw
	wait := apiWait
	if reading {
		wait = HeaderWait
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	s, err := g.o.Node.Look(ctx, c.ref(), tokenOf(r), reading)
	if err != nil {
		return nil, g.veil(ctx, c, tokenOf(r), err)
	}
	return s, g.allow(ctx, s, tokenOf(r))
}

// veil refuses who may not read a repository in the same way whether it has the
// revision or not: the node may have been told by its own right.
func (g *Gateway) veil(ctx context.Context, c call, token string, err error) error {
	if r, ok := errors.AsType[*Refusal](err); !ok || r.Code != RevisionNotFound || c.revision == pieces.DefaultRevision {
		return err
	}
	s, fault := g.o.Node.Look(ctx, pieces.Ref{Repo: c.repo, Revision: pieces.DefaultRevision}, token, false)
	if fault != nil {
		return err
	}
	return cmp.Or(g.allow(ctx, s, token), err)
}

func (g *Gateway) refs(w http.ResponseWriter, r *http.Request, c call) {
	ctx, cancel := context.WithTimeout(r.Context(), apiWait)
	defer cancel()
	if _, err := g.open(r, c); err != nil { // its access is that of the default branch
		refuse(w, err)
		return
	}
	refs, err := g.o.Node.Refs(ctx, c.repo, tokenOf(r))
	if err != nil {
		refuse(w, err)
		return
	}
	writeJSON(w, http.StatusOK, refLists(refs))
}
