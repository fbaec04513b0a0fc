package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stall is what goes wrong with one file: when its byte `after` is due, the body
// stops with the socket open. hubtest counts from where a request begins, which
// a lab does not know; all its other faults are at /-/faults.
type stall struct {
	path  string
	after int64
	times int // how many requests it strikes
}

// faults are the stalls still to strike, and the rate of every body.
type faults struct {
	mu   sync.Mutex
	list []*stall
	rate int64 // bytes a second, 0 = none
}

func (f *faults) add(x stall) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, &x)
}

func (f *faults) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list, f.rate = nil, 0
}

func (f *faults) setRate(rate int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = rate
}

// due tells at which byte between two offsets of a file a body stalls, if it
// does, and counts that as having struck.
func (f *faults) due(path string, from, to int64) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.list {
		if x.times > 0 && x.path == path && from <= x.after && x.after < to {
			x.times--
			return x.after, true
		}
	}
	return 0, false
}

// tap counts the file content that passes through a handler and breaks it on
// request. It adds no copy: an *os.File still reaches the socket by sendfile.
type tap struct {
	http.ResponseWriter
	log    *log
	faults *faults
	entry  *entry
	conn   any             // the connection, when it is known
	gone   <-chan struct{} // closed when the client is
}

// tapped wraps a handler; requests for anything but the content of a file pass untouched.
func tapped(next http.Handler, l *log, f *faults) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := contentPath(r.URL.EscapedPath())
		if r.Method != http.MethodGet || path == "" {
			next.ServeHTTP(w, r)
			return
		}
		t := &tap{ResponseWriter: w, log: l, faults: f, entry: l.begin(r, path), conn: r.Context().Value(connKey{}), gone: r.Context().Done()}
		defer l.update(func() { t.entry.Ended = now() })
		next.ServeHTTP(t, r)
	})
}

// contentForm matches the kinds of URL that content comes from: the CDN's, with the
// digest before the path, the Hub's own for small files, and those of xorbs.
var contentForm = regexp.MustCompile(`^/(?:(?:.*/[0-9a-f]{64}|api/resolve-cache/.*/[0-9a-f]{40})/(.+)|` + xorbs + `[0-9a-f]{64})$`)

// xorbs is how the path of a xorb begins.
const xorbs = "xorbs/default/"

func contentPath(escaped string) string {
	m := contentForm.FindStringSubmatch(escaped)
	if m == nil {
		return ""
	}
	if m[1] == "" {
		return escaped[1:]
	}
	path, err := url.PathUnescape(m[1])
	if err != nil {
		return ""
	}
	return path
}

// Unwrap lets http.ResponseController reach the connection.
func (t *tap) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// WriteHeader learns from the answer which bytes it will hold.
func (t *tap) WriteHeader(code int) {
	from, to := span(t.Header())
	t.log.update(func() {
		t.entry.Status = code
		if code == http.StatusOK || code == http.StatusPartialContent {
			t.entry.From, t.entry.To = from, to
		}
	})
	t.ResponseWriter.WriteHeader(code)
}

// span reads the first and last byte out of Content-Range, else Content-Length.
func span(h http.Header) (from, to int64) {
	if _, err := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%d/", &from, &to); err == nil {
		return from, to
	}
	n, err := strconv.ParseInt(strings.TrimSpace(h.Get("Content-Length")), 10, 64)
	if err != nil {
		return 0, -1
	}
	return 0, n - 1
}

// content tells whether what is written now is file content, not an error text.
func (t *tap) content() bool {
	if t.entry.Status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	return t.entry.To >= 0
}

func (t *tap) Write(p []byte) (int, error) {
	if !t.content() {
		return t.ResponseWriter.Write(p)
	}
	whole := p
	after, struck := t.faults.due(t.entry.Path, t.at(), t.at()+int64(len(p)))
	if struck {
		p = p[:after-t.at()]
	}
	n, err := t.ResponseWriter.Write(p)
	t.log.sent(t.entry, int64(n))
	if err == nil && struck {
		err = t.stall()
	}
	if err == nil && n < len(whole) {
		err = io.ErrShortWrite
	}
	t.pace(int64(n))
	return n, err
}

// chunk is the most that goes to the kernel at once: counters stay fresh and
// writes stay large.
const chunk = 1 << 20

// ReadFrom hands a file to the socket without reading it into memory.
func (t *tap) ReadFrom(src io.Reader) (total int64, err error) {
	if !t.content() {
		return io.Copy(t.ResponseWriter, src)
	}
	limit, ok := src.(*io.LimitedReader)
	if !ok {
		limit = &io.LimitedReader{R: src, N: 1 << 62}
	}
	for err == nil && limit.N > 0 {
		part := &io.LimitedReader{R: limit.R, N: min(chunk, limit.N)}
		after, struck := t.faults.due(t.entry.Path, t.at(), t.at()+part.N)
		if struck {
			part.N = after - t.at()
		}
		asked := part.N
		n, copied := io.Copy(t.ResponseWriter, part)
		t.log.sent(t.entry, n)
		total, limit.N, err = total+n, limit.N-n, copied
		if err == nil && struck {
			err = t.stall()
		} else if err == nil && n < asked {
			break // the source has ended
		}
		t.pace(n)
	}
	return total, err
}

// at is the offset in the file of the next byte.
func (t *tap) at() int64 { return t.entry.From + t.entry.Sent }

// stall returns only when the client is gone. The stall begins when the client
// has the last byte before it, not when that went into the socket's buffer.
func (t *tap) stall() error {
	if err := http.NewResponseController(t.ResponseWriter).Flush(); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for unsent(t.conn) > 0 {
		select {
		case <-t.gone:
		case <-tick.C:
			continue
		}
		break
	}
	t.log.update(func() { t.entry.Stalled = now() })
	<-t.gone
	return errors.New("stalled on request")
}

// connKey is where a request's context holds its connection.
type connKey struct{}

// unsent returns how many bytes of a TCP connection the other side has not acknowledged.
func unsent(conn any) (n int) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) // 0 on a closed connection
	return n
}

// pace sleeps as long as n bytes should take.
func (t *tap) pace(n int64) {
	t.faults.mu.Lock()
	rate := t.faults.rate
	t.faults.mu.Unlock()
	if rate == 0 {
		return
	}
	select {
	case <-time.After(time.Duration(float64(n) / float64(rate) * float64(time.Second))):
	case <-t.gone:
	}
}
