package hubtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/pieces"
)

func spec() RepoSpec {
	return RepoSpec{ID: "org/m", Files: []File{
		{Path: "big.bin", Content: Generated(1, 2<<20)},
		{Path: "a/b/small.txt", Content: Bytes([]byte("small"))},
		{Path: "forced.bin", Content: Bytes([]byte("lfs")), Storage: InLFS},
		{Path: "plain.bin", Content: Generated(2, 2<<20), Storage: InGit},
	}}
}

// get follows redirects as a browser does.
func get(t *testing.T, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

func TestFilesAndStats(t *testing.T) {
	s := New(Options{})
	commit := s.AddRepo(spec())
	url := s.Start(t)
	for _, f := range s.Outline("org/m", commit).Files {
		resp, data, err := get(t, url+"/org/m/resolve/main/"+f.Path)
		h := f.Blob.NewHash()
		h.Write(data)
		if err != nil || f.Blob.Check(h) != nil {
			t.Errorf("%s: %d bytes, %v", f.Path, len(data), err)
		}
		if fromCDN := strings.HasPrefix(resp.Request.URL.Host, "127.0.0.2"); fromCDN != f.LFS() {
			t.Errorf("%s came from %s", f.Path, resp.Request.URL.Host)
		}
	}
	st := s.Stats()
	if st.Copies != 1 || st.MaxCoverage != 1 || st.BodyBytes != 4<<20+8 || s.Copies() != 1 {
		t.Errorf("%+v", st)
	}
	get(t, url+"/org/m/resolve/main/big.bin", "Range", "bytes=10-19")
	get(t, url+"/org/m/resolve/main/big.bin", "Range", "bytes=15-24")
	if got := s.Stats().Files["org/m/big.bin"]; got != (FileStats{Size: 2 << 20, Bytes: 2<<20 + 20, Distinct: 2 << 20, Max: 3, Requests: 3}) {
		t.Errorf("%+v", got)
	}
	if s.MaxCoverage("big.bin") != 3 || s.MaxCoverage("small.txt") != 1 || s.MaxCoverage("other") != 0 {
		t.Error("coverage by file")
	}
	s.ResetStats()
	if st := s.Stats(); st.BodyBytes != 0 || len(st.Calls) != 0 || st.Copies != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRangesOfOneFile(t *testing.T) {
	s := New(Options{})
	s.AddRepo(spec())
	url := s.Start(t) + "/org/m/resolve/main/a/b/small.txt"
	for spec, want := range map[string]struct {
		status int
		body   string
	}{
		"bytes=0-0": {206, "s"}, "bytes=1-2": {206, "ma"}, "bytes=3-": {206, "ll"}, "bytes=-2": {206, "ll"}, "bytes=0-99": {206, "small"},
		"bytes=-99": {206, "small"}, "bytes=5-": {416, ""}, "bytes=2-1": {416, ""}, "bytes=-0": {416, ""}, "bytes=x": {416, ""}, "lines=1-2": {416, ""},
	} {
		resp, data, err := get(t, url, "Range", spec)
		if err != nil || resp.StatusCode != want.status || want.status == 206 && string(data) != want.body {
			t.Errorf("%s: %d %q, %v", spec, resp.StatusCode, data, err)
		}
	}
}

// TestFaults: every fault does what its name says, to the request it is for.
func TestFaults(t *testing.T) {
	const size = 2 << 20
	for _, tc := range []struct {
		name   string
		fault  Fault
		status int
		bytes  int
		is     error
	}{
		{"none", Fault{Do: Headers}, 200, size, nil},
		{"cut", Fault{Do: Cut, At: 1000}, 200, 1000, io.ErrUnexpectedEOF},
		{"cut at once", Fault{Do: Cut}, 200, 0, io.ErrUnexpectedEOF},
		{"truncate", Fault{Do: Truncate}, 200, size - 7, nil},
		{"truncate by more", Fault{Do: Truncate, At: 100}, 200, size - 100, nil},
		{"wrong", Fault{Do: Wrong, At: 5, Len: 3}, 200, size, errWrong},
		{"expired", Fault{Do: Expired}, 403, 34, nil},
		{"login", Fault{Do: Login}, 200, 52, nil},
		{"status", Fault{Do: Status, Status: 503, Code: "X", Message: "m"}, 503, 13, nil},
		{"gzip", Fault{Do: Gzip, Header: map[string]string{"X-Seen": "yes"}}, 200, size, nil},
		{"slow", Fault{Do: Slow, At: size - 2, Rate: 1, Every: time.Millisecond}, 200, size, nil},
		{"reset", Fault{Do: Reset, At: size / 2}, 200, -1, syscall.ECONNRESET},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := New(Options{})
			s.AddRepo(spec())
			url := s.Start(t) + "/org/m/resolve/main/big.bin"
			tc.fault.Route, tc.fault.Path, tc.fault.Nth = CDN, "*.bin", 2
			hits := s.Fail(tc.fault)
			if resp, data, err := get(t, url); err != nil || resp.StatusCode != 200 || len(data) != size || hits() != 0 {
				t.Fatalf("the first request is fine: %d bytes, %v", len(data), err)
			}
			resp, data, err := get(t, url, "Accept-Encoding", "identity")
			if err == nil && !bytes.Equal(data, want(size)) && len(data) == size {
				err = errWrong
			}
			if resp.StatusCode != tc.status || tc.bytes >= 0 && len(data) != tc.bytes || !errors.Is(err, tc.is) || hits() != 1 {
				t.Errorf("%d, %d bytes, %v, %d hits", resp.StatusCode, len(data), err, hits())
			}
			if h := tc.fault.Header["X-Seen"]; resp.Header.Get("X-Seen") != h || (tc.fault.Do == Gzip) != (resp.Header.Get("Content-Encoding") == "gzip") {
				t.Errorf("headers %v", resp.Header)
			}
			if resp, data, err := get(t, url); err != nil || resp.StatusCode != 200 || len(data) != size {
				t.Errorf("the third request is fine: %d bytes, %v", len(data), err)
			}
		})
	}
}

