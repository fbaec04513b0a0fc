package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"p2pagent/pkg/pieces"
)

// callers remember whom the Hub lets read what. Of a token only a hash is kept,
// under a key that lives as long as the process.
type callers struct {
	key    []byte
	checks singleflight.Group

	mu    sync.Mutex
	known map[caller]verdict
}

// caller is somebody who asks for a commit.
type caller [sha256.Size]byte

type verdict struct {
	err   *Refusal // nil: may read
	until time.Time
}

const (
	maxCallers = 4096
	checkWait  = 10 * time.Second
	denialLife = 30 * time.Second // somebody may be accepting the terms right now
)

func newCallers() *callers {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return &callers{key: key, known: map[caller]verdict{}}
}

// name hashes a token with what is asked for.
func (c *callers) name(token string, o *pieces.Outline) caller {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte(o.Repo.String() + "\x00" + string(o.Commit) + "\x00" + token))
	return caller(h.Sum(nil))
}

func tokenOf(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// allow returns why the caller may not read the commit, or nil. The Hub is asked
// once for all requests of a caller that come at the same time, and goes on being
// asked when one of them leaves.
func (g *Gateway) allow(ctx context.Context, s Snapshot, token string) error {
	if s.Open() || g.everyone(s.Outline().Repo) {
		return nil
	}
	who := g.callers.name(token, s.Outline())
	if v, ok := g.callers.recall(who); ok {
		return v.result()
	}
	asked := g.callers.checks.DoChan(string(who[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkWait)
		defer cancel()
		err := s.MayRead(ctx)
		g.callers.remember(who, err)
		return nil, err
	})
	select {
	case answer := <-asked:
		return answer.Err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// result keeps a nil pointer from becoming an error.
func (v verdict) result() error {
	if v.err == nil {
		return nil
	}
	return v.err
}

func (c *callers) recall(who caller) (verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.known[who]
	return v, ok && time.Now().Before(v.until)
}

// remember keeps a clear answer.
func (c *callers) remember(who caller, err error) {
	v := verdict{until: time.Now().Add(verdictLife)}
	if err != nil {
		if v.err = refusalOf(err); v.err.Code == Busy || v.err.Code == Failed {
			return
		}
		v.until = time.Now().Add(denialLife)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for old, was := range c.known {
		if len(c.known) < maxCallers && time.Now().Before(was.until) {
			break
		}
		delete(c.known, old)
	}
	c.known[who] = v
}
