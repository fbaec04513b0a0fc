package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// witness is a server that remembers which requests carried a token, and where
// they went.
type witness struct {
	mu   sync.Mutex
	seen map[string]bool // path -> with token
}

func (w *witness) wrap(next http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.seen[r.URL.Path] = r.Header.Get("Authorization") == "Bearer "+secret
		w.mu.Unlock()
		next(rw, r)
	}
}

func withToken() (string, error) { return secret, nil }

// R14: the CDN is another host, and a token is set.
//
// No request to the CDN carries it.
func TestR14TokenStaysWithTheHub(t *testing.T) {
	leaktest.Check(t)
	s := hubtest.New(hubtest.Options{Token: secret})
	s.AddRepo(hubtest.RepoSpec{ID: "org/private", Files: model().Files, Private: true})
	c := newClient(t, hub.Options{Endpoint: s.Start(t), Token: withToken})
	if err := everything(t, c, ref("org/private")); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.TokensAtCDN != 0 || st.Calls[hubtest.CDN] == 0 {
		t.Errorf("%d of %d requests to the CDN (127.0.0.2) carried the token", st.TokensAtCDN, st.Calls[hubtest.CDN])
	}
}

// R14: a redirect to another port of the Hub's host, or to another name of it.
//
// For net/http these are the same host; no token goes there, and it is shown
// again to the Hub itself.
func TestR14OtherPortAndName(t *testing.T) {
	leaktest.Check(t)
	w := &witness{seen: make(map[string]bool)}
	sha := fmt.Sprintf(`{"sha":%q}`, strings.Repeat("a", 40))
	other := httptest.NewServer(w.wrap(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, sha) }))
	defer other.Close()
	var first *httptest.Server
	first = httptest.NewServer(w.wrap(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/port"):
			rw.Header().Set("Location", other.URL+"/to-port")
		case strings.HasSuffix(r.URL.Path, "/name"):
			rw.Header().Set("Location", strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/to-name")
		case strings.HasSuffix(r.URL.Path, "/back"):
			rw.Header().Set("Location", first.URL+"/to-back")
		case r.URL.Path == "/to-back":
			fmt.Fprint(rw, sha)
			return
		}
		rw.WriteHeader(http.StatusFound)
	}))
	defer first.Close()
	c := newClient(t, hub.Options{Endpoint: first.URL, Token: withToken})
	for _, revision := range []string{"port", "name", "back"} {
		if _, _, err := c.Resolve(t.Context(), ref("org/model@"+revision)); err != nil {
			t.Errorf("%s: %v", revision, err)
		}
	}
	for path, want := range map[string]bool{"/to-port": false, "/to-name": false, "/to-back": true, "/api/models/org/model/revision/port": true} {
		if got, asked := w.seen[path]; got != want || !asked {
			t.Errorf("%s: token %v, want %v; asked %v", path, got, want, asked)
		}
	}
}

// R14: a redirect to a sub-domain of the Hub's host.
//
// net/http would show the token there; here it stays with the Hub's own name.
func TestR14SubDomain(t *testing.T) {
	leaktest.Check(t)
	w := &witness{seen: make(map[string]bool)}
	srv := httptest.NewServer(w.wrap(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host == "hub.test" {
			http.Redirect(rw, r, "http://cdn.hub.test/away", http.StatusFound)
			return
		}
		fmt.Fprintf(rw, `{"sha":%q}`, strings.Repeat("a", 40))
	}))
	defer srv.Close()
	anyName := &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}}
	c := newClient(t, hub.Options{Endpoint: "http://hub.test", Token: withToken, Transport: anyName})
	if _, _, err := c.Resolve(t.Context(), ref("org/model")); err != nil {
		t.Error(err)
	}
	if shown, asked := w.seen["/away"]; shown || !asked || !w.seen["/api/models/org/model/revision/main"] {
		t.Errorf("with a token: %v", w.seen)
	}
}

