package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// gatewayRig is a member with its gateway, on loopback.
type gatewayRig struct {
	t   *testing.T
	m   *member
	dir string
	log *syncBuffer
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startGateway runs a member until the test's end: of a swarm of its own, unless
// more says otherwise.
func startGateway(t *testing.T, hubURL string, env map[string]string, more ...string) *gatewayRig {
	t.Helper()
	g := &gatewayRig{t: t, dir: t.TempDir(), log: &syncBuffer{}}
	args := []string{
		"--hub-endpoint", hubURL, "--hub-cache", g.dir + "/hub", "--state-dir", g.dir + "/state", "--bind", "127.0.0.1",
		"--gossip-port", "0", "--swarm-port", "0", "--gateway", "127.0.0.1:0", "--insecure",
	}
	s, err := load(t, append(args, more...), env, "")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if g.m, err = newMember(s, log, log); err != nil {
		t.Fatal(err)
	}
	l, err := g.m.listenGateway()
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.m.run(ctx, func(ctx context.Context) error { return g.m.serveGateway(ctx, l) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := g.m.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

func (g *gatewayRig) ask(method, path, token string) *http.Response {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, "http://"+g.m.gateway+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}).Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (g *gatewayRig) get(path, token string) (status int, code, body string) {
	g.t.Helper()
	resp := g.ask("GET", path, token)
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Error(path, err)
	}
	return resp.StatusCode, resp.Header.Get("X-Error-Code"), string(raw)
}

// settle waits until the jobs of these files have ended: a client has its last
// byte when the file is whole, just before it gets its name in the snapshot.
func (g *gatewayRig) settle(ref string, paths ...string) {
	g.t.Helper()
	parsed, err := pieces.ParseRef(ref)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, path := range paths {
		if _, err := g.m.agent.Ensure(g.t.Context(), agent.Request{Ref: parsed, Path: path}); err != nil {
			g.t.Error(err)
		}
	}
}

// What the real parts make of it: a cold file, then the finished one by sendfile,
// errors in the Hub's words, one copy from the Hub.
func TestGatewayOnAMember(t *testing.T) {
	hub := hubtest.New(hubtest.Options{})
	url := hub.Start(t)
	content := hubtest.Generated(7, 9<<20+5)
	want, err := io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		t.Fatal(err)
	}
	commit := hub.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: []hubtest.File{
		{Path: "w.safetensors", Content: content}, {Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))}, {Path: "empty", Content: hubtest.Bytes(nil)},
	}})
	g := startGateway(t, url, nil)
	if status, _, body := g.get("/org/model/resolve/main/config.json", ""); status != 200 || body != `{"a":1}` {
		t.Fatalf("%d %q", status, body)
	}
	for range 2 {
		if status, _, body := g.get("/org/model/resolve/main/w.safetensors", ""); status != 200 || body != string(want) {
			t.Errorf("%d, %d bytes, or other ones", status, len(body))
		}
	}
	if resp := g.ask("HEAD", "/org/model/resolve/main/empty", ""); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	for path, want := range map[string]string{
		"/org/model/resolve/main/none": "404 EntryNotFound", "/org/model/resolve/v9/config.json": "404 RevisionNotFound", "/org/none/resolve/main/f": "401 RepoNotFound",
	} {
		status, code, _ := g.get(path, "")
		if got := fmt.Sprint(status, " ", code); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	g.settle("org/model@"+string(commit), "w.safetensors", "config.json", "empty")
	if c := hub.Copies(); c != 1 {
		t.Errorf("%v copies", c)
	}
	if raw, err := os.ReadFile(g.dir + "/hub/models--org--model/refs/main"); err != nil || string(raw) != string(commit) {
		t.Errorf("refs/main %q %v", raw, err)
	}
	if entries, err := filepath.Glob(g.dir + "/hub/models--org--model/snapshots/*/*"); err != nil || len(entries) != 3 {
		t.Errorf("snapshot %q %v", entries, err)
	}
}

