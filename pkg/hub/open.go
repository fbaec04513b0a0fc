package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"p2pagent/internal/sockopt"
	"p2pagent/internal/stall"
	"p2pagent/pkg/pieces"
)

// Open returns n bytes of a file from offset off: exactly n, or an error from
// Read before that. The caller closes it, and checks the digest: nothing here is
// verified. Zero bytes cost no request.
//
// Open itself is not retried and neither is its body, but for a signed URL that
// has expired: that is resolved anew once. Errors of Read are *BodyError; they
// wrap stall.ErrStalled when bytes stopped.
func (c *Client) Open(ctx context.Context, repo pieces.Repo, commit pieces.Commit, f pieces.File, off, n int64) (io.ReadCloser, error) {
	s := section{repo: repo, commit: commit, file: f, off: off, n: n}
	switch {
	case off < 0 || n < 0 || off > f.Blob.Size-n:
		return nil, fmt.Errorf("%s: no bytes %d+%d in a file of %d", s.op(), off, n, f.Blob.Size)
	case n == 0:
		return http.NoBody, nil
	case f.LFS():
		return c.openLFS(ctx, s)
	}
	return c.openGit(ctx, s)
}

// section is what Open was asked for.
type section struct {
	repo   pieces.Repo
	commit pieces.Commit
	file   pieces.File
	off, n int64
}

func (s section) op() string { return fmt.Sprintf("read %s/%s", s.repo, s.file.Path) }

func (s section) whole() bool { return s.off == 0 && s.n == s.file.Blob.Size }

// request asks for the section at a URL. Ranges are always bounded on both ends:
// the CDN refuses an open one on files over 50 GB.
func (s section) request(u *url.URL, bucket string, ranged bool) request {
	h := identity()
	if ranged {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", s.off, s.off+s.n-1))
	}
	return request{op: s.op(), bucket: bucket, method: http.MethodGet, url: u, header: h, missing: ErrEntryNotFound}
}

