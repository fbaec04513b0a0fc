package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"p2pagent/internal/rollout"
	"p2pagent/pkg/pieces"
)

const (
	// maxCall bounds a request body: a ref and a few hundred patterns.
	maxCall = 1 << 20
	// heartbeat is the longest time between two lines of a stream.
	heartbeat = 2 * time.Second
	// writeWait is how long a client may leave a line unread before it counts as
	// gone.
	writeWait = 30 * time.Second
)

// Server answers the control API on behalf of an agent.
type Server struct {
	agent *Agent
	opt   ServerOptions
	http  *http.Server
}

// ServerOptions are what the control API has beyond the agent itself. All may be nil.
type ServerOptions struct {
	Inside Inside
	// Reload reads the configuration again. On an error nothing has changed.
	Reload func(context.Context) (Reloaded, error)
	// Rollout asks members to hold a snapshot; watch hears how far they are.
	Rollout func(ctx context.Context, r RolloutRequest, watch func(rollout.Table)) (rollout.Table, error)
}

// Inside writes what GET /v1/inside/NAME answers, by name: what helps to find out
// why an agent does what it does. What it writes has no secrets.
type Inside map[string]func(context.Context, io.Writer) error

// NewServer returns a server that Serve starts.
func NewServer(a *Agent, o ServerOptions) *Server {
	s := &Server{agent: a, opt: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", s.status)
	mux.HandleFunc("GET /v1/jobs", s.jobs)
	mux.HandleFunc("GET /v1/peers", s.peers)
	mux.HandleFunc("GET /v1/snapshots", s.snapshots)
	mux.HandleFunc("GET /v1/snapshot", s.snapshot)
	mux.HandleFunc("GET /v1/inside/{name}", s.look)
	mux.HandleFunc("POST /v1/fetch", s.fetch)
	mux.HandleFunc("POST /v1/seed", s.seed)
	mux.HandleFunc("POST /v1/verify", s.verify)
	mux.HandleFunc("POST /v1/remove", s.remove)
	mux.HandleFunc("POST /v1/prune", s.prune)
	mux.HandleFunc("POST /v1/pin", s.pin)
	mux.HandleFunc("POST /v1/unpin", s.unpin)
	mux.HandleFunc("POST /v1/reload", s.reload)
	mux.HandleFunc("POST /v1/rollout", s.rollout)
	mux.HandleFunc("/", s.unknown)
	s.http = &http.Server{
		Handler: mux, ConnContext: withCaller, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	return s
}

// Serve answers on l until ctx ends, then waits a moment for answers under way:
// the agent has to end its jobs for that. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		select {
		case <-ctx.Done():
			s.shutdown()
		case <-done:
		}
	})
	err := s.http.Serve(l)
	close(done)
	wait.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { answer(w, s.agent.Status()) }

func (s *Server) jobs(w http.ResponseWriter, _ *http.Request) {
	answer(w, jobsAnswer{SchemaVersion, s.agent.Jobs()})
}

func (s *Server) peers(w http.ResponseWriter, _ *http.Request) {
	answer(w, peersAnswer{SchemaVersion, s.agent.Peers()})
}

func (s *Server) snapshots(w http.ResponseWriter, _ *http.Request) {
	list, err := s.agent.List()
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, snapshotsAnswer{SchemaVersion, list})
}

func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	ref, err := parseRef(r.URL.Query().Get("ref"))
	if err != nil {
		s.fail(w, err)
		return
	}
	shown, files, err := s.agent.Show(ref)
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, snapshotAnswer{SchemaVersion, shown, files})
}

func (s *Server) fetch(w http.ResponseWriter, r *http.Request) {
	var call fetchCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	out := newStream(w)
	res, err := s.agent.Ensure(r.Context(), Request{Ref: ref, Include: call.Include, Exclude: call.Exclude, Watch: out.watch})
	s.finish(out, streamLine{Result: &res}, err)
}

func (s *Server) seed(w http.ResponseWriter, r *http.Request) {
	var call seedCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	out := newStream(w)
	res, err := s.agent.Seed(r.Context(), SeedRequest{Ref: ref, Dir: call.Dir, Watch: out.watch})
	s.finish(out, streamLine{Result: &res}, err)
}

func (s *Server) verify(w http.ResponseWriter, r *http.Request) {
	var call verifyCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	out := newStream(w)
	problems, err := s.agent.Verify(r.Context(), ref, func(v Verifying) {
		out.progress(streamLine{Verify: &v}, false)
	})
	s.finish(out, streamLine{Problems: problems}, err)
}

// remove wants more than a connection: whoever may fetch must not be able to
// take away what others use.
func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	var call removeCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	if !call.DryRun && !s.allowed(w, r, "remove "+ref.String()) {
		return
	}
	gone, err := s.agent.Remove(r.Context(), RemoveRequest{ref, call.DryRun, call.Force})
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, removeAnswer{SchemaVersion, gone})
}

// prune wants as much as remove. Each verdict is a line.
func (s *Server) prune(w http.ResponseWriter, r *http.Request) {
	var call PruneRequest
	if err := readCall(r, &call); err != nil {
		s.fail(w, err)
		return
	}
	if !call.DryRun && !s.allowed(w, r, "prune") {
		return
	}
	out := newStream(w)
	out.ctl.Flush() // the first verdict may take long
	done, err := s.agent.Prune(r.Context(), call, func(v Verdict) { out.progress(streamLine{Verdict: &v}, true) })
	s.finish(out, streamLine{Pruned: &done}, err)
}

