package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"p2pagent/internal/layout"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
)

// Rights are the Hub as one token, or none, opens it.
type Rights struct {
	// Hub is the upstream; nil when this agent never asks it: then names, listings
	// and blobs come from members that do.
	Hub Hub
	// Source makes what opens the blobs of one job upstream. What it opens may tell its
	// Host as the Hub's bodies do. nil takes Opening.Plain as it is.
	Source func(Opening) seeder.Source
	// Layout asks the Hub's store what a file is made of; nil when this member never
	// asks.
	Layout func(ctx context.Context, o *pieces.Outline, f pieces.File) (layout.Layout, error)
}

// lender keeps the rights of callers while something is done by them, and no
// longer. Jobs of one caller have theirs in common, for a right to the Hub's store
// costs a request.
type lender struct {
	as func(token string) Rights

	mu    sync.Mutex
	loans map[string]*loan // by tokenName
}

type loan struct {
	rights Rights
	users  int
}

// borrow returns the rights of a token until done is called; nil when there is
// none, or no Hub to show it to.
func (l *lender) borrow(token string) (r *Rights, done func()) {
	if token == "" || l.as == nil {
		return nil, func() {}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name := tokenName(token)
	got := l.loans[name]
	if got == nil {
		got = &loan{rights: l.as(token)}
		l.loans[name] = got
	}
	got.users++
	return &got.rights, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if got.users--; got.users == 0 {
			delete(l.loans, name)
		}
	}
}

// tokenName stands for a token where it is only to be told from others; "" for none.
func tokenName(token string) string {
	if token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// byRights does something about a repository by this node's own rights and, when
// the Hub refuses it to them, by the caller's, which may be nil. Which of them is
// asked first is remembered: in a repository that is closed to this node each
// refusal would cost the Hub a request. When both are refused, the error is the
// caller's.
func (a *Agent) byRights(repo pieces.Repo, caller *Rights, do func(*Rights) error) error {
	own := &a.opt.Rights
	if caller == nil {
		return do(own)
	}
	if a.shelf.isClosed(repo) {
		err := do(caller)
		if a.refused(err) && do(own) == nil {
			a.shelf.setClosed(repo, false)
			return nil
		}
		return err
	}
	err := do(own)
	if !a.refused(err) {
		return err
	}
	if err = do(caller); err == nil {
		a.shelf.setClosed(repo, true)
	}
	return err
}

// refused tells whether other rights may help: the Hub says of a private
// repository that there is none.
func (a *Agent) refused(err error) bool {
	return err != nil && (a.is(err, Denied) || a.is(err, NotFound))
}

// closedFor is how long a repository counts as closed to this node's own rights.
const closedFor = 10 * time.Minute

func (s *shelf) isClosed(repo pieces.Repo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.closed[repo]) < closedFor
}

func (s *shelf) setClosed(repo pieces.Repo, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.closed) >= maxAccess {
		clear(s.closed) // each is found out again
	}
	if closed {
		s.closed[repo] = time.Now()
	} else {
		delete(s.closed, repo)
	}
}
