package xet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/leaktest"
	"p2pagent/internal/stall"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/xet"
)

// world is a Hub with a store, and a client of it.
type world struct {
	t       *testing.T
	hub     *hubtest.Server
	http    http.RoundTripper
	commit  pieces.Commit
	outline *pieces.Outline
	content map[string]hubtest.Content
	client  *xet.Client
	log     *lines

	mu      sync.Mutex
	tokens  int
	plain   []string // paths that were opened by plain HTTP
	doubted map[pieces.Blob][]int
}

// inWorld runs test in a bubble. files are stored in LFS.
func inWorld(t *testing.T, o hubtest.Xet, files []hubtest.File, test func(t *testing.T, w *world)) {
	t.Helper()
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, content: make(map[string]hubtest.Content), doubted: make(map[pieces.Blob][]int), log: &lines{}}
		w.hub = hubtest.New(hubtest.Options{LFSAbove: 1, Xet: &o})
		memory := w.hub.Memory(t)
		w.http = memory.Transport(t)
		w.push(files)
		w.client = w.newClient(nil)
		test(t, w)
	})
}

func (w *world) push(files []hubtest.File) {
	w.commit = w.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: files})
	w.outline = w.hub.Outline("org/m", w.commit)
	for _, f := range files {
		w.content[f.Path] = f.Content
	}
}

func (w *world) newClient(change func(*xet.Options)) *xet.Client {
	o := xet.Options{Grant: w.grant, Transport: w.http, Insecure: true, Logger: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&o)
	}
	c, err := xet.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) get(ctx context.Context, url string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	return w.http.RoundTrip(req)
}

// grant asks the Hub as pkg/hub does.
func (w *world) grant(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (xet.Grant, error) {
	w.mu.Lock()
	w.tokens++
	w.mu.Unlock()
	resp, err := w.get(ctx, fmt.Sprintf("%s/api/%s/%s/xet-read-token/%s", hubtest.MemoryHub, repo.Kind.Plural(), repo.Name, commit), http.Header{})
	if err != nil {
		return xet.Grant{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return xet.Grant{}, fmt.Errorf("token: status %d", resp.StatusCode)
	}
	var said struct {
		AccessToken, CasURL string
		Exp                 int64
	}
	if err := json.NewDecoder(resp.Body).Decode(&said); err != nil {
		return xet.Grant{}, err
	}
	return xet.Grant{Token: said.AccessToken, CAS: said.CasURL, Life: time.Until(time.Unix(said.Exp, 0))}, nil
}

// Open implements xet.Plain by plain HTTP.
func (w *world) Open(ctx context.Context, b pieces.Blob, off, n int64) (io.ReadCloser, error) {
	f := w.outline.Files[slices.IndexFunc(w.outline.Files, func(f pieces.File) bool { return f.Blob == b })]
	w.mu.Lock()
	w.plain = append(w.plain, f.Path)
	w.mu.Unlock()
	resp, err := w.get(ctx, fmt.Sprintf("%s/%s/resolve/%s/%s", hubtest.MemoryHub, w.outline.Repo.Name, w.commit, f.Path), http.Header{})
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	resp, err = w.get(ctx, resp.Header.Get("Location"), http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, off+n-1)}})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusPartialContent {
		resp.Body.Close()
		return nil, fmt.Errorf("plain: status %d", resp.StatusCode)
	}
	return stall.NewReader(resp.Body, xet.DefaultLimits), nil
}

func (w *world) source(change func(*xet.SourceOptions)) *xet.Source {
	o := xet.SourceOptions{Outline: w.outline, Plain: w, Doubt: func(b pieces.Blob, indexes []int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.doubted[b] = append(w.doubted[b], indexes...)
	}}
	if change != nil {
		change(&o)
	}
	return w.client.NewSource(o)
}

func (w *world) file(path string) pieces.File {
	i := slices.IndexFunc(w.outline.Files, func(f pieces.File) bool { return f.Path == path })
	if i < 0 {
		w.t.Fatalf("no file %s", path)
	}
	return w.outline.Files[i]
}

// read opens a range and reads it to its end.
func (w *world) read(s *xet.Source, path string, off, n int64) ([]byte, error) {
	rc, err := s.Open(w.t.Context(), w.file(path).Blob, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// check reads a range and compares it.
func (w *world) check(s *xet.Source, path string, off, n int64) {
	w.t.Helper()
	got, err := w.read(s, path, off, n)
	if err != nil || !bytes.Equal(got, w.want(path, off, n)) {
		w.t.Errorf("%s %d+%d: %d bytes, %v", path, off, n, len(got), err)
	}
}

func (w *world) want(path string, off, n int64) []byte {
	want := make([]byte, n)
	w.content[path].ReadAt(want, off)
	return want
}

func (w *world) checkAll(s *xet.Source) {
	w.t.Helper()
	for _, f := range w.outline.Files {
		w.check(s, f.Path, 0, f.Blob.Size)
	}
}

// resume reads a file as a seeder does: after an error it goes on at the first
// byte that is missing, or, when what came is tainted, from the start of the piece.
func (w *world) resume(s *xet.Source, path string, tries int) (data []byte, err error) {
	f := w.file(path)
	for range tries {
		var part []byte
		part, err = w.read(s, path, int64(len(data)), f.Blob.Size-int64(len(data)))
		data = append(data, part...)
		if err == nil {
			return data, nil
		}
		if tainted(err) {
			data = data[:0]
		}
		time.Sleep(time.Second)
	}
	return data, err
}

// tainted tells whether what came before an error is not to be used.
func tainted(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Tainted() bool
	}](err)
	return ok && e.Tainted()
}

func (w *world) wantPlain(n int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.plain) != n {
		w.t.Errorf("%d ranges by plain HTTP, want %d: %v", len(w.plain), n, w.plain)
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// weights are n bytes that compress once they are grouped, text such that compress
// as they are; both differ by seed.
func weights(seed uint64, n int64) hubtest.Content {
	raw := make([]byte, n)
	hubtest.Generated(seed, n).ReadAt(raw, 0)
	for i := 1; i < len(raw); i += 2 {
		raw[i] = 0x3c | raw[i]&1
	}
	return hubtest.Bytes(raw)
}

func text(seed uint64, n int64) hubtest.Content {
	var b bytes.Buffer
	for i := seed * 1_000_000; int64(b.Len()) < n; i++ {
		fmt.Fprintf(&b, "{\"token\": %d, \"text\": \"word%d\"}\n", i, i%977)
	}
	return hubtest.Bytes(b.Bytes()[:n])
}

const mib = 1 << 20

// mixed has a file for each scheme, in xorbs that files share.
func mixed() []hubtest.File { return slices.Clone(mixedFiles()) }

var mixedFiles = sync.OnceValue(func() []hubtest.File {
	return []hubtest.File{
		{Path: "a.noise", Content: hubtest.Generated(1, 3*mib+17)},
		{Path: "b.weights", Content: weights(2, 2*mib+1)},
		{Path: "c.text", Content: text(3, 2*mib)},
		{Path: "d.small", Content: hubtest.Bytes([]byte("small"))},
	}
})
