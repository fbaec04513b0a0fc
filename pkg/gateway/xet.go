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

// maxSpan is how much of a file one reconstruction tells of, 2048 xorbs: hf_xet asks
// for 16 GB at most.
const maxSpan = 32 << 30

// recipe answers how a file is put together from xorbs: the same whether it is
// here or not.
func (g *Gateway) recipe(w http.ResponseWriter, r *http.Request, c call) {
	leave, err := g.enter() // an answer takes a megabyte
	if err != nil {
		refuse(w, err)
		return
	}
	defer leave()
	answer, err := g.reconstruct(r, c)
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, answer)
}

func (g *Gateway) reconstruct(r *http.Request, c call) (answer minicas.Reconstruction, err error) {
	grant, err := g.mint.Open(tokenOf(r), time.Now())
	if err != nil || grant.File != "" {
		return answer, &Refusal{Code: Unauthorized, Message: "this is no read token of this gateway, or an old one"}
	}
	_, f, err := g.redeem(r, grant, c.path)
	if err != nil {
		return answer, err
	}
	first, last, ok := span(r.Header.Get("Range"), f.Blob.Size)
	switch {
	case !ok:
		return answer, &Refusal{Code: InvalidRange, Message: "the file has no such range"}
	case last-first >= maxSpan:
		return answer, &Refusal{Code: TooMuch, Message: fmt.Sprintf("ask for %d bytes at once, at most", int64(maxSpan))}
	}
	grant.File, grant.Made = c.path, time.Now().Unix()
	query := "?" + url.Values{"grant": {g.mint.Seal(grant)}}.Encode()
	version := 2
	if c.route == routeRecipe1 {
		version = 1
	}
	store := minicas.File{Name: c.path, Blob: f.Blob}
	return store.Reconstruct(version, first, last, func(xorb string) string { return home(r) + "/xorbs/" + xorb + query }), nil
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

// xorb sends a range of an object, made of the bytes of the file as they are here
// or land.
func (g *Gateway) xorb(w http.ResponseWriter, r *http.Request, c call) {
	began := time.Now()
	s, f, x, round, err := g.object(r, c.path)
	if err != nil {
		refuse(w, err)
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
	part := minicas.Object{Xorb: x, Of: inRound{content, g.o.Node, round}}
	g.send(w, r, f, &body{sized: sized{size: x.Size()}, content: part}, began.Add(xorbWait))
}

// inRound is a file to a client that may have read of it in other requests: what
// was taken back since the client began spoils all.
type inRound struct {
	Content
	node  Node
	round uint64
}

func (c inRound) Await(ctx context.Context, off int64) (int64, error) {
	n, err := c.Content.Await(ctx, off)
	if err == nil && c.node.TakenBack() != c.round {
		return 0, fmt.Errorf("pieces were taken back: %w", ErrSpoiled)
	}
	return n, err
}

// object finds what an address leads to, and the round that it belongs to. As at
// the Hub it is good for a range alone.
func (g *Gateway) object(r *http.Request, name string) (s Snapshot, f pieces.File, x minicas.Xorb, round uint64, err error) {
	spec := r.Header.Get("Range")
	grant, err := g.mint.Open(r.URL.Query().Get("grant"), time.Now())
	if err != nil || grant.File == "" || spec == "" || strings.Contains(spec, ",") {
		return s, f, x, 0, &Refusal{Code: Expired, Message: "this address is no good, or not any more: ask for another"}
	}
	if s, f, err = g.redeem(r, grant, grant.File); err != nil {
		return s, f, x, 0, err
	}
	x, ok := minicas.File{Name: grant.File, Blob: f.Blob}.Xorb(name)
	if !ok {
		err = &Refusal{Code: EntryNotFound, Message: "the file has no such xorb"}
	}
	return s, f, x, grant.Round, err
}
