package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"p2pagent/pkg/gateway"
	"p2pagent/pkg/pieces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a Node of snapshots in memory. Its files land when the test says so:
// what a real agent does with them is tested in cmd/p2pagent.
type shelf struct {
	t        *testing.T
	commits  map[string]*snapshot // by ref
	refs     map[string]pieces.Commit
	lookWait time.Duration
	mu       sync.Mutex
	looks    int
	checks   []string // tokens that were shown to the Hub
	started  []string // paths that were asked to be brought here
	contents map[string]*landing

	takenBack atomic.Uint64
}

type snapshot struct {
	shelf   *shelf
	outline *pieces.Outline
	files   map[string][]byte
	secret  bool   // gated
	token   string // that opens it
	caller  string // whom it was looked up for
}

const (
	mainCommit = pieces.Commit("1111111111111111111111111111111111111111")
	prCommit   = pieces.Commit("2222222222222222222222222222222222222222")
)

func newShelf(t *testing.T) *shelf {
	return &shelf{t: t, commits: map[string]*snapshot{}, refs: map[string]pieces.Commit{}, contents: map[string]*landing{}}
}

// add puts a snapshot under a repository's revisions. Files above 1 KiB are LFS
// files.
func (s *shelf) add(repo string, commit pieces.Commit, files map[string]string, revisions ...string) *snapshot {
	name, err := pieces.ParseRepo(repo)
	if err != nil {
		s.t.Fatal(err)
	}
	out := &snapshot{shelf: s, outline: &pieces.Outline{Repo: name, Commit: commit}, files: map[string][]byte{}}
	for path, text := range files {
		out.files[path] = []byte(text)
		out.outline.Files = append(out.outline.Files, fileOf(path, []byte(text)))
	}
	out.outline.Sort()
	if err := out.outline.Validate(); err != nil {
		s.t.Fatal(err)
	}
	for _, r := range append(revisions, string(commit)) {
		s.commits[name.String()+"@"+r] = out
	}
	return out
}

func fileOf(path string, data []byte) pieces.File {
	git := func(d []byte) pieces.Digest {
		sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(d)), d...))
		id, _ := pieces.ParseDigest(hex.EncodeToString(sum[:]))
		return id
	}
	f := pieces.File{Path: path, OID: git(data), Blob: pieces.Blob{Digest: git(data), Size: int64(len(data))}}
	if len(data) > 1<<10 {
		f.Blob.Digest = pieces.SHA256Digest(sha256.Sum256(data))
		f.Xet = pieces.SHA256Digest(sha256.Sum256([]byte(path)))
		f.OID = git(fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", f.Blob.Digest, len(data)))
	}
	return f
}

