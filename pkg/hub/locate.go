package hub

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"p2pagent/pkg/pieces"
)

// maxLocations bounds the memory of a client that runs for months: a location is
// about 1 KB of signed URL.
const maxLocations = 4096

type fileKey struct {
	repo   pieces.Repo
	commit pieces.Commit
	path   string
}

func (s section) key() fileKey { return fileKey{s.repo, s.commit, s.file.Path} }

// location is where the bytes of one file are now. Its lock is a channel, so
// that waiting for another request's answer ends with the context.
type location struct {
	lock chan struct{} // holds one token while url is being found
	url  *url.URL      // set once, under lock; then read-only
}

type locations struct {
	mu sync.Mutex
	of map[fileKey]*location
}

func (ls *locations) entry(k fileKey) *location {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l := ls.of[k]; l != nil {
		return l
	}
	for old := range ls.of {
		if len(ls.of) < maxLocations {
			break
		}
		delete(ls.of, old) // any: a location that is missed costs one HEAD
	}
	if ls.of == nil {
		ls.of = make(map[fileKey]*location)
	}
	l := &location{lock: make(chan struct{}, 1)}
	ls.of[k] = l
	return l
}

// forget drops a location that did not work, unless somebody has already found
// a new one: eight ranges whose URL expires together ask once.
func (ls *locations) forget(k fileKey, l *location) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.of[k] == l {
		delete(ls.of, k)
	}
}

// locate finds where a file's bytes are, by one HEAD per file that all ranges share.
func (c *Client) locate(ctx context.Context, s section) (*location, error) {
	l := c.locations.entry(s.key())
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", s.op(), context.Cause(ctx))
	}
	if l.url != nil {
		return l, nil
	}
	u, err := c.head(ctx, s)
	if err != nil {
		return nil, err
	}
	l.url = u
	return l, nil
}

// head asks the Hub for a file's location and compares what it says with the
// listing, before any byte is fetched.
func (c *Client) head(ctx context.Context, s section) (at *url.URL, err error) {
	r := request{op: s.op(), bucket: BucketResolvers, method: http.MethodHead, header: identity(),
		url: c.at(fileURL(s.repo, s.commit, s.file.Path), ""), missing: ErrEntryNotFound}
	err = c.retry(ctx, r, func(ctx context.Context) error {
		a, err := c.follow(ctx, r, true)
		if err != nil {
			return err
		}
		defer a.Body.Close()
		at, err = c.location(r, s, a)
		return err
	})
	return at, err
}

func (c *Client) location(r request, s section, a *answer) (*url.URL, error) {
	if !a.moved() {
		if err := c.check(r, a, http.StatusOK); err != nil {
			return nil, err
		}
		if err := s.direct(a); err != nil {
			return nil, err
		}
	}
	if err := s.agrees(a.Response); err != nil {
		return nil, err
	}
	if !a.moved() {
		return a.from, nil
	}
	r.url = a.from
	u, _, err := c.target(r, a.Header.Get("Location"))
	return u, err
}

// direct checks the headers of a server that has the bytes itself.
func (s section) direct(a *answer) error {
	if reason := oddContent(a.Header); reason != "" && !s.webPage(a.Header) {
		return &ProtocolError{Op: s.op(), Host: a.from.Host, Reason: reason}
	}
	if n := a.ContentLength; n >= 0 && n != s.file.Blob.Size {
		return s.disagree("Content-Length", strconv.FormatInt(s.file.Blob.Size, 10), strconv.FormatInt(n, 10))
	}
	return nil
}
