package hub_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/leaktest"
	"p2pagent/internal/stall"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// bubble runs a test with a Hub and a client in virtual time.
func bubble(t *testing.T, o hub.Options, test func(t *testing.T, s *hubtest.Server, c *hub.Client, outline *pieces.Outline)) {
	t.Helper()
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{})
		commit := s.AddRepo(model())
		o.Endpoint, o.Transport = hubtest.MemoryHub, s.Memory(t).Transport(t)
		test(t, s, newClient(t, o), s.Outline("org/model", commit))
	})
}

const shard = "model-00001-of-00002.safetensors"

// S01: the body goes silent half way, the socket stays open.
//
// The range is dropped after 15 s and asked for again at the first byte that is
// missing; the log has the host and the offset.
func TestS01BodyGoesSilent(t *testing.T) {
	var log bytes.Buffer
	bubble(t, hub.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		f := file(t, o, shard)
		half := f.Blob.Size / 2
		s.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, Nth: 1, At: half})
		start := time.Now()
		data, err := readAll(t, c, o, f, 0, f.Blob.Size)
		var body *hub.BodyError
		if !errors.Is(err, stall.ErrStalled) || !errors.As(err, &body) || body.Offset != half || body.Host != "cdn.test" {
			t.Fatalf("got %v", err)
		}
		if int64(len(data)) != half || time.Since(start) != 15*time.Second || hub.Permanent(err) {
			t.Errorf("got %d bytes after %v", len(data), time.Since(start))
		}
		if n := c.Counts(); n.Stalls != 1 {
			t.Errorf("counted %+v", n)
		}
		rest, err := readAll(t, c, o, f, half, f.Blob.Size-half)
		h := f.Blob.NewHash()
		h.Write(append(data, rest...))
		if err != nil || f.Blob.Check(h) != nil {
			t.Errorf("the rest: %d bytes, %v", len(rest), err)
		}
		if st := s.Stats(); st.MaxCoverage != 1 || st.Calls[hubtest.Head] != 1 {
			t.Errorf("coverage %d, calls %v", st.MaxCoverage, st.Calls)
		}
		if want := "host=cdn.test offset=2621440"; strings.Count(log.String(), "upstream stalled") != 1 || !strings.Contains(log.String(), want) {
			t.Errorf("the log wants one stall at %s:\n%s", want, &log)
		}
	})
}

// S02: no response headers, ever.
//
// The connection is dropped after 15 s with an error that says so; the next
// request uses another one.
func TestS02NoResponseHeaders(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Silent, Route: hubtest.CDN, Nth: 1})
		start := time.Now()
		_, err := readAll(t, c, o, file(t, o, shard), 0, 10)
		var late *hub.DeadlineError
		if !errors.As(err, &late) || !errors.Is(err, stall.ErrStalled) || hub.Permanent(err) ||
			!strings.Contains(err.Error(), "http://cdn.test: stalled: no response headers for 15s") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != 15*time.Second {
			t.Errorf("took %v", took)
		}
		if data, err := readAll(t, c, o, file(t, o, shard), 0, 10); err != nil || len(data) != 10 {
			t.Errorf("again: %d bytes, %v", len(data), err)
		}
	})
}

// S03: an API call never answers.
//
// Each of five tries ends after 15 s, all after a minute and a half; the error
// names the URL.
func TestS03APINeverAnswers(t *testing.T) {
	for _, route := range []hubtest.Route{hubtest.Info, hubtest.Tree} {
		bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
			s.Fail(hubtest.Fault{Do: hubtest.Silent, Route: route})
			start := time.Now()
			err := api(t, c, o)
			if !errors.Is(err, stall.ErrStalled) || !strings.Contains(err.Error(), "http://hub.test/api/models/org/model/") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took < 75*time.Second || took > 90*time.Second {
				t.Errorf("took %v for five tries of 15 s", took)
			}
			if n := s.Stats().Calls[route]; n != 5 {
				t.Errorf("%d tries", n)
			}
		})
	}
}

