package hubtest

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"time"
)

// Kind is a way to fail.
type Kind string

// The ways to fail. Silent, Status, Login and Expired take the place of the whole
// answer; the others change it. Those that speak of bytes count them in the body
// of the response, but for Wrong.
const (
	Silent     Kind = "silent"      // no response header, ever
	Stall      Kind = "stall"       // At bytes of the body, then silence with the socket open
	Cut        Kind = "cut"         // At bytes of the body, then a clean close
	Reset      Kind = "reset"       // At bytes of the body, then a TCP reset
	Truncate   Kind = "truncate"    // the last At bytes (default 7) missing, Content-Length to match
	WholeFile  Kind = "whole"       // 200 and the whole file, whatever Range says
	WrongRange Kind = "wrong-range" // a Content-Range one byte later than asked
	Wrong      Kind = "wrong"       // Len bytes (default 1) inverted from byte At of the file on
	Slow       Kind = "slow"        // Rate bytes each Every (default 1 s) after At bytes
	Expired    Kind = "expired"     // 403, as a CDN says it
	Login      Kind = "login"       // 200 and a web page
	Gzip       Kind = "gzip"        // says Content-Encoding: gzip
	Status     Kind = "status"      // Status with Code and Message
	Headers    Kind = "headers"     // nothing but Header
)

// Fault makes requests fail. Zero fields match everything.
type Fault struct {
	Do Kind `json:"do"`

	Route Route  `json:"route,omitempty"`
	Repo  string `json:"repo,omitempty"` // "org/name"
	Path  string `json:"path,omitempty"` // of the file, a pattern of path.Match
	// Nth is the first request that fails, counted from 1 among those that match;
	// Count is how many do. {0, 0} is every request, {n, 0} the n-th alone.
	Nth   int `json:"nth,omitempty"`
	Count int `json:"count,omitempty"`

	At      int64         `json:"at,omitempty"`
	Len     int64         `json:"len,omitempty"`
	Rate    int64         `json:"rate,omitempty"`
	Every   time.Duration `json:"every,omitempty"`
	Status  int           `json:"status,omitempty"`
	Code    string        `json:"code,omitempty"`
	Message string        `json:"message,omitempty"`
	// Header is set on the answer last; an empty value removes the header.
	Header map[string]string `json:"header,omitempty"`
}

// rule is a fault with the number of requests that it has seen.
type rule struct {
	Fault
	seen, hits int
}

// Fail adds a fault and returns a function that tells how many requests it has
// hit. Of several that match one request, the one added first wins.
func (s *Server) Fail(f Fault) (hits func() int) {
	r := &rule{Fault: f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, r)
	return func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return r.hits
	}
}

// Heal removes all faults; responses that already stall stay so until Close.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// match finds the fault for a call. Every rule sees the call, so that "the third
// request" means the third whether or not others failed before it.
func (s *Server) match(c call) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.calls[c.route]++
	var hit *rule
	for _, r := range s.faults {
		if !r.concerns(c) {
			continue
		}
		r.seen++
		if hit == nil && r.due() {
			hit = r
		}
	}
	if hit == nil {
		return nil
	}
	hit.hits++
	return &hit.Fault
}

func (r *rule) concerns(c call) bool {
	if r.Route != "" && r.Route != c.route || r.Repo != "" && r.Repo != c.repo.String() {
		return false
	}
	if r.Path == "" {
		return true
	}
	ok, err := path.Match(r.Path, c.path)
	return ok && err == nil
}

func (r *rule) due() bool {
	first, count := max(r.Nth, 1), r.Count
	if count == 0 && r.Nth > 0 {
		count = 1
	}
	return r.seen >= first && (count == 0 || r.seen < first+count)
}

type faultKey struct{}

func faultOf(req *http.Request) *Fault {
	f, _ := req.Context().Value(faultKey{}).(*Fault)
	return f
}

func (f *Fault) kind() Kind {
	if f == nil {
		return ""
	}
	return f.Do
}

