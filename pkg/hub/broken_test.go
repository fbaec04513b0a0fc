package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// loopback starts a Hub on real sockets and a client of it.
func loopback(t *testing.T, o hub.Options) (*hubtest.Server, *hub.Client, *pieces.Outline) {
	t.Helper()
	s := hubtest.New(hubtest.Options{})
	commit := s.AddRepo(model())
	o.Endpoint = s.Start(t)
	return s, newClient(t, o), s.Outline("org/model", commit)
}

// resume reads a file to its end the way a seeder does: every error but a
// permanent one is followed by another Open at the first byte that is missing.
func resume(t *testing.T, c *hub.Client, o *pieces.Outline, f pieces.File, tries int) (data []byte, opened int, err error) {
	t.Helper()
	for opened = 1; opened <= tries; opened++ {
		var part []byte
		part, err = readAll(t, c, o, f, int64(len(data)), f.Blob.Size-int64(len(data)))
		data = append(data, part...)
		if err == nil || hub.Permanent(err) {
			break
		}
	}
	return data, opened, err
}

func whole(t *testing.T, f pieces.File, data []byte) bool {
	t.Helper()
	h := f.Blob.NewHash()
	h.Write(data)
	return f.Blob.Check(h) == nil
}

// TestBrokenBodies: the body breaks after k bytes, those bytes are kept, and the
// rest comes with the next Open.
func TestBrokenBodies(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   hubtest.Kind
		want error
	}{
		{"S06 reset", hubtest.Reset, syscall.ECONNRESET},
		{"S07 cut", hubtest.Cut, io.ErrUnexpectedEOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, c, o := loopback(t, hub.Options{})
			f := file(t, o, shard)
			s.Fail(hubtest.Fault{Do: tc.do, Route: hubtest.CDN, Nth: 1, At: 1 << 20})
			_, err := readAll(t, c, o, f, 0, f.Blob.Size)
			var body *hub.BodyError
			if !errors.As(err, &body) || !errors.Is(err, tc.want) || hub.Permanent(err) || body.Offset > 1<<20 {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if data, _, err := resume(t, c, o, f, 1); err != nil || !whole(t, f, data) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestS09LinkDiesEveryMiB(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	s.Fail(hubtest.Fault{Do: hubtest.Cut, Route: hubtest.CDN, At: 1 << 20})
	data, opened, err := resume(t, c, o, f, 10)
	if err != nil || !whole(t, f, data) || opened != 5 {
		t.Errorf("%d bytes in %d tries, %v", len(data), opened, err)
	}
	if st := s.Stats(); st.MaxCoverage != 1 {
		t.Errorf("a byte was sent %d times", st.MaxCoverage)
	}
}

// TestLyingAnswers: an answer that is not what was asked is refused before a
// byte of it is handed out, and says why.
func TestLyingAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		path  string
		off   int64
		fault hubtest.Fault
		says  string
	}{
		{"S10 whole file instead of a range", shard, 100, hubtest.Fault{Do: hubtest.WholeFile}, "status 200 and the whole file instead of the range from 100"},
		{"S11 shifted range", shard, 100, hubtest.Fault{Do: hubtest.WrongRange}, "bytes 101-110 instead of 100-109"},
		{"S11 other total", shard, 100, hubtest.Fault{Do: hubtest.Headers, Header: map[string]string{"Content-Range": "bytes 100-109/200"}}, "a file of 200 bytes, the listing says 5242880"},
		{"S11 no range", shard, 100, hubtest.Fault{Do: hubtest.Headers, Header: map[string]string{"Content-Range": ""}}, "want \"bytes FIRST-LAST/TOTAL\""},
		{"S13 200 with a range", shard, 0, hubtest.Fault{Do: hubtest.WholeFile, Header: map[string]string{"Content-Range": "bytes 0-9/5242880"}}, "status 200 with a Content-Range"},
		{"S14 short range", shard, 100, hubtest.Fault{Do: hubtest.Truncate}, "Content-Length 3 for a range of 10 bytes"},
		{"S14 short git file", "config.json", 0, hubtest.Fault{Do: hubtest.Truncate, Route: hubtest.Cache}, "19 bytes, the listing says 26"},
		{"S28 gzip", shard, 0, hubtest.Fault{Do: hubtest.Gzip}, `content encoding "gzip", want identity`},
		{"S28 gzip on a git file", "config.json", 0, hubtest.Fault{Do: hubtest.Gzip, Route: hubtest.Cache}, `content encoding "gzip", want identity`},
		{"V03 login page", shard, 0, hubtest.Fault{Do: hubtest.Login}, `content type "text/html; charset=utf-8": a web page`},
		{"V03 login page for a git file", "config.json", 0, hubtest.Fault{Do: hubtest.Login, Route: hubtest.Get}, `content type "text/html; charset=utf-8": a web page`},
		{"V03 login page for a HEAD", shard, 0, hubtest.Fault{Do: hubtest.Login, Route: hubtest.Head}, `content type "text/html; charset=utf-8": a web page`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, c, o := loopback(t, hub.Options{Retries: -1})
			if tc.fault.Route == "" {
				tc.fault.Route = hubtest.CDN
			}
			tc.fault.Nth = 1
			s.Fail(tc.fault)
			f := file(t, o, tc.path)
			n := min(10, f.Blob.Size)
			if tc.path == "config.json" {
				n = f.Blob.Size
			}
			data, err := readAll(t, c, o, f, tc.off, n)
			var odd *hub.ProtocolError
			if !errors.As(err, &odd) || hub.Permanent(err) || !strings.Contains(err.Error(), tc.says) || len(data) != 0 {
				t.Errorf("got %d bytes, %v, want %q", len(data), err, tc.says)
			}
			if data, err := readAll(t, c, o, f, tc.off, n); err != nil || int64(len(data)) != n {
				t.Errorf("again: %d bytes, %v", len(data), err)
			}
		})
	}
}