var errWrong = errors.New("wrong bytes")

func want(size int64) []byte {
	b := make([]byte, size)
	Generated(1, size).ReadAt(b, 0)
	return b
}

func TestFaultCounts(t *testing.T) {
	for _, tc := range []struct {
		f    Fault
		want string // of six requests
	}{
		{Fault{}, "xxxxxx"}, {Fault{Nth: 3}, "..x..."}, {Fault{Nth: 2, Count: 3}, ".xxx.."}, {Fault{Count: 2}, "xx...."},
		{Fault{Path: "other"}, "......"}, {Fault{Route: Head}, "......"}, {Fault{Repo: "org/x"}, "......"}, {Fault{Repo: "org/m", Path: "a/*/small.*"}, "xxxxxx"},
	} {
		s := New(Options{})
		tc.f.Do = Login
		s.Fail(tc.f)
		got := ""
		for range 6 {
			got += map[bool]string{true: "x", false: "."}[s.match(call{route: Get, repo: pieces.Repo{Name: "org/m"}, path: "a/b/small.txt"}) != nil]
		}
		if got != tc.want {
			t.Errorf("%+v: got %s, want %s", tc.f, got, tc.want)
		}
	}
}

func TestSilenceEnds(t *testing.T) {
	for _, kind := range []Kind{Silent, Stall, Slow} {
		synctest.Test(t, func(t *testing.T) {
			s := New(Options{})
			s.AddRepo(spec())
			s.Fail(Fault{Do: kind, Route: CDN, At: 10, Rate: 1})
			client := &http.Client{Transport: s.Memory(t).Transport(t)}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, MemoryHub+"/org/m/resolve/main/big.bin", nil)
			resp, err := client.Do(req)
			var data []byte
			if err == nil {
				data, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if !errors.Is(err, context.DeadlineExceeded) || kind == Stall && len(data) != 10 || kind == Slow && (len(data) < 3600 || len(data) > 3610) {
				t.Errorf("%s: %d bytes, %v", kind, len(data), err)
			}
			synctest.Wait()
			if n := s.Stats().Open; n != 0 {
				t.Errorf("%s: %d responses left open", kind, n)
			}
		})
	}
}