// run counts a call, finds its fault and answers.
func (s *Server) run(w http.ResponseWriter, req *http.Request, c call, next func(http.ResponseWriter, *http.Request, call)) {
	f := s.match(c)
	rec := &recorder{ResponseWriter: w, s: s, req: req, fault: f}
	if (c.route == CDN || c.route == Xorb) && req.Header.Get("Authorization") != "" {
		s.mu.Lock()
		s.stats.tokensAtCDN++
		s.mu.Unlock()
	}
	switch f.kind() {
	case Silent:
		s.silence(req.Context())
		panic(http.ErrAbortHandler)
	case Status:
		refuse(rec, f.Status, f.Code, f.Message)
	case Expired:
		http.Error(rec, "AccessDenied: Request has expired", http.StatusForbidden)
	case Login:
		rec.Header().Set("Content-Type", "text/html; charset=utf-8")
		rec.WriteHeader(http.StatusOK)
		io.WriteString(rec, "<!doctype html><title>Sign in to the network</title>")
	default:
		next(rec, req.WithContext(context.WithValue(req.Context(), faultKey{}, f)), c)
	}
}

// silence holds a response until the client goes away or the server is closed.
func (s *Server) silence(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.done:
	}
}

func (s *Server) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.done:
	}
}

// recorder counts the status and sets a fault's headers as the last one to.
type recorder struct {
	http.ResponseWriter
	s     *Server
	req   *http.Request
	fault *Fault
	begun bool
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if r.begun {
		return
	}
	r.begun = true
	r.s.mu.Lock()
	r.s.stats.status[status]++
	r.s.mu.Unlock()
	if r.fault.kind() == Gzip {
		r.Header().Set("Content-Encoding", "gzip")
	}
	if r.fault != nil {
		for name, value := range r.fault.Header {
			r.Header().Set(name, value)
			if value == "" {
				r.Header().Del(name)
			}
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if !r.begun {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile possible.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if !r.begun {
		r.WriteHeader(http.StatusOK)
	}
	return io.Copy(r.ResponseWriter, src)
}

// serve sends n bytes of content from off on, the way the fault says.
func (f *Fault) serve(s *Server, w http.ResponseWriter, req *http.Request, c Content, off, n int64, status int, sent *int64) {
	limit := n
	switch f.kind() {
	case Stall, Cut, Reset, Slow:
		limit = min(f.At, n)
	case Truncate:
		limit = max(n-cmp.Or(f.At, 7), 0)
		w.Header().Set("Content-Length", strconv.FormatInt(limit, 10))
	case Wrong:
		c = wrong{c, f.At, max(f.Len, 1)}
	case WrongRange:
		w.Header().Set("Content-Range", "bytes "+strconv.FormatInt(off+1, 10)+"-"+strconv.FormatInt(off+n, 10)+"/"+strconv.FormatInt(c.Size(), 10))
	}
	w.WriteHeader(status)
	k, err := writeRange(w, c, off, limit)
	*sent += k
	if err != nil || k < n && f.kind() != Truncate {
		http.NewResponseController(w).Flush()
	}
	if err == nil {
		f.end(s, w, req, c, off+k, n-k, sent)
	}
}

// end is what comes after the bytes that arrive in good order.
func (f *Fault) end(s *Server, w http.ResponseWriter, req *http.Request, c Content, off, left int64, sent *int64) {
	switch f.kind() {
	case Stall:
		s.silence(req.Context())
		panic(http.ErrAbortHandler)
	case Cut:
		panic(http.ErrAbortHandler)
	case Reset:
		reset(w)
	case Slow:
		f.trickle(s, w, req, c, off, left, sent)
	}
}

func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	conn.Close()
}

func (f *Fault) trickle(s *Server, w http.ResponseWriter, req *http.Request, c Content, off, left int64, sent *int64) {
	every := f.Every
	if every <= 0 {
		every = time.Second
	}
	for left > 0 && req.Context().Err() == nil {
		select {
		case <-s.done:
			panic(http.ErrAbortHandler)
		default:
		}
		s.sleep(req.Context(), every)
		k, err := writeRange(w, c, off, min(max(f.Rate, 1), left))
		*sent, off, left = *sent+k, off+k, left-k
		if err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

// wrong is content with some bytes inverted.
type wrong struct {
	Content
	at, n int64
}

func (c wrong) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Content.ReadAt(p, off)
	for i := max(c.at-off, 0); i < min(c.at+c.n-off, int64(n)); i++ {
		p[i] ^= 0xff
	}
	return n, err
}
