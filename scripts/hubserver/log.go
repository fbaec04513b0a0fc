package main

import (
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// entry is one request for file content, as /requests shows it. Times are Unix
// seconds; 0 means not yet.
type entry struct {
	Client  string  `json:"client"`
	Path    string  `json:"path"`   // of a file, or of a xorb as the CDN's URLs have it
	Stored  bool    `json:"stored"` // it is a xorb
	From    int64   `json:"from"`   // first byte asked for
	To      int64   `json:"to"`     // last byte asked for; -1 when the answer has no body
	Sent    int64   `json:"sent"`
	Status  int     `json:"status"`
	Began   float64 `json:"began"`
	Ended   float64 `json:"ended"`
	Stalled float64 `json:"stalled"`
}

// logLimit bounds memory: a run of the bench makes some hundred entries.
const logLimit = 200_000

// log remembers what was asked and sent.
type log struct {
	mu      sync.Mutex
	entries []*entry
	clients map[string]int64 // body bytes by address
	body    int64
	stored  int64 // of these, from the store
	dropped int64
}

func newLog() *log {
	l := &log{}
	l.reset()
	return l
}

func (l *log) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries, l.clients, l.body, l.stored, l.dropped = nil, make(map[string]int64), 0, 0, 0
}

func (l *log) begin(r *http.Request, path string) *entry {
	client, _, _ := net.SplitHostPort(r.RemoteAddr) // always host:port in net/http
	e := &entry{Client: client, Path: path, Stored: strings.HasPrefix(path, xorbs), To: -1, Began: now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) < logLimit {
		l.entries = append(l.entries, e)
	} else {
		l.dropped++
	}
	return e
}

// update changes an entry under the lock that readers of the log take.
func (l *log) update(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *log) sent(e *entry, n int64) {
	l.update(func() {
		e.Sent += n
		l.body += n
		if e.Stored {
			l.stored += n
		}
		l.clients[e.Client] += n
	})
}

func (l *log) requests() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]entry, len(l.entries))
	for i, e := range l.entries {
		out[i] = *e
	}
	return out
}

// totals enters the bytes so far, requests that are still open included.
func (l *log) totals(s *stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Body, s.Stored, s.Clients, s.Dropped = l.body, l.stored, maps.Clone(l.clients), l.dropped
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }
