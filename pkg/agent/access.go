package agent

import (
	"context"
	"time"

	"p2pagent/pkg/pieces"
)

// accessAge is how long the Hub's word on who may read a repository is taken
// without asking again.
const accessAge = time.Hour

// accessNote is the Hub's word, heard by this member or another one.
type accessNote struct {
	access pieces.Access
	at     time.Time // zero: by an earlier process
}

// maxAccess bounds what is remembered of repositories that nobody fetched.
const maxAccess = 4096

// learnAccess notes what the Hub said; nothing is not worth noting.
func (a *Agent) learnAccess(repo pieces.Repo, access pieces.Access) {
	if access == pieces.AccessUnknown {
		return
	}
	s := a.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	for old := range s.access {
		if len(s.access) < maxAccess {
			break
		}
		delete(s.access, old) // any: it is asked for again
	}
	s.access[repo] = accessNote{access, time.Now()}
}

// accessOf returns what is known, however old.
func (a *Agent) accessOf(repo pieces.Repo) pieces.Access { return a.accessNote(repo).access }

func (a *Agent) accessNote(repo pieces.Repo) accessNote {
	a.shelf.mu.Lock()
	n, ok := a.shelf.access[repo]
	a.shelf.mu.Unlock()
	if ok {
		return n
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return accessNote{access: a.accesses[repo.String()]}
}

// keepAccess writes down what is known of a repository that is in the cache now;
// durable on return.
func (a *Agent) keepAccess(repo pieces.Repo) error {
	now := a.accessOf(repo)
	a.mu.Lock()
	same := a.accesses[repo.String()] == now
	if !same {
		a.accesses[repo.String()] = now
	}
	a.mu.Unlock()
	if same {
		return a.saveUnsaved()
	}
	return a.saveNotes()
}

// Open tells whether everybody may read the repository, by what the Hub said
// lately. A name that was seeded here or by a member is no secret of the Hub's.
func (a *Agent) Open(v *View) bool {
	if a.seededCommit(v.Outline.Repo, v.Outline.Commit) {
		return true
	}
	n := a.accessNote(v.Outline.Repo)
	return n.access == pieces.AccessOpen && time.Since(n.at) < accessAge
}

// MayRead tells whether whoever has the token may read a commit: nil, or why not.
// The Hub is asked each time, with that token alone. When it can't be reached, a
// repository that was open when it last answered is open.
func (a *Agent) MayRead(ctx context.Context, v *View, token string) error {
	o := v.Outline
	last := a.accessOf(o.Repo)
	switch {
	case len(o.Files) == 0:
		return nil
	case a.opt.Hub == nil || a.opt.Offline:
		return a.mayReadOffline(o.Repo, last)
	}
	err := a.opt.As(token).Hub.MayRead(ctx, o.Repo, o.Commit, o.Files[0].Path)
	switch {
	case err == nil && token == "":
		a.learnAccess(o.Repo, pieces.AccessOpen)
	case err != nil && last == pieces.AccessOpen && (a.is(err, Unreachable) || a.is(err, Stalled)):
		return nil
	}
	return err
}

func (a *Agent) mayReadOffline(repo pieces.Repo, last pieces.Access) error {
	if last == pieces.AccessOpen {
		return nil
	}
	return Errorf(Denied, "%s may be gated or private, and this member does not ask the Hub who may read it; list it with --gateway-open to serve it to everybody on this node", repo)
}