// api makes both API calls.
func api(t *testing.T, c *hub.Client, o *pieces.Outline) error {
	commit, _, err := c.Resolve(t.Context(), pieces.Ref{Repo: o.Repo, Revision: "main"})
	if err != nil {
		return err
	}
	_, err = c.List(t.Context(), o.Repo, commit)
	return err
}

// S03: the answer to an API call stops or crawls.
//
// A try as a whole ends after 30 s.
func TestS03APIBodyStalls(t *testing.T) {
	for _, kind := range []hubtest.Kind{hubtest.Stall, hubtest.Slow} {
		bubble(t, hub.Options{Retries: 1}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
			s.Fail(hubtest.Fault{Do: kind, Route: hubtest.Tree, At: 10, Rate: 1, Every: 3 * time.Second})
			start := time.Now()
			err := api(t, c, o)
			if !errors.Is(err, stall.ErrStalled) || !strings.Contains(err.Error(), "no whole answer for 30s") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took < 60*time.Second || took > 61*time.Second {
				t.Errorf("took %v for two tries of 30 s", took)
			}
		})
	}
}

// S18: a NAT forgets the pooled connections without a word.
//
// The request on one of them gets no answer within 15 s. All pooled connections
// are closed then, so that the next try has a new one.
func TestS18ForgottenConnections(t *testing.T) {
	behindNAT(t, func(t *testing.T, s *hubtest.Server, nat *nat, c *hub.Client, o *pieces.Outline) {
		resolve := func() {
			if _, _, err := c.Resolve(t.Context(), ref("org/model")); err != nil {
				t.Error(err)
			}
		}
		atOnce(s, 4, resolve)
		nat.forget()
		start := time.Now()
		resolve()
		if took := time.Since(start); took < 15*time.Second || took > 16*time.Second {
			t.Errorf("answered after %v", took)
		}
	})
}

// S18: a NAT forgets all connections in the middle of a body.
//
// The body stalls and ends after 15 s. The pooled connections are closed with it,
// so that the rest of the range comes at once on a new one.
func TestS18ForgottenDuringABody(t *testing.T) {
	behindNAT(t, func(t *testing.T, s *hubtest.Server, nat *nat, c *hub.Client, o *pieces.Outline) {
		f := file(t, o, shard)
		atOnce(s, 4, func() {
			if _, err := readAll(t, c, o, f, 0, 10); err != nil {
				t.Error(err)
			}
		})
		s.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Nth: 1, At: 1 << 20, Rate: 1 << 20})
		start := time.Now()
		time.AfterFunc(1500*time.Millisecond, nat.forget)
		data, err := readAll(t, c, o, f, 0, f.Blob.Size)
		if !errors.Is(err, stall.ErrStalled) || len(data) != 2<<20 {
			t.Errorf("got %d bytes, %v", len(data), err)
		}
		rest, err := readAll(t, c, o, f, int64(len(data)), f.Blob.Size-int64(len(data)))
		if err != nil || !whole(t, f, append(data, rest...)) || time.Since(start) > 17*time.Second {
			t.Errorf("the rest after %v: %v", time.Since(start), err)
		}
	})
}

// behindNAT is bubble with a NAT between the client and the Hub.
func behindNAT(t *testing.T, test func(t *testing.T, s *hubtest.Server, nat *nat, c *hub.Client, o *pieces.Outline)) {
	t.Helper()
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{})
		commit := s.AddRepo(model())
		transport, nat := s.Memory(t).Transport(t), new(nat)
		dial := transport.DialContext
		transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return nat.pass(conn), err
		}
		test(t, s, nat, newClient(t, hub.Options{Endpoint: hubtest.MemoryHub, Transport: transport}), s.Outline("org/model", commit))
	})
}

// atOnce makes n requests that overlap, so that each has a connection of its own.
func atOnce(s *hubtest.Server, n int, request func()) {
	s.Fail(hubtest.Fault{Do: hubtest.Slow, Rate: 1 << 20})
	var wg sync.WaitGroup
	for range n {
		wg.Go(request)
	}
	wg.Wait()
	s.Heal()
}

// nat is in between; what it has forgotten it drops.
type nat struct {
	mu    sync.Mutex
	flows []*flow
}