// R10: the repository was renamed.
//
// The relative redirect is followed, and the outline keeps the name that was
// asked for. The log has both names.
func TestR10RenamedRepository(t *testing.T) {
	leaktest.Check(t)
	s := hubtest.New(hubtest.Options{Token: secret, PageSize: 2})
	commit := s.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: model().Files, Private: true})
	s.AddRepo(hubtest.RepoSpec{ID: "old/name", RenamedTo: "org/model"})
	var log bytes.Buffer
	c := newClient(t, hub.Options{Endpoint: s.Start(t), Token: withToken, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := everything(t, c, ref("old/name")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "asked=old/name is=org/model") {
		t.Errorf("the log lacks the names:\n%s", &log)
	}
	o, err := c.List(t.Context(), ref("old/name").Repo, commit)
	if err != nil || o.Repo.Name != "old/name" || len(o.Files) != 6 {
		t.Errorf("the outline keeps the name that was asked for: %v, %v", o, err)
	}
}

// R11: a branch moves after it was resolved.
//
// Listing and files are asked for by commit, so all come from the old one; the
// next resolve sees the new one.
func TestR11BranchMoves(t *testing.T) {
	leaktest.Check(t)
	s := hubtest.New(hubtest.Options{})
	first := s.AddRepo(model())
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	got, _, err := c.Resolve(t.Context(), ref("org/model"))
	if err != nil || got != first {
		t.Fatal(got, err)
	}
	second := s.Push("org/model", "main", []hubtest.File{{Path: "config.json", Content: hubtest.Bytes([]byte("new"))}})
	o, err := c.List(t.Context(), ref("org/model").Repo, got)
	if err != nil || len(o.Files) != 6 {
		t.Fatal(err)
	}
	if data, err := readAll(t, c, o, file(t, o, "config.json"), 0, 26); err != nil || string(data) == "new" {
		t.Errorf("got %q, %v", data, err)
	}
	if got, _, err := c.Resolve(t.Context(), ref("org/model")); err != nil || got != second || got == first {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRevisions(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	commit := s.AddRepo(model())
	s.AddRepo(hubtest.RepoSpec{ID: "gpt2", Files: model().Files})
	s.AddRepo(hubtest.RepoSpec{ID: "spaces/org/app", Files: model().Files})
	s.Tag("org/model", "v1+x", commit)
	s.Tag("org/model", "refs/pr/1", commit)
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	for _, r := range []string{"org/model@v1+x", "org/model@refs/pr/1", "gpt2", "spaces/org/app"} {
		if err := everything(t, c, ref(r)); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
	calls := s.Stats().Calls[hubtest.Info]
	if got, _, err := c.Resolve(t.Context(), ref("org/model@"+string(commit))); got != commit || err != nil || s.Stats().Calls[hubtest.Info] != calls {
		t.Errorf("a commit needs no request: %v, %v", got, err)
	}
}

// R16: the endpoint is a mirror below a path.
//
// Every URL keeps the path, those of redirects and further pages too.
func TestR16PathPrefix(t *testing.T) {
	leaktest.Check(t)
	s := hubtest.New(hubtest.Options{Prefix: "/hf", PageSize: 2})
	s.AddRepo(model())
	s.AddRepo(hubtest.RepoSpec{ID: "old/name", RenamedTo: "org/model"})
	c := newClient(t, hub.Options{Endpoint: s.Start(t) + "/"})
	for _, r := range []string{"org/model", "old/name"} {
		if err := everything(t, c, ref(r)); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
	if n := s.Stats().Status[404]; n != 0 {
		t.Errorf("%d requests went beside the prefix", n)
	}
}

func TestRedirectsThatAreRefused(t *testing.T) {
	for location, says := range map[string]string{
		"http://169.254.169.254/latest/meta-data": "link-local",
		"ftp://127.0.0.1/x":                       "only http and https",
		"http://u:p@127.0.0.1/x":                  "carries credentials",
		"/api/models/org/model/revision/main":     "more than 5 in a row",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		}))
		c := newClient(t, hub.Options{Endpoint: srv.URL, Token: withToken})
		_, _, err := c.Resolve(t.Context(), ref("org/model"))
		var refused *hub.RedirectError
		if !errors.As(err, &refused) || !hub.Permanent(err) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v", location, err)
		}
		srv.Close()
	}
}

// TestCaptivePortal: a redirect of everything to a login page elsewhere.
func TestCaptivePortal(t *testing.T) {
	portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, "<html>log in")
	}))
	defer portal.Close()
	front := httptest.NewServer(http.RedirectHandler(portal.URL, http.StatusFound))
	defer front.Close()
	c := newClient(t, hub.Options{Endpoint: front.URL, Retries: -1})
	if err := everything(t, c, ref("org/model")); err == nil || !strings.Contains(err.Error(), `content type "text/html"`) || hub.Permanent(err) {
		t.Errorf("got %v", err)
	}
}

