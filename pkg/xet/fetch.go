package xet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"p2pagent/internal/stall"
)

// stream is the bytes of one signed range, under way.
type stream struct {
	*signed
	at      int // the next chunk
	records *Records
	body    io.ReadCloser
	object  int64 // stored length of the whole xorb; 0 when it was not said
	client  *Client
}

// fetch opens a signed range: with exactly the range that was signed and without
// any credentials.
func (c *Client) fetch(ctx context.Context, s *signed) (*stream, error) {
	op := "read xorb " + s.xorb.String()
	resp, err := c.send(ctx, op, s.url, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", s.from, s.last)}})
	if err != nil {
		return nil, err
	}
	object, err := s.placed(resp)
	if err != nil {
		resp.Body.Close()
		return nil, &Error{Op: op, Host: s.url.Host, Status: notOK(resp.StatusCode), Err: err, wait: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	st := &stream{signed: s, at: s.first, records: c.decode.Get().(*Records), object: object, client: c,
		body: stall.NewReader(resp.Body, c.o.Limits)}
	st.records.Reset(&throttled{io.LimitReader(st.body, s.span()), ctx, c})
	return st, nil
}

func notOK(status int) int {
	if status == http.StatusPartialContent || status == http.StatusOK {
		return 0
	}
	return status
}

// placed checks that a response is the range asked for, and returns the length of
// the whole object.
func (s *signed) placed(resp *http.Response) (object int64, err error) {
	if resp.StatusCode != http.StatusPartialContent {
		if notOK(resp.StatusCode) == 0 {
			return 0, fmt.Errorf("%w: status %d for a range", ErrAnswer, resp.StatusCode)
		}
		return 0, errStatus
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return 0, fmt.Errorf("%w: content encoding %.40q", ErrAnswer, enc)
	}
	got := resp.Header.Get("Content-Range")
	rest, ok := strings.CutPrefix(got, fmt.Sprintf("bytes %d-%d/", s.from, s.last))
	if !ok || resp.ContentLength >= 0 && resp.ContentLength != s.span() {
		return 0, fmt.Errorf("%w: %d bytes, Content-Range %.60q for %d-%d", ErrAnswer, resp.ContentLength, got, s.from, s.last)
	}
	total, err := strconv.ParseInt(rest, 10, 64)
	if rest != "*" && (err != nil || total <= s.last) {
		return 0, fmt.Errorf("%w: Content-Range %.60q", ErrAnswer, got)
	}
	return total, nil
}

// next decodes the next chunk. At the end of the range no byte may be left over.
func (s *stream) next() (plain []byte, hash Hash, err error) {
	plain, hash, err = s.records.Next()
	if err != nil {
		return nil, Hash{}, s.broken(err)
	}
	return plain, hash, s.passed()
}

func (s *stream) skip() error {
	if err := s.records.Skip(); err != nil {
		return s.broken(err)
	}
	return s.passed()
}

func (s *stream) passed() error {
	s.at++
	if s.at == s.end && s.records.Stored() != s.span() {
		return s.broken(fmt.Errorf("%w: %d bytes are left behind the last chunk", ErrRecord, s.span()-s.records.Stored()))
	}
	return nil
}

// ended returns where in the xorb the record before at ends.
func (s *stream) ended() int64 { return s.from + s.records.Stored() }

func (s *stream) broken(err error) error {
	if err == io.EOF { // with chunks missing
		err = io.ErrUnexpectedEOF
	}
	return s.client.failed(&Error{Op: fmt.Sprintf("read chunk %d of xorb %s", s.at, s.xorb), Host: s.url.Host, Err: err})
}

func (s *stream) close() {
	s.body.Close()
	s.records.Reset(nil)
	s.client.decode.Put(s.records)
	s.records = nil
}

// throttled takes bytes no faster than the client may.
type throttled struct {
	io.Reader
	ctx    context.Context
	client *Client
}

// throttleStep is how much is let through at once.
const throttleStep = 64 << 10

func (t *throttled) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p[:min(len(p), throttleStep)])
	if n > 0 {
		if werr := t.client.o.Throttle(t.ctx, n); werr != nil && err == nil {
			err = cause(t.ctx, werr)
		}
	}
	return n, err
}

// expired tells whether a new URL may help.
func expired(err error) bool {
	s := status(err)
	return s == http.StatusForbidden || s == http.StatusUnauthorized || s == http.StatusNotFound || errors.Is(err, ErrNoFile)
}