type flow struct {
	net.Conn
	forgotten atomic.Bool
}

func (f *flow) Read(p []byte) (int, error) {
	for {
		n, err := f.Conn.Read(p)
		if err != nil || !f.forgotten.Load() {
			return n, err
		}
	}
}

func (f *flow) Write(p []byte) (int, error) {
	if f.forgotten.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

func (n *nat) pass(c net.Conn) net.Conn {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &flow{Conn: c}
	n.flows = append(n.flows, f)
	return f
}

func (n *nat) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range n.flows {
		f.forgotten.Store(true)
	}
}

// S04: the question where a file is never answers.
//
// It ends as an API call does. Files that the Hub keeps in git need no such
// question.
func TestS04HeadNeverAnswers(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Silent, Route: hubtest.Head})
		start := time.Now()
		if _, err := readAll(t, c, o, file(t, o, shard), 0, 10); !errors.Is(err, stall.ErrStalled) || !strings.Contains(err.Error(), "http://hub.test/org/model/resolve/") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took < 75*time.Second || took > 90*time.Second {
			t.Errorf("took %v for five tries of 15 s", took)
		}
		if data, err := readAll(t, c, o, file(t, o, "config.json"), 0, 10); err != nil || len(data) != 10 {
			t.Errorf("a git file needs no HEAD: %v", err)
		}
	})
}

// S05: every body stalls from its first byte on.
//
// Each try ends after 15 s; no goroutine is left behind.
func TestS05EveryConnectionStalls(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Stall})
		start := time.Now()
		for range 3 {
			if _, err := readAll(t, c, o, file(t, o, "config.json"), 0, 25); !errors.Is(err, stall.ErrStalled) {
				t.Errorf("got %v", err)
			}
		}
		if took := time.Since(start); took != 45*time.Second {
			t.Errorf("three tries took %v", took)
		}
	}) // a goroutine that is left behind fails the bubble
}

// S08: a byte each three seconds, for ever.
//
// Less than 256 KiB/s over a minute ends the body, though it is never silent for
// long.
func TestS08Trickle(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.CDN, Rate: 1, Every: 3 * time.Second})
		start := time.Now()
		_, err := readAll(t, c, o, file(t, o, shard), 0, 5<<20)
		var slow *stall.Error
		if !errors.As(err, &slow) || slow.Floor != 15<<20 {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("noticed after %v", took)
		}
	})
}

func TestErrorBodyStalls(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.AddRepo(hubtest.RepoSpec{ID: "org/private", Private: true})
		s.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.Info, At: 5, Header: map[string]string{"X-Error-Message": ""}})
		start := time.Now()
		_, _, err := c.Resolve(t.Context(), ref("org/private"))
		if !errors.Is(err, hub.ErrRepoNotFound) || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

func TestCancelSaysWhy(t *testing.T) {
	why := errors.New("the job was abandoned")
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.CDN, At: 5})
		s.Fail(hubtest.Fault{Do: hubtest.Silent, Route: hubtest.Info})
		ctx, cancel := contextWithCause(t, time.Second, why)
		defer cancel()
		if _, _, err := c.Resolve(ctx, ref("org/model")); !errors.Is(err, why) {
			t.Errorf("resolve: got %v", err)
		}
		ctx, cancel = contextWithCause(t, time.Second, why)
		defer cancel()
		rc, err := c.Open(ctx, o.Repo, o.Commit, file(t, o, shard), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		if data, err := io.ReadAll(rc); !errors.Is(err, why) || len(data) != 5 {
			t.Errorf("body: got %d bytes, %v", len(data), err)
		}
	})
}

func TestNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, context.Cause(ctx) }
		c := newClient(t, hub.Options{Endpoint: hubtest.MemoryHub, Transport: &http.Transport{DialContext: hang}, APITimeout: time.Minute, Retries: -1})
		start := time.Now()
		_, _, err := c.Resolve(t.Context(), ref("org/model"))
		if !errors.Is(err, stall.ErrStalled) || !strings.Contains(err.Error(), "stalled: no connection for 35s") || time.Since(start) != 35*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}