const (
	canary = "hf_canaryofacallercanary"
)

// freePort is a port that was free a moment ago, for TCP as for UDP.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			p.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// G18: the gateway keeps to loopback, and a caller's token to itself.
//
// Two members that have no token serve a gated and a private repository to callers
// with one, and refuse all others in the Hub's words; the Hub sends one copy. The
// token is found nowhere but at the Hub: not at its CDN, in no answer, in no log
// line of either member at debug level, in no file of theirs.
// (TestG18TokenBetweenMembers listens to what they say to each other.)
func TestG18CallersToken(t *testing.T) {
	hub := hubtest.New(hubtest.Options{Token: canary})
	url := hub.Start(t)
	files := []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("secret"))}, {Path: "w", Content: hubtest.Generated(1, 2<<20)}}
	commits := map[string]pieces.Commit{
		"org/gated":   hub.AddRepo(hubtest.RepoSpec{ID: "org/gated", Gated: true, Files: files}),
		"org/private": hub.AddRepo(hubtest.RepoSpec{ID: "org/private", Private: true, Files: files}),
	}
	port := freePort(t)
	rigs := []*gatewayRig{startGateway(t, url, nil, "--gossip-port", port), startGateway(t, url, nil, "--join", "127.0.0.1:"+port)}
	for _, g := range rigs {
		if !strings.HasPrefix(g.m.gateway, "127.0.0.1:") {
			t.Errorf("it listens on %s", g.m.gateway)
		}
		for _, c := range []struct{ token, repo, want string }{
			{"", "org/gated", "403 GatedRepo"}, {"hf_another", "org/gated", "401 Unauthorized"}, {canary, "org/gated", "200 "},
			{"", "org/private", "401 RepoNotFound"}, {"hf_another", "org/private", "401 Unauthorized"}, {canary, "org/private", "200 "},
			{"", "org/gated", "403 GatedRepo"}, {"", "org/private", "401 RepoNotFound"}, // also when it is here
		} {
			for _, path := range []string{"/" + c.repo + "/resolve/main/a", "/" + c.repo + "/resolve/main/w", "/api/models/" + c.repo + "/tree/main", "/api/models/" + c.repo + "/refs"} {
				status, code, body := g.get(path, c.token)
				if got := fmt.Sprint(status, " ", code); got != c.want {
					t.Errorf("%s by %q: %s, want %s", path, c.token, got, c.want)
				}
				if strings.Contains(body, canary) {
					t.Errorf("%s: the answer holds the token", path)
				}
			}
		}
		for repo, commit := range commits {
			g.settle(repo+"@"+string(commit), "a", "w")
		}
		g.holdsNothingOf(canary, "hf_another")
	}
	if s := hub.Stats(); s.TokensAtCDN != 0 || s.BodyBytes != 2<<20+6 {
		t.Errorf("%d requests with a token at the CDN; %d bytes sent", s.TokensAtCDN, s.BodyBytes)
	}
}

// holdsNothingOf looks for tokens in the log and in the files of a member.
func (g *gatewayRig) holdsNothingOf(tokens ...string) {
	g.t.Helper()
	text := g.log.String()
	if !strings.Contains(text, "job done") {
		g.t.Errorf("the log tells nothing: %s", text)
	}
	for _, token := range tokens {
		if strings.Contains(text, token) {
			g.t.Errorf("the log holds a token: %s", text)
		}
	}
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, token := range tokens {
			if bytes.Contains(raw, []byte(token)) {
				g.t.Errorf("%s holds a token", path)
			}
		}
		return err
	})
	if err != nil {
		g.t.Error(err)
	}
}

