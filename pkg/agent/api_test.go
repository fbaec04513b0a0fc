package agent_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
)

// lone is a swarm of one without a network: the control API needs real sockets,
// which a bubble does not have.
type lone struct{ cache *cachefs.Cache }

func (lone) Settled(context.Context) error { return nil }
func (lone) Offer([]pieces.Blob)           {}
func (lone) Withdraw([]pieces.Blob)        {}
func (lone) Doubt(pieces.Blob, []int)      {}

func (lone) Record(ctx context.Context, _ string, _ time.Duration, get func(context.Context) ([]byte, error)) ([]byte, error) {
	if get == nil {
		return nil, swarm.ErrNoRecord
	}
	return get(ctx)
}

func (l lone) Fetch(ctx context.Context, t agent.Transfer, report func(agent.Progress)) error {
	need := func(b pieces.Blob, i int) bool { return !l.cache.Held(b).Has(i) }
	for _, e := range t.Extents {
		if err := t.Upstream.Fetch(ctx, e, need, l.cache.Put, nil); err != nil {
			return err
		}
	}
	for _, b := range t.Blobs {
		if err := l.cache.Complete(ctx, b); err != nil {
			return err
		}
	}
	report(agent.Progress{})
	return nil
}

// server is an agent with its control socket.
type server struct {
	*agent.Client
	hub  *hubtest.Server
	path string
	stop func()
}

func serve(t *testing.T) *server {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	dir := t.TempDir()
	cache, err := cachefs.Open(cachefs.Options{Hub: filepath.Join(dir, "hub"), State: filepath.Join(dir, "state"), Signer: pieces.NewSigner(key)})
	must(t, err)
	s := &server{hub: hubtest.New(hubtest.Options{}), path: filepath.Join(dir, "sock", "agent.sock")}
	client, err := hub.New(hub.Options{Endpoint: s.hub.Start(t), Retries: -1})
	must(t, err)
	a, err := agent.New(agent.Options{
		Cache: cache, Swarm: lone{cache}, Rights: agent.Rights{Hub: client}, As: func(token string) agent.Rights { return agent.Rights{Hub: client.As(token)} }, Classify: classify, Seeder: seeder.New(seeder.Options{Signer: pieces.NewSigner(key), GiveUp: 1}),
		About: func() agent.About { return agent.About{PID: os.Getpid(), HubCache: dir} },
		Hint:  func(error) string { return "a hint" },
		Peers: func() []agent.Peer { return []agent.Peer{{Name: "n1"}, {Name: "n2", Banned: "lied"}} },
	})
	must(t, err)
	l, err := agent.Listen(s.path)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{cache.Run, a.Run, func(ctx context.Context) error { return agent.NewServer(a, agent.ServerOptions{}).Serve(ctx, l) }} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	s.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		client.CloseIdle()
		must(t, cache.Close())
	})
	t.Cleanup(s.stop)
	s.Client = agent.NewClient(s.path)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) model() {
	s.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: []hubtest.File{
		{Path: "w.bin", Content: hubtest.Generated(9, 3<<20)}, {Path: "config.json", Content: hubtest.Bytes([]byte("{}"))},
	}})
}

func refTo(t *testing.T, s string) pieces.Ref {
	ref, err := pieces.ParseRef(s)
	must(t, err)
	return ref
}

