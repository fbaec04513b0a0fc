package hubtest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Serve answers on two listeners until the context ends: the Hub on one, its CDN
// on the other. It owns both and returns when every response has ended.
func (s *Server) Serve(ctx context.Context, hub, cdn net.Listener) error {
	s.SetCDN("http://" + cdn.Addr().String())
	return s.serveOn(ctx, hub, cdn)
}

func (s *Server) serveOn(ctx context.Context, hub, cdn net.Listener) error {
	servers := []*http.Server{newServer(s), newServer(s.CDN())}
	errs := make([]error, len(servers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, l := range []net.Listener{hub, cdn} {
		wg.Go(func() {
			if err := servers[i].Serve(l); !errors.Is(err, http.ErrServerClosed) {
				errs[i] = err
			}
			cancel() // one without the other is no Hub
		})
	}
	<-ctx.Done()
	s.Close()
	for _, srv := range servers {
		srv.Close()
	}
	wg.Wait()
	return errors.Join(errs...)
}

func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
}

// TB is what is needed of a testing.TB; with it, a program that serves a Hub does
// not link package testing.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
	Error(...any)
}

// Start serves on two loopback addresses, 127.0.0.1 for the Hub and 127.0.0.2
// for the CDN, so that a token that follows a redirect is seen. It returns the
// Hub's URL; the test's end stops everything.
func (s *Server) Start(tb TB) (url string) {
	tb.Helper()
	var listeners [2]net.Listener
	for i, addr := range []string{"127.0.0.1:0", "127.0.0.2:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			tb.Fatal("hubtest: ", err)
		}
		listeners[i] = l
	}
	s.SetCDN("http://" + listeners[1].Addr().String())
	s.serveUntilEnd(tb, listeners[0], listeners[1])
	return "http://" + listeners[0].Addr().String() + s.o.Prefix
}

// StartWithoutCDN is Start for a Hub that serves LFS bytes itself, as some mirrors do.
func (s *Server) StartWithoutCDN(tb TB) (url string) {
	tb.Helper()
	url = s.Start(tb)
	s.SetCDN("")
	return url
}

func (s *Server) serveUntilEnd(tb TB, hub, cdn net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.serveOn(ctx, hub, cdn) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Error("hubtest: ", err)
		}
	})
}

// The names of the in-memory Hub.
const (
	MemoryHub = "http://hub.test"
	MemoryCDN = "http://cdn.test"
)

// Memory is a Server on in-memory connections, for synctest bubbles.
type Memory struct {
	hub, cdn *memoryListener
}

// Memory serves on net.Pipe connections until the end of the test: inside a
// bubble, time stands still while bytes move. The Hub is MemoryHub. The Server
// must have been made in the same bubble.
func (s *Server) Memory(tb TB) *Memory {
	m := &Memory{hub: newMemoryListener("hub.test:80"), cdn: newMemoryListener("cdn.test:80")}
	s.SetCDN(MemoryCDN)
	s.serveUntilEnd(tb, m.hub, m.cdn)
	return m
}

// Dial connects to the Hub or its CDN; any other address is refused.
func (m *Memory) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	for _, l := range []*memoryListener{m.hub, m.cdn} {
		if l.Addr().String() == addr {
			return l.dial(ctx)
		}
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
}

// Transport returns a transport of its own, as every client has, that connects
// by Dial; the end of the test closes its idle connections.
func (m *Memory) Transport(tb TB) *http.Transport {
	t := &http.Transport{DialContext: m.Dial, DisableCompression: true, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 16}
	tb.Cleanup(t.CloseIdleConnections)
	return t
}

type memoryListener struct {
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener(name string) *memoryListener {
	return &memoryListener{name: name, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error    { l.once.Do(func() { close(l.done) }); return nil }
func (l *memoryListener) Addr() net.Addr  { return l }
func (l *memoryListener) Network() string { return "pipe" }
func (l *memoryListener) String() string  { return l.name }

// serveControl answers what the Hub does not have: routes below /-/, a name that
// no repository can have, with which a stand-alone server is watched and hurt.
//
//	GET    /-/stats    Stats as JSON
//	POST   /-/reset    all counters to zero
//	POST   /-/faults   adds a Fault given as JSON
//	DELETE /-/faults   removes all faults
//	POST   /-/expire   makes every signed URL invalid
func (s *Server) serveControl(w http.ResponseWriter, req *http.Request, path string) {
	switch req.Method + " " + path {
	case "GET /-/stats":
		writeJSON(w, http.StatusOK, s.Stats())
		return
	case "POST /-/reset":
		s.ResetStats()
	case "POST /-/faults":
		var f Fault
		if err := json.NewDecoder(http.MaxBytesReader(w, req.Body, 1<<16)).Decode(&f); err != nil || f.Do == "" {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": "want a fault as JSON, with \"do\""})
			return
		}
		s.Fail(f)
	case "DELETE /-/faults":
		s.Heal()
	case "POST /-/expire":
		s.ExpireSignatures()
	default:
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "no such control"})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// writeJSON answers with JSON; faults of the body apply to it too.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("hubtest: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	rec, ok := w.(*recorder)
	if !ok || rec.fault == nil {
		w.WriteHeader(status)
		w.Write(data)
		return
	}
	var sent int64
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	rec.fault.serve(rec.s, rec, rec.req, memory(data), 0, int64(len(data)), status, &sent)
}
