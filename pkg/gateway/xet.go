package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pagent/internal/minicas"
	"p2pagent/pkg/pieces"
)

// XetOffer says which files clients are told to read as if from the Hub's
// content-addressed store, which the gateway then plays.
type XetOffer int

// The offers. Only files that the Hub has in its store are offered: clients keep
// the name, and use it at the Hub later.
const (
	NoXet   XetOffer = iota // none: no answer speaks of Xet
	XetHuge                 // those that Python's client does not take over plain HTTP
	XetAll
)

// covers tells whether clients are told of the file's place in the store.
func (x XetOffer) covers(f pieces.File) bool {
	known := !f.Xet.IsZero() && f.LFS() && f.Blob.Size > 0
	return known && (x == XetAll || x == XetHuge && f.Blob.Size > hugeFile)
}

// xet tells whether the route is one of the store.
func (r route) xet() bool {
	return slices.Contains([]route{routeXet, routeRecipe1, routeRecipe2, routeXorb}, r)
}

// home is how the caller reaches this gateway: by a name that was checked.
func home(r *http.Request) string { return "http://" + r.Host }

func tokenAddress(r *http.Request, o *pieces.Outline) string {
	return fmt.Sprintf("%s/api/%s/%s/xet-read-token/%s", home(r), o.Repo.Kind.Plural(), o.Repo.Name, o.Commit)
}

// xetToken gives who may read a commit the right to read it as from the store.
func (g *Gateway) xetToken(w http.ResponseWriter, r *http.Request, s Snapshot) {
	o := s.Outline()
	grant := minicas.Grant{Repo: o.Repo.String(), Commit: o.Commit, Round: g.o.Node.TakenBack(), Made: time.Now().Unix()}
	if !s.Open() {
		grant.Caller = tokenOf(r)
	}
	token, end := g.mint.Seal(grant), grant.Expires().Unix()
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Xet-Access-Token", token)
	h.Set("X-Xet-Cas-Url", home(r))
	h.Set("X-Xet-Token-Expiration", strconv.FormatInt(end, 10))
	writeJSON(w, http.StatusOK, map[string]any{"accessToken": token, "casUrl": home(r), "exp": end})
}

// redeem finds the file that a grant and its name in the store stand for, if who
// has it may still read.
func (g *Gateway) redeem(r *http.Request, grant minicas.Grant, name string) (Snapshot, pieces.File, error) {
	if grant.Round != g.o.Node.TakenBack() {
		return nil, pieces.File{}, &Refusal{Code: Spoiled, Message: "bytes that were sent may be wrong: begin the download anew"}
	}
	repo, err := pieces.ParseRepo(grant.Repo)
	if err != nil {
		return nil, pieces.File{}, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), apiWait)
	defer cancel()
	s, err := g.o.Node.Look(ctx, pieces.Ref{Repo: repo, Revision: string(grant.Commit)}, grant.Caller, true)
	if err == nil {
		err = g.allow(ctx, s, grant.Caller)
	}
	if err != nil {
		return nil, pieces.File{}, err
	}
	for _, f := range s.Outline().Files {
		if XetAll.covers(f) && f.Xet.String() == name {
			return s, f, nil
		}
	}
	return nil, pieces.File{}, &Refusal{Code: EntryNotFound, Message: "no file of this commit has that name in the store"}
}

// recipe answers how a file is put together from xorbs: the same whether it is
// here or not.
func (g *Gateway) recipe(w http.ResponseWriter, r *http.Request, c call) {
	grant, err := g.mint.Open(tokenOf(r), time.Now())
	if err != nil || grant.File != "" {
		refuse(w, &Refusal{Code: Unauthorized, Message: "this is no read token of this gateway, or an old one"})
		return
	}
	_, f, err := g.redeem(r, grant, c.path)
	if err != nil {
		refuse(w, err)
		return
	}
	first, last, ok := span(r.Header.Get("Range"), f.Blob.Size)
	if !ok {
		w.Header().Set("X-Error-Code", "InvalidRange")
		writeJSON(w, http.StatusRequestedRangeNotSatisfiable, map[string]string{"error": "no such range"})
		return
	}
	grant.File, grant.Made = c.path, time.Now().Unix()
	query := "?" + url.Values{"grant": {g.mint.Seal(grant)}}.Encode()
	version := 2
	if c.route == routeRecipe1 {
		version = 1
	}
	w.Header().Set("Cache-Control", "no-store")
	store := minicas.File{Name: c.path, Blob: f.Blob}
	writeJSON(w, http.StatusOK, store.Reconstruct(version, first, last, func(xorb string) string { return home(r) + "/xorbs/" + xorb + query }))
}

// span reads a Range of one span of a file, "" for all of it: the first byte and
// the last one.
func span(text string, size int64) (first, last int64, ok bool) {
	if text == "" {
		return 0, size - 1, true
	}
	from, to, ok := strings.Cut(strings.TrimPrefix(text, "bytes="), "-")
	first, err := strconv.ParseInt(from, 10, 64)
	last = size - 1
	if to != "" && err == nil {
		last, err = strconv.ParseInt(to, 10, 64)
	}
	last = min(last, size-1)
	return first, last, ok && err == nil && first >= 0 && first <= last
}

// xorb sends a range of an object, made from the bytes of the file as they are
// here or land.
func (g *Gateway) xorb(w http.ResponseWriter, r *http.Request, c call) {
	began := time.Now()
	grant, err := g.mint.Open(r.URL.Query().Get("grant"), began)
	if err != nil || grant.File == "" || r.Header.Get("Range") == "" {
		refuse(w, &Refusal{Code: Expired, Message: "this address is no good, or not any more: ask for another"})
		return
	}
	s, f, err := g.redeem(r, grant, grant.File)
	if err != nil {
		refuse(w, err)
		return
	}
	x, ok := minicas.File{Name: grant.File, Blob: f.Blob}.Xorb(c.path)
	if !ok {
		refuse(w, &Refusal{Code: EntryNotFound, Message: "the file has no such xorb"})
		return
	}
	leave, err := g.enter()
	if err != nil {
		refuse(w, err)
		return
	}
	defer leave()
	content := s.Read(f)
	defer content.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	g.send(w, r, f, &body{sized: sized{size: x.Size()}, content: minicas.Object{Xorb: x, Of: content}}, began.Add(xorbWait))
}