// openGit reads a file that the Hub keeps in git. The listing has its size and
// digest already, so one GET is enough.
func (c *Client) openGit(ctx context.Context, s section) (io.ReadCloser, error) {
	r := s.request(c.at(fileURL(s.repo, s.commit, s.file.Path), ""), BucketResolvers, !s.whole())
	a, err := c.fetch(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.body(s, a, s.agrees(a.Response))
}

// openLFS reads a file that the Hub keeps elsewhere and redirects to.
func (c *Client) openLFS(ctx context.Context, s section) (io.ReadCloser, error) {
	for again := true; ; again = false {
		l, err := c.locate(ctx, s)
		if err != nil {
			return nil, err
		}
		rc, err := c.openAt(ctx, s, l.url)
		if !again || !expired(err) {
			return rc, err
		}
		c.log.Info("location of a file expired, asking anew", slog.String("op", s.op()), slog.String("host", l.url.Host))
		c.locations.forget(s.key(), l)
	}
}

// expired tells whether a new location may help: 403 and 400 are what CDNs say
// to an old signature, 404 to an object that has moved, and 416 when the object
// has another size than was listed. Asking anew also compares the size anew.
func expired(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Status < 500 && status.Permanent()
}

func (c *Client) openAt(ctx context.Context, s section, u *url.URL) (io.ReadCloser, error) {
	bucket := BucketCDN
	if sameOrigin(u, c.endpoint) {
		bucket = BucketResolvers
	}
	r := s.request(u, bucket, true)
	a, err := c.fetch(ctx, r)
	if err != nil {
		return nil, err
	}
	return c.body(s, a, nil)
}

// fetch sends one request for bytes and takes only an answer that has some.
func (c *Client) fetch(ctx context.Context, r request) (*answer, error) {
	if err := c.pass(ctx, r.op, r.bucket); err != nil {
		return nil, err
	}
	a, err := c.follow(ctx, r, false)
	if err != nil {
		return nil, err
	}
	return a, c.check(r, a, http.StatusOK, http.StatusPartialContent)
}

// body checks the headers of an answer and wraps its bytes; on a refusal it
// closes the answer.
func (c *Client) body(s section, a *answer, disagrees error) (io.ReadCloser, error) {
	skip, reason := s.placed(a.Response)
	if web := oddContent(a.Header); web != "" && !s.webPage(a.Header) {
		reason = web
	}
	if reason != "" || disagrees != nil {
		a.Body.Close()
		if reason != "" {
			return nil, &ProtocolError{Op: s.op(), Host: a.from.Host, Reason: reason}
		}
		return nil, disagrees
	}
	return &sectionReader{rc: stall.NewReader(a.Body, c.o.Limits), c: c, s: s, host: a.from.Host, conn: a.conn, skip: skip, left: s.n}, nil
}

// webPage tells whether the file is itself a web page; its digest will judge it.
func (s section) webPage(h http.Header) bool {
	ext := strings.ToLower(path.Ext(s.file.Path))
	return h.Get("Content-Encoding") == "" && (ext == ".html" || ext == ".htm" || ext == ".xhtml")
}

// placed decides where in the file a body begins: how many of its bytes come
// before the section, or the reason why it can't be used.
func (s section) placed(resp *http.Response) (skip int64, reason string) {
	length, size := resp.ContentLength, s.file.Blob.Size
	if resp.StatusCode == http.StatusPartialContent {
		return 0, s.partial(resp.Header.Get("Content-Range"), length)
	}
	switch {
	case resp.Header.Get("Content-Range") != "":
		return 0, "status 200 with a Content-Range"
	case length >= 0 && length != size:
		return 0, fmt.Sprintf("%d bytes, the listing says %d", length, size)
	case s.off > 0 && s.file.LFS():
		return 0, fmt.Sprintf("status 200 and the whole file instead of the range from %d", s.off)
	}
	return s.off, "" // git files are small enough to skip what was not asked for
}

func (s section) partial(header string, length int64) (reason string) {
	first, last, total, err := contentRange(header)
	switch {
	case err != nil:
		return err.Error()
	case first != s.off || last != s.off+s.n-1:
		return fmt.Sprintf("bytes %d-%d instead of %d-%d", first, last, s.off, s.off+s.n-1)
	case total != s.file.Blob.Size:
		return fmt.Sprintf("a file of %d bytes, the listing says %d", total, s.file.Blob.Size)
	case length >= 0 && length != s.n:
		return fmt.Sprintf("Content-Length %d for a range of %d bytes", length, s.n)
	}
	return ""
}

// agrees compares what the Hub says about a file with its listing of the commit.
// X-Linked-Etag and -Size speak of the LFS object; a plain ETag counts only when
// it has the form of a digest, since servers put other things there.
func (s section) agrees(resp *http.Response) error {
	blob, h := s.file.Blob, resp.Header
	if got := h.Get("X-Repo-Commit"); got != "" && got != string(s.commit) {
		return s.disagree("X-Repo-Commit", string(s.commit), got)
	}
	if linked := etag(h.Get("X-Linked-Etag")); linked != "" && linked != blob.Digest.String() {
		return s.disagree("X-Linked-Etag", blob.Digest.String(), linked)
	}
	if d, err := pieces.ParseDigest(etag(h.Get("ETag"))); err == nil && h.Get("X-Linked-Etag") == "" &&
		d.Git() == blob.Digest.Git() && d != blob.Digest && !redirects(resp.StatusCode) {
		return s.disagree("ETag", blob.Digest.String(), d.String())
	}
	size := h.Get("X-Linked-Size")
	if size == "" || size == strconv.FormatInt(blob.Size, 10) {
		return nil
	}
	return s.disagree("X-Linked-Size", strconv.FormatInt(blob.Size, 10), size)
}

func (s section) disagree(header, listed, got string) error {
	return &DisagreeError{Op: s.op(), Header: header, Listed: listed, Got: tidy(got, 80)}
}

// sectionReader hands out exactly the bytes of a section.
type sectionReader struct {
	rc   io.ReadCloser
	c    *Client
	s    section
	host string
	conn net.Conn
	skip int64 // bytes before the section
	left int64
	err  error // of an earlier Read

	batching bool
}

// Read implements io.Reader.
func (r *sectionReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	for r.skip > 0 {
		n, err := r.rc.Read(p[:min(int64(len(p)), r.skip)])
		r.skip -= int64(n)
		if err != nil || n == 0 {
			return 0, r.broken(err)
		}
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	r.batch(r.left > sockopt.BatchFloor)
	n, err := r.rc.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	r.batch(r.left > sockopt.BatchFloor && err == nil)
	if r.left == 0 {
		return n, io.EOF // all that was asked for, whatever comes behind it
	}
	if err != nil {
		return n, r.broken(err)
	}
	return n, nil
}

// batch lets the kernel gather bytes while there are many to come. A connection
// that goes back to the pool has been read to its end, so it is off by then.
func (r *sectionReader) batch(on bool) {
	if on != r.batching {
		r.batching = on
		sockopt.Batch(r.conn, on)
	}
}

// broken keeps a body's error and says where in the file it happened.
func (r *sectionReader) broken(err error) error {
	if err == nil {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	at := r.s.off + r.s.n - r.left
	r.err = &BodyError{Op: r.s.op(), Host: r.host, Offset: at, Err: err}
	if errors.Is(err, stall.ErrStalled) {
		r.c.count.stalls.Add(1)
		r.c.CloseIdle() // what made this connection silent may have silenced the pooled ones
		r.c.log.Warn("upstream stalled", slog.String("op", r.s.op()), slog.String("host", r.host), slog.Int64("offset", at), slog.Any("err", err))
	}
	return r.err
}

// Host returns the host that the bytes come from.
func (r *sectionReader) Host() string { return r.host }

// Close frees the connection; unread bytes are dropped with it.
func (r *sectionReader) Close() error { return r.rc.Close() }