func TestS10WholeFileFromTheStart(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.WholeFile, Route: hubtest.CDN})
	f := file(t, o, shard)
	data, err := readAll(t, c, o, f, 0, 1000)
	want := make([]byte, 1000)
	hubtest.Generated(1, 5<<20).ReadAt(want, 0)
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
}

func TestGitFileWithoutRanges(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.WholeFile, Route: hubtest.Cache})
	data, err := readAll(t, c, o, file(t, o, "config.json"), 2, 13)
	if err != nil || string(data) != "architectures" {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestWebPageInARepository(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	page := []byte("<html>")
	commit := s.AddRepo(hubtest.RepoSpec{ID: "org/pages", Files: []hubtest.File{{Path: "index.html", Content: hubtest.Bytes(page)}}})
	s.Fail(hubtest.Fault{Do: hubtest.Headers, Route: hubtest.Cache, Header: map[string]string{"Content-Type": "text/html"}})
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	o := s.Outline("org/pages", commit)
	if data, err := readAll(t, c, o, o.Files[0], 0, 6); err != nil || !bytes.Equal(data, page) {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestS12WrongBytesReachTheVerifier(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	s.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.CDN, Nth: 1, At: 3 << 20})
	data, err := readAll(t, c, o, f, 0, f.Blob.Size)
	if err != nil || whole(t, f, data) {
		t.Errorf("hub can't see this and the digest must: %v", err)
	}
}

// TestV04ListingAndResolveDisagree: refused before a byte of the body, for good.
func TestV04ListingAndResolveDisagree(t *testing.T) {
	other := strings.Repeat("ab", 32)
	for _, tc := range []struct {
		path         string
		route        hubtest.Route
		header, lies string
	}{
		{shard, hubtest.Head, "X-Linked-Etag", `"` + other + `"`},
		{shard, hubtest.Head, "X-Linked-Etag", `W/"abc"`},
		{shard, hubtest.Head, "X-Linked-Size", "5242881"},
		{shard, hubtest.Head, "X-Linked-Size", "x"},
		{shard, hubtest.Head, "X-Repo-Commit", strings.Repeat("0", 40)},
		{"config.json", hubtest.Cache, "ETag", `"` + other[:40] + `"`},
		{"config.json", hubtest.Cache, "X-Repo-Commit", strings.Repeat("0", 40)},
	} {
		s, c, o := loopback(t, hub.Options{})
		s.Fail(hubtest.Fault{Do: hubtest.Headers, Route: tc.route, Header: map[string]string{tc.header: tc.lies}})
		_, err := readAll(t, c, o, file(t, o, tc.path), 0, 10)
		var odd *hub.DisagreeError
		if !errors.As(err, &odd) || odd.Header != tc.header || !hub.Permanent(err) || !strings.Contains(tc.lies, odd.Got) {
			t.Errorf("%s %s: got %v", tc.header, tc.lies, err)
		}
		if st := s.Stats(); st.Calls[hubtest.CDN] != 0 || st.Calls[tc.route] != 1 {
			t.Errorf("%s: calls %v", tc.header, st.Calls)
		}
	}
}

// TestForeignETags: what is no digest says nothing about the content.
func TestForeignETags(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.Headers, Header: map[string]string{"ETag": `"65f1-nginx"`, "X-Linked-Etag": "", "X-Linked-Size": "", "X-Repo-Commit": ""}})
	for _, path := range []string{shard, "config.json"} {
		if _, err := readAll(t, c, o, file(t, o, path), 0, 10); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestS14SizeOfADirectServerDisagrees(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	commit := s.AddRepo(model())
	o := s.Outline("org/model", commit)
	c := newClient(t, hub.Options{Endpoint: s.StartWithoutCDN(t)})
	f := file(t, o, shard)
	if data, err := readAll(t, c, o, f, 3, 4); err != nil || len(data) != 4 {
		t.Errorf("a hub that has the bytes itself: %v", err)
	}
	s.Fail(hubtest.Fault{Do: hubtest.Headers, Route: hubtest.Head, Header: map[string]string{"Content-Length": "17"}})
	c = newClient(t, hub.Options{Endpoint: c.Endpoint()})
	var odd *hub.DisagreeError
	if _, err := readAll(t, c, o, f, 3, 4); !errors.As(err, &odd) || odd.Header != "Content-Length" {
		t.Errorf("got %v", err)
	}
}

func TestS17CutThenRefused(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	s.Fail(hubtest.Fault{Do: hubtest.Cut, Route: hubtest.CDN, Nth: 1, At: 1 << 20})
	s.Fail(hubtest.Fault{Do: hubtest.Reset, Route: hubtest.CDN, Nth: 2})
	data, opened, err := resume(t, c, o, f, 3)
	if err != nil || !whole(t, f, data) || opened != 3 {
		t.Errorf("%d tries, %v", opened, err)
	}
}

func TestS19SignedURLExpires(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	if _, err := readAll(t, c, o, f, 0, 10); err != nil {
		t.Fatal(err)
	}
	s.ExpireSignatures()
	if _, err := readAll(t, c, o, f, 10, 10); err != nil {
		t.Errorf("after one expiry: %v", err)
	}
	if st := s.Stats(); st.Calls[hubtest.Head] != 2 || st.Status[403] != 1 || st.Calls[hubtest.CDN] != 3 {
		t.Errorf("calls %v, status %v", st.Calls, st.Status)
	}
	s.Fail(hubtest.Fault{Do: hubtest.Expired, Route: hubtest.CDN})
	_, err := readAll(t, c, o, f, 20, 10)
	var status *hub.StatusError
	if !errors.As(err, &status) || status.Status != 403 || !hub.Permanent(err) || errors.Is(err, hub.ErrUnauthorized) {
		t.Errorf("a second 403 in a row: %v", err)
	}
	if strings.Contains(err.Error(), "Signature") || strings.Contains(err.Error(), "?") {
		t.Errorf("the error holds a signed URL: %v", err)
	}
	if st := s.Stats(); st.Calls[hubtest.CDN] != 5 {
		t.Errorf("calls %v", st.Calls)
	}
}

func TestS19ManyRangesAskOnce(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	errs := make(chan error)
	for round := range int64(2) {
		for i := range int64(8) {
			go func() {
				rc, err := c.Open(context.WithoutCancel(t.Context()), o.Repo, o.Commit, f, i*100+round, 100)
				if err == nil {
					_, err = io.Copy(io.Discard, rc)
					rc.Close()
				}
				errs <- err
			}()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if n := s.Stats().Calls[hubtest.Head]; n != round+1 {
			t.Errorf("round %d: %d HEAD requests", round, n)
		}
		s.ExpireSignatures()
	}
}

func TestS20HugeFilesAreAskedInBoundedRanges(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	const size = 60 << 30
	digest := strings.Repeat("5a", 32)
	commit := s.AddRepo(hubtest.RepoSpec{ID: "org/huge", Files: []hubtest.File{{Path: "w.bin", Content: hubtest.Generated(3, size), SHA256: digest}}})
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	o, err := c.List(t.Context(), ref("org/huge").Repo, commit)
	if err != nil || o.Size() != size {
		t.Fatal(err)
	}
	if data, err := readAll(t, c, o, o.Files[0], size-10, 10); err != nil || len(data) != 10 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	rc, err := c.Open(t.Context(), o.Repo, o.Commit, o.Files[0], 0, size)
	if err != nil {
		t.Fatal(err)
	}
	rc.Close()
	if n := s.Stats().Status[400]; n != 0 {
		t.Errorf("%d answers of 400", n)
	}
}

func TestS21NotSatisfiableIsNotLoopedOn(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CDN, Status: 416})
	_, err := readAll(t, c, o, file(t, o, shard), 0, 10)
	if st := s.Stats(); !hub.Permanent(err) || st.Calls[hubtest.CDN] != 2 || st.Calls[hubtest.Head] != 2 {
		t.Errorf("got %v, calls %v", err, st.Calls)
	}
}

