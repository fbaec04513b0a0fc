package hubtest

import (
	"cmp"
	"crypto/hmac"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pagent/pkg/xet"
)

// xetToken answers with a read token for a commit.
func (s *Server) xetToken(w http.ResponseWriter, r *repo, commit string) {
	if s.o.Xet == nil {
		refuse(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
		return
	}
	exp := time.Now().Add(s.o.Xet.TokenFor).Unix()
	s.mu.Lock()
	cas := cmp.Or(s.o.Xet.CAS, s.cdn)
	token := fmt.Sprintf("xet.%d.%s", exp, s.sign("token", strconv.FormatInt(exp, 10)))
	s.mu.Unlock()
	w.Header().Set("X-Xet-Access-Token", token)
	w.Header().Set("X-Xet-Cas-Url", cas)
	w.Header().Set("X-Xet-Token-Expiration", strconv.FormatInt(exp, 10))
	writeJSON(w, http.StatusOK, map[string]any{"accessToken": token, "casUrl": cas, "exp": exp})
}

// goodToken checks what a request to the store carries.
func (s *Server) goodToken(req *http.Request) bool {
	rest, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer xet.")
	text, signature, _ := strings.Cut(rest, ".")
	exp, err := strconv.ParseInt(text, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && err == nil && time.Now().Unix() < exp && hmac.Equal([]byte(signature), []byte(s.sign("token", text)))
}

// serveCAS answers /v1/ and /v2/reconstructions/NAME.
func (s *Server) serveCAS(w http.ResponseWriter, req *http.Request, version, name string) {
	s.run(w, req, call{route: CAS, path: name}, func(w http.ResponseWriter, req *http.Request, _ call) {
		hash, err := xet.ParseHash(name)
		s.uploads.Lock()
		f := s.store.files[hash]
		s.uploads.Unlock()
		switch {
		case !s.goodToken(req):
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "(4) bad hash", http.StatusBadRequest)
		case f == nil || s.o.Xet.OnlyV1 && version == "v2":
			http.Error(w, "(7) not found", http.StatusNotFound)
		default:
			s.reconstruct(w, req, version, f)
		}
	})
}

// clipped is a range of a file in whole chunks.
type clipped struct {
	skip  int64
	terms []part
}

// part is chunks [first, end) of a xorb.
type part struct {
	xorb       *xorb
	first, end int
}

// clip cuts the bytes [from, last] out of a file.
func (f *stored) clip(from, last int64) (c clipped) {
	at := int64(0)
	for _, p := range f.spots {
		size := int64(p.xorb.chunks[p.index].Size)
		if at+size > from && at <= last {
			if len(c.terms) == 0 {
				c.skip = from - at
			}
			c.add(p)
		}
		at += size
	}
	return c
}

func (c *clipped) add(p spot) {
	if n := len(c.terms); n > 0 && c.terms[n-1].xorb == p.xorb && c.terms[n-1].end == p.index {
		c.terms[n-1].end++
		return
	}
	c.terms = append(c.terms, part{p.xorb, p.index, p.index + 1})
}

// ranges are the parts to fetch: those of one xorb that touch or overlap are one.
func (c *clipped) ranges() []part {
	sorted := slices.Clone(c.terms)
	slices.SortFunc(sorted, func(a, b part) int {
		return cmp.Or(slices.Compare(a.xorb.name[:], b.xorb.name[:]), a.first-b.first)
	})
	var out []part
	for _, p := range sorted {
		if n := len(out); n > 0 && out[n-1].xorb == p.xorb && p.first <= out[n-1].end {
			out[n-1].end = max(out[n-1].end, p.end)
			continue
		}
		out = append(out, p)
	}
	return out
}

func (f *stored) size() (n int64) {
	for _, p := range f.spots {
		n += int64(p.xorb.chunks[p.index].Size)
	}
	return n
}

type object = map[string]any

func span(start, end any) object { return object{"start": start, "end": end} }

func (s *Server) reconstruct(w http.ResponseWriter, req *http.Request, version string, f *stored) {
	from, last := int64(0), f.size()-1
	if spec := req.Header.Get("Range"); spec != "" {
		var ok bool
		if from, last, ok = parseRange(spec, f.size()); !ok {
			http.Error(w, "request_id: hubtest; (12) invalid range", http.StatusRequestedRangeNotSatisfiable)
			return
		}
	}
	c := f.clip(from, last)
	terms := []object{}
	for _, t := range c.terms {
		var size uint64
		for _, k := range t.xorb.chunks[t.first:t.end] {
			size += k.Size
		}
		terms = append(terms, object{"hash": t.xorb.name.String(), "unpacked_length": size, "range": span(t.first, t.end)})
	}
	answer := object{"offset_into_first_range": c.skip, "terms": terms}
	if version == "v1" {
		answer["fetch_info"] = s.fetchInfo(c.ranges())
	} else {
		answer["xorbs"] = s.xorbInfo(c.ranges())
	}
	writeJSON(w, http.StatusOK, answer)
}

// fetchInfo is version 1: each range has a URL.
func (s *Server) fetchInfo(ranges []part) map[string][]object {
	out := map[string][]object{}
	for _, p := range ranges {
		from, last := p.xorb.bytes(p.first, p.end)
		name := p.xorb.name.String()
		out[name] = append(out[name], object{"range": span(p.first, p.end), "url": s.signXorb(name, rangeText(from, last)), "url_range": span(from, last)})
	}
	return out
}

// xorbInfo is version 2: the ranges of a xorb share a URL.
func (s *Server) xorbInfo(ranges []part) map[string][]object {
	texts, entries := map[string][]string{}, map[string][]object{}
	for _, p := range ranges {
		from, last := p.xorb.bytes(p.first, p.end)
		name := p.xorb.name.String()
		texts[name] = append(texts[name], rangeText(from, last))
		entries[name] = append(entries[name], object{"chunks": span(p.first, p.end), "bytes": span(from, last)})
	}
	out := map[string][]object{}
	for name, e := range entries {
		out[name] = []object{{"url": s.signXorb(name, strings.Join(texts[name], ",")), "ranges": e}}
	}
	return out
}

func rangeText(from, last int64) string { return fmt.Sprintf("%d-%d", from, last) }

const xorbPath = "/xorbs/default/"

// signXorb returns a URL that is good for these ranges of a xorb.
func (s *Server) signXorb(name, ranges string) string {
	expires := strconv.FormatInt(time.Now().Add(s.o.SignedFor).Unix(), 10)
	s.mu.Lock()
	defer s.mu.Unlock()
	query := url.Values{"Expires": {expires}, "Ranges": {ranges}, "Signature": {s.sign(xorbPath+name+" "+ranges, expires)}}
	return s.cdn + xorbPath + name + "?" + query.Encode()
}

// serveXorb answers signed URLs of xorbs: for exactly a range that was signed.
func (s *Server) serveXorb(w http.ResponseWriter, req *http.Request, name string) {
	s.run(w, req, call{route: Xorb, path: name}, func(w http.ResponseWriter, req *http.Request, _ call) {
		hash, _ := xet.ParseHash(name)
		s.uploads.Lock()
		x := s.store.xorbs[hash]
		s.uploads.Unlock()
		switch {
		case x == nil:
			http.Error(w, "NoSuchKey", http.StatusNotFound)
		case !s.goodRange(req, name):
			http.Error(w, "AccessDenied", http.StatusForbidden)
		default:
			s.sendXorb(w, req, x)
		}
	})
}

func (s *Server) goodRange(req *http.Request, name string) bool {
	q := req.URL.Query()
	signed := strings.Split(q.Get("Ranges"), ",")
	asked, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	if !ok || !slices.Contains(signed, asked) || s.o.Xet.Joint && len(signed) > 1 {
		return false
	}
	at, err := strconv.ParseInt(q.Get("Expires"), 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	return err == nil && time.Now().Unix() < at &&
		hmac.Equal([]byte(q.Get("Signature")), []byte(s.sign(xorbPath+name+" "+q.Get("Ranges"), q.Get("Expires"))))
}

func (s *Server) sendXorb(w http.ResponseWriter, req *http.Request, x *xorb) {
	first, last, ok := parseRange(req.Header.Get("Range"), x.Size())
	if !ok {
		http.Error(w, "range not satisfiable", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	total := strconv.FormatInt(x.Size(), 10)
	if s.o.Xet.NoLength {
		total = "*"
	}
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%s", first, last, total))
	w.Header().Set("Content-Length", strconv.FormatInt(last-first+1, 10))
	w.Header().Set("Content-Type", "application/octet-stream")
	end := s.beginXorb(x, first)
	var sent int64
	defer func() { end(sent) }()
	faultOf(req).serve(s, w, req, x, first, last-first+1, http.StatusPartialContent, &sent)
}
