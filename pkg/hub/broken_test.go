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

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// loopback starts a Hub on real sockets and a client of it.
func loopback(t *testing.T, o hub.Options) (*hubtest.Server, *hub.Client, *pieces.Outline) {
	t.Helper()
	leaktest.Check(t)
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

// breaks has the body break half way and reads the rest with another Open.
func breaks(t *testing.T, do hubtest.Kind, want error) {
	t.Helper()
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	half := f.Blob.Size / 2
	s.Fail(hubtest.Fault{Do: do, Route: hubtest.CDN, Nth: 1, At: half})
	data, err := readAll(t, c, o, f, 0, f.Blob.Size)
	var body *hub.BodyError
	if !errors.As(err, &body) || !errors.Is(err, want) || hub.Permanent(err) || body.Offset != int64(len(data)) || body.Offset > half {
		t.Errorf("got %d bytes, %v, want %v", len(data), err, want)
	}
	rest, err := readAll(t, c, o, f, int64(len(data)), f.Blob.Size-int64(len(data)))
	if err != nil || !whole(t, f, append(data, rest...)) {
		t.Errorf("again: %v", err)
	}
	if got := s.Stats().Calls[hubtest.CDN]; got != 2 {
		t.Errorf("%d requests", got)
	}
}

// S06: the connection is reset in the middle of a body.
//
// What came before is kept, and the next request begins at the first byte that is
// missing.
func TestS06Reset(t *testing.T) { breaks(t, hubtest.Reset, syscall.ECONNRESET) }

// S07: the connection is closed in good order before the announced length.
//
// That is an unexpected end, not a whole file; the next request begins at the
// first byte that is missing.
func TestS07CleanClose(t *testing.T) { breaks(t, hubtest.Cut, io.ErrUnexpectedEOF) }

// S09: the link breaks after every MiB.
//
// Each new request begins at the first byte that is missing, so a file of 5 MiB
// takes five requests and no byte is sent twice.
func TestS09LinkBreaksEveryMiB(t *testing.T) {
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

// lie is an answer that is not what was asked for, and what its refusal says.
type lie struct {
	path  string
	off   int64
	fault hubtest.Fault
	says  string
}

// refuses wants each answer refused before a byte of it is handed out, and the
// next request to get the right bytes.
func refuses(t *testing.T, lies ...lie) {
	t.Helper()
	for _, l := range lies {
		t.Run(l.says, func(t *testing.T) {
			s, c, o := loopback(t, hub.Options{Retries: -1})
			if l.fault.Route == "" {
				l.fault.Route = hubtest.CDN
			}
			l.fault.Nth = 1
			s.Fail(l.fault)
			f := file(t, o, l.path)
			n := min(10, f.Blob.Size)
			if l.path == "config.json" {
				n = f.Blob.Size
			}
			data, err := readAll(t, c, o, f, l.off, n)
			var odd *hub.ProtocolError
			if !errors.As(err, &odd) || hub.Permanent(err) || !strings.Contains(err.Error(), l.says) || len(data) != 0 {
				t.Errorf("got %d bytes, %v", len(data), err)
			}
			if data, err := readAll(t, c, o, f, l.off, n); err != nil || int64(len(data)) != n {
				t.Errorf("again: %d bytes, %v", len(data), err)
			}
		})
	}
}

func contentRange(value string) map[string]string { return map[string]string{"Content-Range": value} }

// S10: a range is answered with the whole file.
//
// The answer is refused before a byte of it is used: nothing is ever appended that
// belongs to another place.
func TestS10WholeFileInsteadOfARange(t *testing.T) {
	refuses(t, lie{shard, 100, hubtest.Fault{Do: hubtest.WholeFile}, "status 200 and the whole file instead of the range from 100"})
}

// S11: a range is answered with another range, of another file, or without one.
//
// The answer is refused before a byte of it is used, and says which range it was.
func TestS11OtherRange(t *testing.T) {
	refuses(t,
		lie{shard, 100, hubtest.Fault{Do: hubtest.WrongRange}, "bytes 101-110 instead of 100-109"},
		lie{shard, 100, hubtest.Fault{Do: hubtest.Headers, Header: contentRange("bytes 100-109/200")}, "a file of 200 bytes, the listing says 5242880"},
		lie{shard, 100, hubtest.Fault{Do: hubtest.Headers, Header: contentRange("")}, "want \"bytes FIRST-LAST/TOTAL\""})
}

// S13: status 200 with a Content-Range.
//
// The two contradict each other, so the answer is refused.
func TestS13StatusAndRangeDisagree(t *testing.T) {
	refuses(t, lie{shard, 0, hubtest.Fault{Do: hubtest.WholeFile, Header: contentRange("bytes 0-9/5242880")}, "status 200 with a Content-Range"})
}

// S14: a body that is short, with a Content-Length to match.
//
// The length is not that of the range or of the listing: refused before a byte is
// used.
func TestS14ShortBody(t *testing.T) {
	refuses(t,
		lie{shard, 100, hubtest.Fault{Do: hubtest.Truncate}, "Content-Length 3 for a range of 10 bytes"},
		lie{"config.json", 0, hubtest.Fault{Do: hubtest.Truncate, Route: hubtest.Cache}, "19 bytes, the listing says 26"})
}

// S28: a body is compressed, though identity was asked for.
//
// Refused: a range of a compressed body is no range of the file.
func TestS28Compressed(t *testing.T) {
	refuses(t,
		lie{shard, 0, hubtest.Fault{Do: hubtest.Gzip}, `content encoding "gzip", want identity`},
		lie{"config.json", 0, hubtest.Fault{Do: hubtest.Gzip, Route: hubtest.Cache}, `content encoding "gzip", want identity`})
}

// V03: a login page with status 200, instead of a file or of its location.
//
// Refused before a byte is used; the error has the content type and says what it
// may be.
func TestV03LoginPage(t *testing.T) {
	const page = `content type "text/html; charset=utf-8": a web page (a login page of a proxy or portal?)`
	refuses(t,
		lie{shard, 0, hubtest.Fault{Do: hubtest.Login}, page},
		lie{"config.json", 0, hubtest.Fault{Do: hubtest.Login, Route: hubtest.Get}, page},
		lie{shard, 0, hubtest.Fault{Do: hubtest.Login, Route: hubtest.Head}, page})
}

// S10: a range from the first byte on is answered with the whole file.
//
// Its beginning is what was asked for; the rest is not read.
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

// S12: right headers, wrong bytes.
//
// The client can't see it and hands the bytes on: the digest of the blob does
// not fit.
func TestS12WrongBytesReachTheVerifier(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	s.Fail(hubtest.Fault{Do: hubtest.Wrong, Route: hubtest.CDN, Nth: 1, At: 3 << 20})
	data, err := readAll(t, c, o, f, 0, f.Blob.Size)
	if err != nil || whole(t, f, data) {
		t.Errorf("hub can't see this and the digest must: %v", err)
	}
}

// V04: what the Hub says of a file differs from its listing.
//
// Refused for good before a byte of the body is asked for; the error has both
// values.
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

// S14: a server without a CDN announces another length than was listed.
//
// Refused before the body is asked for.
func TestS14SizeOfADirectServerDisagrees(t *testing.T) {
	leaktest.Check(t)
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

// S17: a body is cut, then the connection reset.
//
// The third request gets the rest, and what came before the cut is kept.
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

// S19: a signed URL expires during the download.
//
// The file is located anew once and the range goes on. A second 403 in a row is
// permanent, and its error shows no signature.
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

// S19: the URL that eight ranges share expires.
//
// They locate the file anew by one HEAD together.
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

// S20: the CDN refuses a large file without a bounded range.
//
// Every range is bounded on both ends, so a file of 60 GiB meets no 400.
func TestS20HugeFilesAreAskedInBoundedRanges(t *testing.T) {
	leaktest.Check(t)
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

// S21: the CDN says that a range can't be satisfied.
//
// The file is located anew once, which compares its size anew, and then it is a
// permanent error.
func TestS21NotSatisfiableIsNotLoopedOn(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CDN, Status: 416})
	_, err := readAll(t, c, o, file(t, o, shard), 0, 10)
	if st := s.Stats(); !hub.Permanent(err) || st.Calls[hubtest.CDN] != 2 || st.Calls[hubtest.Head] != 2 {
		t.Errorf("got %v, calls %v", err, st.Calls)
	}
}

// S26: the Hub's name does not resolve, or nobody listens.
//
// The error says "cannot reach the hub", which is another one than that of a
// stall.
func TestS26Unreachable(t *testing.T) {
	leaktest.Check(t)
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

// S29: ten failures in a row.
//
// No pause is longer than 30 s, and ten tries are over after two minutes.
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

// S07: a body without a Content-Length ends a byte too early.
//
// net/http takes that for an ordinary end; here it is an unexpected one at that
// byte.
func TestS07ShortBodyOfUnknownLength(t *testing.T) {
	leaktest.Check(t)
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