func TestAPI(t *testing.T) {
	s := serve(t)
	s.model()
	ctx := t.Context()
	ref := refTo(t, "org/m")

	var states []agent.State
	res, err := s.Ensure(ctx, agent.Request{Ref: ref, Watch: func(v agent.Job) { states = append(states, v.Status) }})
	must(t, err)
	if res.Files != 2 || res.Total != 3<<20+2 || len(states) == 0 {
		t.Errorf("result %+v after %q", res, states)
	}
	if _, err := os.Stat(filepath.Join(res.Path, "config.json")); err != nil {
		t.Error(err)
	}

	st, err := s.Status(ctx)
	if err != nil || st.SchemaVersion != 1 || st.PID != os.Getpid() || st.Members != 1 || len(st.Banned) != 1 || !st.Settled {
		t.Errorf("status %+v, %v", st, err)
	}
	jobs, err := s.Jobs(ctx)
	if err != nil || len(jobs) != 1 || jobs[0].Status != agent.Done || jobs[0].Path != res.Path {
		t.Errorf("jobs %+v, %v", jobs, err)
	}
	if peers, err := s.Peers(ctx); err != nil || len(peers) != 2 {
		t.Errorf("peers %+v, %v", peers, err)
	}
	list, err := s.List(ctx)
	if err != nil || len(list) != 1 || list[0].Ref != "org/m@main" || !list[0].Complete {
		t.Errorf("list %+v, %v", list, err)
	}
	shown, files, err := s.Show(ctx, ref)
	if err != nil || shown.Path != res.Path || len(files) != 2 {
		t.Errorf("show %+v %+v, %v", shown, files, err)
	}
	if p, err := s.Pin(ctx, ref); err != nil || p.Ref != "org/m@main" || p.Commit != res.Commit || len(p.By) != 1 {
		t.Errorf("pin %+v, %v", p, err)
	}
	if p, err := s.Unpin(ctx, ref); err != nil || len(p.By) != 0 {
		t.Errorf("unpin %+v, %v", p, err)
	}
	if problems, err := s.Verify(ctx, ref, nil); err != nil || len(problems) != 0 {
		t.Errorf("verify %+v, %v", problems, err)
	}
	damage(t, filepath.Join(res.Path, "w.bin"))
	if problems, err := s.Verify(ctx, ref, nil); err != nil || len(problems) != 1 || problems[0].Path != "w.bin" {
		t.Errorf("verify %+v, %v", problems, err)
	}
	if r, err := s.Remove(ctx, agent.RemoveRequest{Ref: ref, DryRun: true}); err != nil || !r.DryRun || r.Freed == 0 {
		t.Errorf("dry run %+v, %v", r, err)
	}
	if r, err := s.Remove(ctx, agent.RemoveRequest{Ref: ref}); err != nil || r.DryRun || r.Freed == 0 {
		t.Errorf("remove %+v, %v", r, err)
	}

	seeded, err := s.Seed(ctx, agent.SeedRequest{Ref: refTo(t, "me/own"), Dir: writeDir(t, map[string]string{"a": "b"})})
	if err != nil || seeded.Files != 1 {
		t.Errorf("seed %+v, %v", seeded, err)
	}
}

// damage flips a byte of a file behind a link, keeping its length.
func damage(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	b := []byte{0}
	_, err = f.ReadAt(b, 1000)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, 1000)
	must(t, err)
}

// Errors keep their kind and hint over the socket.
func TestAPIErrors(t *testing.T) {
	s := serve(t)
	ctx := t.Context()
	for what, call := range map[string]func() error{
		"fetch":  func() error { _, err := s.Ensure(ctx, agent.Request{Ref: refTo(t, "org/none")}); return err },
		"show":   func() error { _, _, err := s.Show(ctx, refTo(t, "org/none")); return err },
		"verify": func() error { _, err := s.Verify(ctx, refTo(t, "org/none"), nil); return err },
		"remove": func() error { _, err := s.Remove(ctx, agent.RemoveRequest{Ref: refTo(t, "org/none")}); return err },
	} {
		err := call()
		e, ok := errors.AsType[*agent.Error](err)
		if !ok || e.Kind != agent.NotFound || e.Hint != "a hint" || !strings.Contains(e.Message, "org/none") {
			t.Errorf("%s: %#v", what, err)
		}
	}
}