func (s *shelf) Look(ctx context.Context, ref pieces.Ref, token string, _ bool) (gateway.Snapshot, error) {
	s.mu.Lock()
	s.looks++
	s.mu.Unlock()
	if s.lookWait > 0 {
		select {
		case <-time.After(s.lookWait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if got := s.commits[ref.String()]; got != nil {
		theirs := *got
		theirs.caller = token
		return &theirs, nil
	}
	for known := range s.commits {
		if strings.HasPrefix(known, ref.Repo.String()+"@") {
			return nil, &gateway.Refusal{Code: gateway.RevisionNotFound, Message: "Invalid rev id: " + ref.Revision}
		}
	}
	return nil, &gateway.Refusal{Code: gateway.RepoNotFound, Message: "Repository not found"}
}

func (s *shelf) Refs(context.Context, pieces.Repo, string) (map[string]pieces.Commit, error) {
	return s.refs, nil
}

func (s *shelf) TakenBack() uint64 { return s.takenBack.Load() }

func (s *snapshot) Outline() *pieces.Outline { return s.outline }
func (s *snapshot) Open() bool               { return !s.secret }

func (s *snapshot) File(path string) (pieces.File, bool) {
	for _, f := range s.outline.Files {
		if f.Path == path {
			return f, true
		}
	}
	return pieces.File{}, false
}

func (s *snapshot) MayRead(context.Context) error {
	s.shelf.mu.Lock()
	s.shelf.checks = append(s.shelf.checks, s.caller)
	s.shelf.mu.Unlock()
	if s.caller == s.token {
		return nil
	}
	return &gateway.Refusal{Code: gateway.GatedRepo, Message: "Access to model " + s.outline.Repo.Name + " is restricted"}
}

func (s *snapshot) Read(f pieces.File) gateway.Content {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	l := s.shelf.contents[f.Path]
	if l == nil {
		l = s.shelf.whole(f.Path, s.files[f.Path])
	}
	return &reader{landing: l, note: func() {
		s.shelf.mu.Lock()
		defer s.shelf.mu.Unlock()
		s.shelf.started = append(s.shelf.started, f.Path)
	}}
}

// landing is a file of which the first so many bytes are here.
type landing struct {
	data []byte
	path string // on the disk, when it is whole

	mu    sync.Mutex
	here  int64
	fault error
	news  chan struct{}
}

// whole is a file that is on the disk.
func (s *shelf) whole(path string, data []byte) *landing {
	l := &landing{data: data, here: int64(len(data)), news: make(chan struct{})}
	if data != nil {
		l.path = filepath.Join(s.t.TempDir(), "f")
		if err := os.WriteFile(l.path, data, 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	return l
}

// lands makes a path's file one that is not here yet.
func (s *shelf) lands(path string, data string) *landing {
	l := &landing{data: []byte(data), news: make(chan struct{})}
	s.contents[path] = l
	return l
}

// land makes bytes up to n available, or the file fail.
func (l *landing) land(n int64, fault error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.here, l.fault = max(l.here, n), fault
	close(l.news)
	l.news = make(chan struct{})
}

type reader struct {
	*landing
	note func()
	file *os.File
}

func (r *reader) Start() error { r.note(); return nil }

func (r *reader) Here() bool { return r.path != "" }

func (r *reader) Whole() *os.File {
	if r.path == "" {
		return nil
	}
	r.file, _ = os.Open(r.path)
	return r.file
}

func (r *reader) Await(ctx context.Context, off int64) (int64, error) {
	for {
		r.mu.Lock()
		here, fault, news := r.here, r.fault, r.news
		r.mu.Unlock()
		if fault != nil {
			return 0, fault
		}
		if off < here {
			return here - off, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off+int64(len(p)) > r.here {
		return 0, fmt.Errorf("read of bytes that are not verified: %d+%d of %d", off, len(p), r.here)
	}
	return copy(p, r.data[off:]), nil
}

func (r *reader) Close() error {
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

// desk is a gateway at work on connections in memory, inside a bubble.
type desk struct {
	*shelf
	client *http.Client
	dial   func(t *testing.T) net.Conn
}

func atDesk(t *testing.T, test func(t *testing.T, d *desk), change ...func(*gateway.Options)) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{shelf: newShelf(t)}
		o := gateway.Options{Node: d.shelf}
		for _, c := range change {
			c(&o)
		}
		l := newListener()
		ctx, cancel := context.WithCancel(context.Background())
		var served sync.WaitGroup
		served.Go(func() {
			if err := gateway.New(o).Serve(ctx, l); err != nil {
				t.Error(err)
			}
		})
		d.dial = func(t *testing.T) net.Conn {
			conn, err := l.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		transport := &http.Transport{DialContext: l.dial, DisableCompression: true}
		d.client = &http.Client{Transport: transport}
		defer func() {
			transport.CloseIdleConnections()
			cancel()
			served.Wait()
		}()
		test(t, d)
	})
}

const desktop = "http://127.0.0.1:8090"

// ask sends one request; header is "Name: value" lines.
func (d *desk) ask(method, path string, header ...string) *http.Response {
	d.t.Helper()
	return d.send(method, path, nil, header...)
}

func (d *desk) send(method, path string, body io.Reader, header ...string) *http.Response {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), method, desktop+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if req.Header.Set(name, value); name == "Host" {
			req.Host = value
		}
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatalf("%s %s: %v", method, path, err)
	}
	d.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// read returns the body, whose length must be what the header says.
func read(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("body after %d bytes: %v", len(raw), err)
	}
	return string(raw)
}

func noise(seed byte, n int) string {
	out := bytes.Repeat([]byte{0}, n)
	for i := range out {
		out[i] = byte(i*7+i>>8) ^ seed
	}
	return string(out)
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8090} }
