package hub_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/stall"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// bubble runs a test with a Hub and a client in virtual time.
func bubble(t *testing.T, o hub.Options, test func(t *testing.T, s *hubtest.Server, c *hub.Client, outline *pieces.Outline)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{})
		commit := s.AddRepo(model())
		o.Endpoint, o.Transport = hubtest.MemoryHub, s.Memory(t).Transport(t)
		test(t, s, newClient(t, o), s.Outline("org/model", commit))
	})
}

const shard = "model-00001-of-00002.safetensors"

func TestS01BodyGoesSilent(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
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
		rest, err := readAll(t, c, o, f, half, f.Blob.Size-half)
		h := f.Blob.NewHash()
		h.Write(append(data, rest...))
		if err != nil || f.Blob.Check(h) != nil {
			t.Errorf("the rest: %d bytes, %v", len(rest), err)
		}
		if st := s.Stats(); st.MaxCoverage != 1 || st.Calls[hubtest.Head] != 1 {
			t.Errorf("coverage %d, calls %v", st.MaxCoverage, st.Calls)
		}
	})
}

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

func TestS04HeadNeverAnswers(t *testing.T) {
	bubble(t, hub.Options{}, func(t *testing.T, s *hubtest.Server, c *hub.Client, o *pieces.Outline) {
		s.Fail(hubtest.Fault{Do: hubtest.Silent, Route: hubtest.Head})
		if _, err := readAll(t, c, o, file(t, o, shard), 0, 10); !errors.Is(err, stall.ErrStalled) {
			t.Errorf("got %v", err)
		}
		if data, err := readAll(t, c, o, file(t, o, "config.json"), 0, 10); err != nil || len(data) != 10 {
			t.Errorf("a git file needs no HEAD: %v", err)
		}
	})
}

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
