package hubtest

import (
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// file answers a request for one file: redirects for LFS files to the CDN and for
// small ones to the Hub's own cache route, as the Hub does.
func (s *Server) file(w http.ResponseWriter, req *http.Request, r *repo, c call, commit string, tree map[string]*File) {
	h := w.Header()
	h.Set("X-Repo-Commit", commit)
	f := tree[c.path]
	if f == nil {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	lfs := s.lfs(f)
	oid, digest := f.ids(lfs)
	h.Set("Accept-Ranges", "bytes")
	switch {
	case lfs && s.hasCDN():
		h.Set("ETag", strconv.Quote(digest))
		h.Set("X-Linked-Etag", strconv.Quote(digest))
		h.Set("X-Linked-Size", strconv.FormatInt(f.Content.Size(), 10))
		h.Set("Location", s.signed(r, f))
		if x := s.fileOf(f, tree); x != nil && !s.o.Xet.Redacted {
			h.Set("X-Xet-Hash", x.name.String())
			h.Set("Link", fmt.Sprintf("<%s://%s%s/api/%s/%s/xet-read-token/%s>; rel=\"xet-auth\"", scheme(req), req.Host, s.o.Prefix, r.id.Kind.Plural(), r.id.Name, commit))
		}
		w.WriteHeader(http.StatusFound)
	case lfs:
		h.Set("ETag", strconv.Quote(digest))
		s.serve(w, req, r, f, faultOf(req))
	case c.route == Cache:
		h.Set("ETag", strconv.Quote(oid))
		s.serve(w, req, r, f, faultOf(req))
	default:
		h.Set("ETag", strconv.Quote(oid))
		h.Set("Location", s.o.Prefix+"/api/resolve-cache/"+r.id.Kind.Plural()+"/"+r.id.Name+"/"+commit+"/"+escapePath(f.Path))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func (s *Server) hasCDN() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cdn != ""
}

// CDN answers signed URLs.
func (s *Server) CDN() http.Handler { return http.HandlerFunc(s.serveCDN) }

func (s *Server) serveCDN(w http.ResponseWriter, req *http.Request) {
	if s.o.Xet != nil {
		for _, version := range []string{"v1", "v2"} {
			if name, ok := strings.CutPrefix(req.URL.Path, "/"+version+"/reconstructions/"); ok {
				s.serveCAS(w, req, version, name)
				return
			}
		}
		if name, ok := strings.CutPrefix(req.URL.Path, xorbPath); ok {
			s.serveXorb(w, req, name)
			return
		}
	}
	r, f := s.signedFile(req.URL.EscapedPath())
	c := call{route: CDN}
	if f != nil {
		c.repo, c.path = r.id, f.Path
	}
	s.run(w, req, c, func(w http.ResponseWriter, req *http.Request, c call) {
		switch {
		case f == nil:
			http.Error(w, "NoSuchKey", http.StatusNotFound)
		case !s.valid(req.URL):
			http.Error(w, "AccessDenied: Request has expired", http.StatusForbidden)
		case f.Content.Size() > 50_000_000_000 && req.Header.Get("Range") == "":
			http.Error(w, "InvalidRequest: use ranges", http.StatusBadRequest)
		default:
			_, digest := f.ids(true)
			w.Header().Set("ETag", strconv.Quote(digest))
			w.Header().Set("Accept-Ranges", "bytes")
			s.serve(w, req, r, f, faultOf(req))
		}
	})
}

// signedFile finds the file that a path of the CDN names, in any commit. It
// compares digests without the lock: the first look at one may hash gigabytes.
func (s *Server) signedFile(escaped string) (*repo, *File) {
	r, digest, candidates := s.candidates(escaped)
	for _, f := range candidates {
		if _, d := f.ids(true); d == digest {
			return r, f
		}
	}
	return nil, nil
}

func (s *Server) candidates(escaped string) (in *repo, digest string, out []*File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, r := range s.repos {
		rest, ok := strings.CutPrefix(escaped, "/"+id.String()+"/")
		d, name, ok2 := strings.Cut(rest, "/")
		if !ok || !ok2 || len(d) != 64 {
			continue
		}
		for _, tree := range r.commits {
			if f := tree[unescape(name)]; f != nil && s.lfs(f) {
				in, digest, out = r, d, append(out, f)
			}
		}
	}
	return in, digest, out
}

// serve sends a file or a range of it, with the faults that were asked for.
func (s *Server) serve(w http.ResponseWriter, req *http.Request, r *repo, f *File, fault *Fault) {
	size := f.Content.Size()
	off, n, status := int64(0), size, http.StatusOK
	if spec := req.Header.Get("Range"); spec != "" && size > 0 && fault.kind() != WholeFile {
		first, last, ok := parseRange(spec, size)
		if !ok {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			http.Error(w, "range not satisfiable", http.StatusRequestedRangeNotSatisfiable)
			return
		}
		off, n, status = first, last-first+1, http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
	}
	w.Header().Set("Content-Type", contentType(f.Path))
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if req.Method == http.MethodHead {
		w.WriteHeader(status)
		return
	}
	end := s.begin(r, f, off)
	var sent int64
	defer func() { end(sent) }()
	fault.serve(s, w, req, f.Content, off, n, status, &sent)
}

// contentType follows the Hub: it never serves a page that a browser would run.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".json", ".txt", ".md", ".html", ".py":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// parseRange reads a single range.
func parseRange(spec string, size int64) (first, last int64, ok bool) {
	rest, ok := strings.CutPrefix(spec, "bytes=")
	from, to, ok2 := strings.Cut(rest, "-")
	if !ok || !ok2 {
		return 0, 0, false
	}
	if from == "" { // the last so many bytes
		n, err := strconv.ParseInt(to, 10, 64)
		return max(size-n, 0), size - 1, err == nil && n > 0
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if last = size - 1; to != "" && err == nil {
		last, err = strconv.ParseInt(to, 10, 64)
	}
	return first, min(last, size-1), err == nil && first >= 0 && first <= last && first < size
}