// R15: where the token comes from.
//
// HF_TOKEN, HUGGING_FACE_HUB_TOKEN, the file of HF_TOKEN_PATH, $HF_HOME/token,
// in this order, without white space around it; no error holds it.
func TestR15TokenSources(t *testing.T) {
	leaktest.Check(t)
	dir := t.TempDir()
	home := filepath.Join(dir, "home")
	os.MkdirAll(filepath.Join(home, ".cache", "huggingface"), 0o755)
	write := func(name, token string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("token", "from-home\r\n")
	write("home/.cache/huggingface/token", "from-default\n")
	named := write("named", "  from-path\n")
	blank := write("blank", "\n")
	for _, tc := range []struct {
		env  map[string]string
		want string
		says string
	}{
		{map[string]string{"HF_TOKEN": " a\n", "HUGGING_FACE_HUB_TOKEN": "b", "HF_TOKEN_PATH": named, "HF_HOME": dir}, "a", ""},
		{map[string]string{"HF_TOKEN": " ", "HUGGING_FACE_HUB_TOKEN": "b", "HF_TOKEN_PATH": named, "HF_HOME": dir}, "b", ""},
		{map[string]string{"HF_TOKEN_PATH": named, "HF_HOME": dir}, "from-path", ""},
		{map[string]string{"HF_TOKEN_PATH": blank, "HF_HOME": dir}, "", ""},
		{map[string]string{"HF_HOME": dir, "HOME": home}, "from-home", ""},
		{map[string]string{"HOME": home}, "from-default", ""},
		{map[string]string{"XDG_CACHE_HOME": filepath.Join(home, ".cache")}, "from-default", ""},
		{map[string]string{"HF_HOME": filepath.Join(dir, "missing")}, "", ""},
		{map[string]string{}, "", ""},
		{map[string]string{"HF_TOKEN_PATH": filepath.Join(dir, "missing")}, "", "read token from " + filepath.Join(dir, "missing") + ": no such file"},
		{map[string]string{"HF_TOKEN_PATH": dir}, "", "is a directory"},
		{map[string]string{"HF_TOKEN": "two words"}, "", "read token from HF_TOKEN: holds white space"},
		{map[string]string{"HF_TOKEN": "hf_\x00secret"}, "", "control character"},
	} {
		got, err := hub.EnvToken(func(name string) string { return tc.env[name] })()
		if got != tc.want || (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v: got %q, %v", tc.env, got, err)
		}
		if err != nil && (!hub.Permanent(err) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "two words")) {
			t.Errorf("%v: %v", tc.env, err)
		}
	}
}

// R15: the token file can't be read.
//
// The error names the file, and the Hub is not asked without a token instead.
func TestR15UnreadableTokenFile(t *testing.T) {
	leaktest.Check(t)
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := hub.EnvToken(func(string) string { return path })(); err == nil {
		t.Error("no error")
	}
}

// TestTokenError: a token that can't be read ends the call before a request.
func TestTokenError(t *testing.T) {
	s, _, o := loopback(t, hub.Options{})
	source := hub.EnvToken(func(name string) string { return map[string]string{"HF_TOKEN_PATH": "/nonexistent/token"}[name] })
	c := newClient(t, hub.Options{Endpoint: s.Start(t), Token: source})
	var bad *hub.TokenError
	for _, err := range []error{api(t, c, o), open(t, c, o, shard), open(t, c, o, "config.json")} {
		if !errors.As(err, &bad) || bad.Source != "/nonexistent/token" || !hub.Permanent(err) {
			t.Errorf("got %v", err)
		}
	}
	if st := s.Stats(); len(st.Calls) != 0 {
		t.Errorf("calls %v", st.Calls)
	}
}

func open(t *testing.T, c *hub.Client, o *pieces.Outline, path string) error {
	_, err := readAll(t, c, o, file(t, o, path), 0, 1)
	return err
}
