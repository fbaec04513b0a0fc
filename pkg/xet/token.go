package xet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"p2pagent/internal/stall"
	"p2pagent/pkg/pieces"
)

// Grant is the right to read the files of one repository at one commit.
type Grant struct {
	Token string
	CAS   string        // base URL of the store that takes it
	Life  time.Duration // by the clock of the server that gave it
}

// renewBefore is how long before its end a token is replaced: a request that is
// under way must not find it expired. A token of a short life is renewed at half.
const renewBefore = 30 * time.Second

type grantKey struct {
	repo   pieces.Repo
	commit pieces.Commit
}

// grants keeps one token for each repository and commit. The lock is not held
// while one is asked for: the first caller asks and the others wait for it.
type grants struct {
	ask func(context.Context, pieces.Repo, pieces.Commit) (Grant, error)

	mu sync.Mutex
	of map[grantKey]*asking
}

// maxGrants bounds the memory of a client that runs for months.
const maxGrants = 256

// asking is a request for a token, under way or done.
type asking struct {
	done  chan struct{}
	grant Grant
	renew time.Time
	err   error
	left  bool // who asked went away: the answer says nothing
}

func (g *grants) get(ctx context.Context, k grantKey) (Grant, error) {
	for {
		a, mine := g.join(k)
		if mine {
			g.run(ctx, k, a)
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return Grant{}, context.Cause(ctx)
		}
		if a.left && !mine {
			continue
		}
		return a.grant, a.err
	}
}

// join returns the request to wait for; mine tells that the caller has to make it.
func (g *grants) join(k grantKey) (a *asking, mine bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if a = g.of[k]; a != nil && !a.over() {
		return a, false
	}
	if g.of == nil || len(g.of) >= maxGrants {
		g.of = make(map[grantKey]*asking)
	}
	a = &asking{done: make(chan struct{})}
	g.of[k] = a
	return a, true
}

// over tells whether a new token is due.
func (a *asking) over() bool {
	select {
	case <-a.done:
		return a.err != nil || !time.Now().Before(a.renew)
	default:
		return false
	}
}

func (g *grants) run(ctx context.Context, k grantKey, a *asking) {
	defer close(a.done)
	asked := time.Now()
	a.grant, a.err = g.askWithin(ctx, k)
	a.left = a.err != nil && context.Cause(ctx) != nil
	a.renew = asked.Add(a.grant.Life - min(renewBefore, a.grant.Life/2))
}

func (g *grants) askWithin(ctx context.Context, k grantKey) (Grant, error) {
	late := fmt.Errorf("%w: no token for %v", stall.ErrStalled, planWait)
	ctx, cancel := context.WithTimeoutCause(ctx, planWait, late)
	defer cancel()
	return g.ask(ctx, k.repo, k.commit)
}

// drop forgets a token that the store refused, unless there is a newer one.
func (g *grants) drop(k grantKey, refused Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := g.of[k]
	if a == nil {
		return
	}
	select {
	case <-a.done:
		if a.grant == refused {
			delete(g.of, k)
		}
	default:
	}
}