func TestS26Unreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	c := newClient(t, hub.Options{Endpoint: "http://" + l.Addr().String(), Retries: -1})
	_, _, err = c.Resolve(t.Context(), ref("org/model"))
	if !errors.Is(err, hub.ErrUnreachable) || hub.Permanent(err) || !strings.Contains(err.Error(), "cannot reach the hub at http://127.0.0.1:") {
		t.Errorf("refused: got %v", err)
	}
	c = newClient(t, hub.Options{Endpoint: "http://name.invalid", Retries: -1})
	if _, _, err = c.Resolve(t.Context(), ref("org/model")); !errors.Is(err, hub.ErrUnreachable) || hub.Permanent(err) {
		t.Errorf("no such name: got %v", err)
	}
}

func TestS29BackOff(t *testing.T) {
	bubble(t, hub.Options{Retries: 9}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Info, Status: 500})
		start := time.Now()
		err := api(t, c, o)
		if took := time.Since(start); took < 90*time.Second || took > 122*time.Second || s.Stats().Calls[hubtest.Info] != 10 {
			t.Errorf("ten tries took %v, %v", took, s.Stats().Calls)
		}
		if err == nil || !strings.Contains(err.Error(), "tried 10 times") || hub.Permanent(err) {
			t.Errorf("got %v", err)
		}
	})
}

// TestS07ShortBodyOfUnknownLength: without a Content-Length, an end that comes
// too early looks like an ordinary one to net/http.
func TestS07ShortBodyOfUnknownLength(t *testing.T) {
	const size = 1000
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush() // no length
		w.Write(make([]byte, size-1))
	}))
	defer srv.Close()
	c := newClient(t, hub.Options{Endpoint: srv.URL})
	digest, _ := pieces.ParseDigest(strings.Repeat("0", 40))
	f := pieces.File{Path: "x", OID: digest, Blob: pieces.Blob{Digest: digest, Size: size}}
	o := &pieces.Outline{Repo: ref("org/model").Repo, Commit: pieces.Commit(strings.Repeat("0", 40))}
	data, err := readAll(t, c, o, f, 0, size)
	var body *hub.BodyError
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &body) || body.Offset != size-1 || len(data) != size-1 {
		t.Errorf("got %d bytes, %v", len(data), err)
	}
}