func TestSignedURLs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{SignedFor: time.Minute})
		s.AddRepo(spec())
		s.SetCDN("http://cdn")
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, httptest.NewRequest(http.MethodHead, "/org/m/resolve/main/big.bin", nil))
		location := rec.Header().Get("Location")
		ask := func(url string) int {
			rec := httptest.NewRecorder()
			s.CDN().ServeHTTP(rec, httptest.NewRequest(http.MethodHead, url, nil))
			return rec.Code
		}
		if got := ask(location); got != 200 {
			t.Errorf("fresh: %d", got)
		}
		for _, forged := range []string{
			strings.Replace(location, "Expires=", "Expires=9", 1), strings.Replace(location, "Signature=", "Signature=x", 1), strings.Split(location, "?")[0],
		} {
			if got := ask(forged); got != 403 {
				t.Errorf("forged: %d", got)
			}
		}
		if got := ask("http://cdn/org/m/" + strings.Repeat("0", 64) + "/big.bin"); got != 404 {
			t.Errorf("unknown: %d", got)
		}
		time.Sleep(time.Minute)
		if got := ask(location); got != 403 {
			t.Errorf("after a minute: %d", got)
		}
	})
}

func TestRoutes(t *testing.T) {
	model, data := pieces.Repo{Name: "org/m"}, pieces.Repo{Kind: pieces.Dataset, Name: "d"}
	const c = "0123456789abcdef0123456789abcdef01234567"
	for _, tc := range []struct {
		path string
		want call
	}{
		{"/api/models/org/m", call{route: Info, repo: model, revision: "main"}},
		{"/api/models/org/m/revision/refs%2Fpr%2F1", call{route: Info, repo: model, revision: "refs/pr/1"}},
		{"/api/datasets/d", call{route: Info, repo: data, revision: "main"}},
		{"/api/datasets/d/tree/main/a%2Fb", call{route: Tree, repo: data, revision: "main", path: "a/b"}},
		{"/api/models/org/m/tree/refs/pr/1/a", call{route: Tree, repo: model, revision: "refs/pr/1", path: "a"}},
		{"/api/models/org/m/paths-info/main", call{route: Paths, repo: model, revision: "main"}},
		{"/api/models/org/m/refs", call{route: Refs, repo: model, revision: "main"}},
		{"/org/m/resolve/main/a%20b/c", call{route: Get, repo: model, revision: "main", path: "a b/c"}},
		{"/m/resolve/main/resolve/x", call{route: Get, repo: pieces.Repo{Name: "m"}, revision: "main", path: "resolve/x"}},
		{"/datasets/d/resolve/main/x", call{route: Get, repo: data, revision: "main", path: "x"}},
		{"/org/m/raw/main/x", call{route: Get, repo: model, revision: "main", path: "x"}},
		{"/api/resolve-cache/models/org/m/" + c + "/a/b", call{route: Cache, repo: model, revision: c, path: "a/b"}},
		{"/api/resolve-cache/datasets/d/" + c + "/x", call{route: Cache, repo: data, revision: c, path: "x"}},
		{"/api/whoami-v2", call{route: Whoami}},
		{"/api/whoami-v3", call{route: Unknown}},
		{"/api/models/org/m/commits/main", call{route: Unknown}},
		{"/api/models/org/m/xet-read-token/main", call{route: Unknown}},
		{"/", call{route: Unknown}},
		{"/org/m/resolve/main", call{route: Unknown}},
	} {
		got := parse(http.MethodGet, tc.path)
		got.prefix, got.suffix = "", ""
		if got != tc.want {
			t.Errorf("%s: got %+v, want %+v", tc.path, got, tc.want)
		}
	}
}