// allowed lets root and the agent's own user pass, and answers all others.
func (s *Server) allowed(w http.ResponseWriter, r *http.Request, operation string) bool {
	uid := callerOf(r.Context())
	if uid == 0 || uid == os.Getuid() {
		return true
	}
	s.fail(w, Errorf(Denied, "%s: only root and the agent's own user (uid %d) may, not uid %d", operation, os.Getuid(), uid))
	return false
}

// pin is for everybody who may fetch: it takes nothing from anybody.
func (s *Server) pin(w http.ResponseWriter, r *http.Request) {
	s.changePin(w, r, func(ref pieces.Ref) (Pinned, error) { return s.agent.PinHere(ref, ByCommand) })
}

// unpin wants as much as remove: what is not pinned may be evicted.
func (s *Server) unpin(w http.ResponseWriter, r *http.Request) {
	if s.allowed(w, r, "unpin") {
		s.changePin(w, r, func(ref pieces.Ref) (Pinned, error) { return s.agent.Unpin(ref, ByCommand) })
	}
}

func (s *Server) changePin(w http.ResponseWriter, r *http.Request, do func(pieces.Ref) (Pinned, error)) {
	var call pinCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	p, err := do(ref)
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, pinAnswer{SchemaVersion, p})
}

// look wants as much as remove: logs and stacks say more of others' work than
// their jobs do.
func (s *Server) look(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	write := s.opt.Inside[name]
	if write == nil {
		s.unknown(w, r)
		return
	}
	if !s.allowed(w, r, "look inside the agent") {
		return
	}
	var out bytes.Buffer
	if err := write(r.Context(), &out); err != nil {
		s.fail(w, fmt.Errorf("look at %s: %w", name, err))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(out.Bytes())
}

// reload wants as much as remove: it changes what the operator wrote down.
func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	if s.opt.Reload == nil {
		s.unknown(w, r)
		return
	}
	if !s.allowed(w, r, "reload") {
		return
	}
	changed, err := s.opt.Reload(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	answer(w, reloadAnswer{SchemaVersion, changed})
}

// rollout wants as much as remove: it fills the disks of others.
func (s *Server) rollout(w http.ResponseWriter, r *http.Request) {
	if s.opt.Rollout == nil {
		s.unknown(w, r)
		return
	}
	if !s.allowed(w, r, "rollout") {
		return
	}
	var call rolloutCall
	ref, ok := s.readRef(w, r, &call, &call.Ref)
	if !ok {
		return
	}
	if _, err := newFilter(call.Include, call.Exclude); err != nil {
		s.fail(w, err)
		return
	}
	out := newStream(w)
	request := RolloutRequest{ref, canonicalPatterns(call.Include), canonicalPatterns(call.Exclude), call.Selector, call.Wait}
	t, err := s.opt.Rollout(r.Context(), request, func(t rollout.Table) { out.progress(streamLine{Rollout: &t}, true) })
	s.finish(out, streamLine{Rollout: &t}, err)
}

func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	s.fail(w, Errorf(Usage, "%s %s is not in version 1 of the control API", r.Method, r.URL.Path))
}

func readCall(r *http.Request, into any) error {
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxCall))
	if err != nil {
		return Errorf(Usage, "read request: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return Errorf(Usage, "read request: %w", err)
	}
	return nil
}

// readRef reads a call and the reference that it is about, which text is in call. When
// it is not ok it has answered.
func (s *Server) readRef(w http.ResponseWriter, r *http.Request, call any, text *string) (ref pieces.Ref, ok bool) {
	err := readCall(r, call)
	if err == nil {
		ref, err = parseRef(*text)
	}
	if err != nil {
		s.fail(w, err)
	}
	return ref, err == nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v) // a client that went away is no error of ours
}

// statusCodes are a courtesy to curl; our own client reads the kind.
var statusCodes = map[Kind]int{
	Usage: http.StatusBadRequest, NotFound: http.StatusNotFound, Denied: http.StatusForbidden,
	NoSpace: http.StatusInsufficientStorage, Stalled: http.StatusGatewayTimeout, Unreachable: http.StatusBadGateway,
	NoAgent: http.StatusServiceUnavailable,
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	e := s.agent.explain(err)
	w.Header().Set("Content-Type", "application/json")
	code, ok := statusCodes[e.Kind]
	if !ok {
		code = http.StatusInternalServerError
	}
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(errorAnswer{SchemaVersion, e.wire()})
}

// finish writes the last line of a stream.
func (s *Server) finish(out *stream, line streamLine, err error) {
	line.Type = typeResult
	if err != nil {
		line = streamLine{Type: typeError, Error: s.agent.explain(err).wire()}
	}
	out.write(line)
}

// stream writes lines of JSON, flushed one by one. Only the goroutine of the
// handler uses it.
type stream struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	last time.Time
	seen State
}

func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &stream{w: w, ctl: http.NewResponseController(w)}
}

// watch writes a line at a change of state and then about once a second.
func (s *stream) watch(j Job) {
	now := s.seen != j.Status
	s.seen = j.Status
	s.progress(streamLine{Job: &j}, now)
}

// progress writes the line when it is due: half of heartbeat leaves room for a
// late timer.
func (s *stream) progress(line streamLine, now bool) {
	if !now && time.Since(s.last) < heartbeat/2 {
		return
	}
	line.Type = typeProgress
	s.write(line)
}

func (s *stream) write(line streamLine) {
	line.SchemaVersion = SchemaVersion
	s.last = time.Now()
	s.ctl.SetWriteDeadline(s.last.Add(writeWait))
	if json.NewEncoder(s.w).Encode(line) == nil {
		s.ctl.Flush()
	}
}