// What other programs see of the socket: version in path and answer, errors in
// one form, a stream of lines with a final one.
func TestAPIRaw(t *testing.T) {
	s := serve(t)
	s.model()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	}}}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v1/status", "", 200, `"schema_version":1`},
		{"GET", "/v1/jobs", "", 200, `"jobs":[]`},
		{"GET", "/v1/snapshots", "", 200, `"snapshots":[]`},
		{"GET", "/v1/snapshot?ref=org/none", "", 404, `"kind":"not_found"`},
		{"GET", "/v1/snapshot?ref=..%2F..", "", 400, `"kind":"usage"`},
		{"GET", "/v2/status", "", 400, `not in version 1`},
		{"POST", "/v1/status", "", 400, `not in version 1`},
		{"POST", "/v1/fetch", "{", 400, `"kind":"usage"`},
		{"POST", "/v1/fetch", `{"ref":"a/b/c/d"}`, 400, `"kind":"usage"`},
		{"POST", "/v1/fetch", `{"ref":"org/none"}`, 200, `"type":"error","error":{"kind":"not_found"`},
		{"POST", "/v1/fetch", `{"ref":"org/m"}`, 200, `"type":"result"`},
		{"POST", "/v1/fetch", `{"ref":"org/m","include":["` + strings.Repeat("x", 1<<20) + `"]}`, 400, `"kind":"usage"`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://agent"+c.path, strings.NewReader(c.body))
		must(t, err)
		resp, err := client.Do(req)
		must(t, err)
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		must(t, err)
		if resp.StatusCode != c.status || !strings.Contains(string(raw), c.want) {
			t.Errorf("%s %s: %s %s", c.method, c.path, resp.Status, raw)
		}
		for lines := bufio.NewScanner(strings.NewReader(string(raw))); lines.Scan(); {
			var v struct {
				SchemaVersion int `json:"schema_version"`
			}
			if err := json.Unmarshal(lines.Bytes(), &v); err != nil || v.SchemaVersion != 1 {
				t.Errorf("%s %s: line %s: %v", c.method, c.path, lines.Text(), err)
			}
		}
	}
}

// A client that goes away leaves the job running; the end of the agent reaches
// clients as such.
func TestAPIDisconnect(t *testing.T) {
	s := serve(t)
	s.model()
	s.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN})
	ctx, leave := context.WithCancelCause(t.Context())
	_, err := s.Ensure(ctx, agent.Request{Ref: refTo(t, "org/m"), Watch: func(v agent.Job) {
		if v.Status == agent.Fetching {
			leave(errGone)
		}
	}})
	if !errors.Is(err, errGone) {
		t.Fatalf("left with %v", err)
	}
	jobs, err := s.Jobs(t.Context())
	if err != nil || len(jobs) != 1 || jobs[0].Ended() {
		t.Fatalf("jobs %+v, %v", jobs, err)
	}
	stop := sync.OnceFunc(func() { go s.stop() })
	_, err = s.Ensure(t.Context(), agent.Request{Ref: refTo(t, "org/m"), Watch: func(agent.Job) { stop() }})
	if e, ok := errors.AsType[*agent.Error](err); !ok || e.Kind != agent.NoAgent {
		t.Errorf("the agent stopped: %v", err)
	}
	s.stop()
	if _, err := s.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "no agent on "+s.path) {
		t.Errorf("stopped agent: %v", err)
	}
}

func TestListen(t *testing.T) {
	s := serve(t)
	info, err := os.Lstat(s.path)
	must(t, err)
	if info.Mode().Perm() != 0o660 || info.Mode().Type() != os.ModeSocket {
		t.Errorf("socket mode %v", info.Mode())
	}
	_, err = agent.Listen(s.path)
	if e, ok := errors.AsType[*agent.RunningError](err); !ok || e.PID != os.Getpid() {
		t.Errorf("second agent: %v", err)
	}
	s.stop()
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v", err)
	}

	// A socket that nobody serves any more, as kill -9 leaves it.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path, Net: "unix"})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := agent.Listen(s.path)
	must(t, err)
	must(t, l.Close())

	must(t, os.WriteFile(s.path, []byte("mine"), 0o600))
	if _, err := agent.Listen(s.path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if _, err := agent.Listen("/tmp/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("long path: %v", err)
	}
}