// TestForeignForms: what other clients than ours ask for.
func TestForeignForms(t *testing.T) {
	s := New(Options{})
	commit := s.AddRepo(spec())
	s.Tag("org/m", "v1", commit)
	s.Tag("org/m", "refs/pr/1", commit)
	ask := func(method, path, kind, body string) string {
		req := httptest.NewRequest(method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", kind)
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, req)
		return rec.Body.String()
	}
	python := ask("POST", "/api/models/org/m/paths-info/main", "application/x-www-form-urlencoded", "paths=forced.bin&paths=missing&expand=false")
	script := ask("POST", "/api/models/org/m/paths-info/main", "application/json", `{"paths":["forced.bin"],"expand":true}`)
	if python != script || !strings.Contains(python, `"path":"forced.bin"`) || strings.Contains(python, "missing") {
		t.Errorf("%s\n%s", python, script)
	}
	if flat := ask("GET", "/api/models/org/m/tree/main?recursive=False", "", ""); !strings.Contains(flat, `"path":"a"`) || strings.Contains(flat, "a/b") {
		t.Error(flat)
	}
	if sub := ask("GET", "/api/models/org/m/tree/main/a?recursive=True", "", ""); !strings.Contains(sub, `"path":"a/b"`) || !strings.Contains(sub, "small.txt") || strings.Contains(sub, "big") {
		t.Error(sub)
	}
	if refs := ask("GET", "/api/models/org/m/refs", "", ""); !strings.Contains(refs, `"name":"v1"`) || !strings.Contains(refs, `"name":"main"`) || !strings.Contains(refs, `"converts":[]`) {
		t.Error(refs)
	}
}

func TestControl(t *testing.T) {
	s := New(Options{})
	s.AddRepo(spec())
	url := s.Start(t)
	post := func(method, path, body string) int {
		req, _ := http.NewRequest(method, url+path, strings.NewReader(body))
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post("POST", "/-/faults", `{"do":"status","status":500,"route":"info"}`); got != 204 {
		t.Error(got)
	}
	if got := post("POST", "/-/faults", `{}`); got != 400 {
		t.Error(got)
	}
	if resp, _, err := get(t, url+"/api/models/org/m"); err != nil || resp.StatusCode != 500 {
		t.Errorf("%v, %v", resp, err)
	}
	for _, c := range [][2]string{{"DELETE", "/-/faults"}, {"POST", "/-/expire"}} {
		if got := post(c[0], c[1], ""); got != 204 {
			t.Errorf("%v: %d", c, got)
		}
	}
	if resp, _, err := get(t, url+"/api/models/org/m"); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, %v", resp, err)
	}
	_, data, err := get(t, url+"/-/stats")
	var st Stats
	if json.Unmarshal(data, &st) != nil || err != nil || st.Calls[Info] != 2 || st.Status[500] != 1 || st.APICalls() != 2 {
		t.Errorf("%s, %v", data, err)
	}
	if got := post("POST", "/-/reset", ""); got != 204 || len(s.Stats().Calls) != 0 {
		t.Error(got)
	}
	if got := post("GET", "/-/other", ""); got != 404 {
		t.Error(got)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func TestServeEndsWithItsContext(t *testing.T) {
	s := New(Options{})
	s.AddRepo(spec())
	s.Fail(Fault{Do: Silent, Route: Info})
	var ls [2]net.Listener
	for i := range ls {
		var err error
		if ls[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ls[0], ls[1]) }()
	asked := make(chan error)
	go func() { _, _, err := get(t, "http://"+ls[0].Addr().String()+"/api/models/org/m"); asked <- err }()
	if _, data, err := get(t, "http://"+ls[0].Addr().String()+"/org/m/resolve/main/forced.bin"); err != nil || string(data) != "lfs" {
		t.Errorf("%q, %v", data, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := <-asked; err == nil {
		t.Error("a silent response became an answer")
	}
}

// BenchmarkServe is what a node can be fed with: nothing is hashed or copied.
func BenchmarkServe(b *testing.B) {
	c := Generated(1, 60<<30)
	b.SetBytes(64 << 20)
	for b.Loop() {
		writeRange(io.Discard, c, 12345, 64<<20)
	}
}