// X01, X02 end to end: the Hub speaks of Xet in listings and headers, the gateway
// does not.
func TestGatewayHidesXet(t *testing.T) {
	hub := hubtest.New(hubtest.Options{})
	url := hub.Start(t)
	hub.AddRepo(hubtest.RepoSpec{ID: "org/xet", Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}, Rows: []map[string]any{
		{"type": "file", "oid": strings.Repeat("ab", 20), "size": 5 << 20, "path": "w", "lfs": map[string]any{"oid": strings.Repeat("cd", 32), "size": 5 << 20}, "xetHash": strings.Repeat("ef", 32)},
	}})
	hub.Fail(hubtest.Fault{Do: hubtest.Headers, Header: map[string]string{
		"X-Xet-Hash": strings.Repeat("ef", 32), "X-Xet-Refresh-Route": "/api/models/org/xet/xet-read-token/main", "Link": `<https://cas.test/>; rel="xet-auth"`,
	}})
	g := startGateway(t, url, nil)
	for _, path := range []string{"/api/models/org/xet/tree/main", "/org/xet/resolve/main/a", "/org/xet/resolve/main/w"} {
		method := "GET"
		if strings.HasSuffix(path, "w") {
			method = "HEAD"
		}
		resp := g.ask(method, path, "")
		body, _ := io.ReadAll(resp.Body)
		if all := strings.ToLower(fmt.Sprint(resp.Header, string(body))); resp.StatusCode != 200 || strings.Contains(all, strings.Repeat("ef", 32)) || strings.Contains(all, "xet-") || strings.Contains(all, "xethash") {
			t.Errorf("%s: %s %s", path, resp.Status, all)
		}
	}
}

// What a client reads while it lands comes out of the Hub's store.
func TestGatewayReadsXet(t *testing.T) {
	hub := hubtest.New(hubtest.Options{Xet: &hubtest.Xet{}})
	url := hub.Start(t)
	content := hubtest.Generated(7, 9<<20+5)
	want, err := io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		t.Fatal(err)
	}
	commit := hub.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: []hubtest.File{{Path: "w", Content: content}}})
	g := startGateway(t, url, nil)
	if status, _, body := g.get("/org/model/resolve/main/w", ""); status != 200 || body != string(want) {
		t.Errorf("%d, %d bytes, or other ones", status, len(body))
	}
	g.settle("org/model@"+string(commit), "w")
	if s := hub.Stats(); s.BodyBytes != 0 || s.StoredBytes < content.Size() {
		t.Errorf("%d bytes by plain HTTP, %d from the store", s.BodyBytes, s.StoredBytes)
	}
}

// What the gateway's settings take, and the agent's own gateway as its Hub.
func TestGatewaySettings(t *testing.T) {
	self := map[string]string{"HF_ENDPOINT": "http://localhost:8090"}
	for _, c := range []struct {
		args []string
		env  map[string]string
		good bool
	}{
		{[]string{"--gateway", "nonsense"}, nil, false}, {[]string{"--gateway", "127.0.0.1:http"}, nil, false}, {[]string{"--gateway-open", "a/b/c/d"}, nil, false}, {[]string{"--gateway-xet", "huge"}, nil, true},
		{[]string{"--gateway", ""}, nil, true}, {[]string{"--gateway-open", "org/a,datasets/b"}, nil, true}, {[]string{"--gateway-open", "*"}, nil, true},
		{nil, self, false}, {[]string{"--gateway", "0.0.0.0:8090"}, self, false}, {[]string{"--hub-endpoint", "http://127.0.0.1:8090"}, nil, false},
		{[]string{"--gateway", "off"}, self, true}, {[]string{"--gateway", "127.0.0.1:1234"}, self, true}, {[]string{"--upstream=false"}, self, true},
	} {
		s, err := load(t, c.args, c.env, "")
		if err == nil {
			err = s.checkHub()
		}
		if (err == nil) != c.good || err != nil && exitCode(err) != 2 {
			t.Errorf("%q %v: %v", c.args, c.env, err)
		}
	}
}
