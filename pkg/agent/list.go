package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"p2pagent/pkg/pieces"
)

// listing is an outline and where its blobs can come from.
type listing struct {
	outline *pieces.Outline
	seeded  bool // the Hub does not have this commit: only members do
	access  pieces.Access
}

// A record of an outline starts with one byte that says whose word it is, and of
// the Hub's what is known of who may read the repository.
const (
	fromHub           = 'h'
	fromHubOpen       = 'o'
	fromHubRestricted = 'r'
	fromSeeder        = 's'
)

var origins = map[byte]listing{
	fromHub:           {},
	fromHubOpen:       {access: pieces.AccessOpen},
	fromHubRestricted: {access: pieces.AccessRestricted},
	fromSeeder:        {seeded: true},
}

func (l listing) origin() byte {
	switch {
	case l.seeded:
		return fromSeeder
	case l.access == pieces.AccessOpen:
		return fromHubOpen
	case l.access == pieces.AccessRestricted:
		return fromHubRestricted
	}
	return fromHub
}

func (l listing) marshal() ([]byte, error) {
	b, err := l.outline.Marshal()
	if err != nil {
		return nil, err
	}
	return append([]byte{l.origin()}, b...), nil
}

func parseListing(raw []byte, repo pieces.Repo, commit pieces.Commit) (listing, error) {
	var l listing
	known := false
	if len(raw) > 0 {
		l, known = origins[raw[0]]
	}
	if !known {
		return listing{}, Errorf(Integrity, "outline of %s at %s from the swarm: unknown form", repo, commit)
	}
	o, err := pieces.ParseOutline(raw[1:])
	if err != nil {
		return listing{}, Errorf(Integrity, "outline of %s at %s from the swarm: %w", repo, commit, err)
	}
	if o.Repo != repo || o.Commit != commit {
		return listing{}, Errorf(Integrity, "outline of %s at %s from the swarm: it is of %s at %s", repo, commit, o.Repo, o.Commit)
	}
	l.outline = o
	return l, nil
}

func outlineKey(repo pieces.Repo, commit pieces.Commit) string {
	return "outline/" + repo.String() + "/" + string(commit)
}

// list returns the outline of the commit: this node's own, else what one member
// gets from the Hub for all, by its own rights or the caller's, else any member's.
func (a *Agent) list(ctx context.Context, repo pieces.Repo, name resolved, caller *Rights, tell teller) (listing, error) {
	if l, ok := a.known(repo, name.commit); ok {
		return l, nil
	}
	if err := a.settle(ctx, tell); err != nil {
		return listing{}, err
	}
	tell(Listing, "the list of files of "+repo.String())
	raw, err := a.listRecord(ctx, repo, name, caller)
	if err != nil {
		return listing{}, unlisted(name, err)
	}
	l, err := parseListing(raw, repo, name.commit)
	a.learnAccess(repo, l.access)
	return l, err
}

// known returns the outline of a commit that this node has seen before.
func (a *Agent) known(repo pieces.Repo, commit pieces.Commit) (listing, bool) {
	if v := a.shelf.view(repo, commit); v != nil {
		return listing{v.Outline, a.seededCommit(repo, commit), a.accessOf(repo)}, true
	}
	s, err := a.opt.Cache.Snapshot(pieces.Ref{Repo: repo, Revision: string(commit)})
	if err != nil || s.Outline == nil {
		return listing{}, false
	}
	return listing{s.Outline, a.seededCommit(repo, commit), a.accessOf(repo)}, true
}

func (a *Agent) listRecord(ctx context.Context, repo pieces.Repo, name resolved, caller *Rights) ([]byte, error) {
	key := outlineKey(repo, name.commit)
	if name.local { // the Hub does not know it, or can't be reached
		return a.opt.Swarm.Record(ctx, key, Forever, nil)
	}
	return a.shared(ctx, key, Forever, question{repo, caller, func(ctx context.Context, r *Rights) ([]byte, error) {
		o, err := r.Hub.List(ctx, repo, name.commit)
		if err != nil {
			return nil, err
		}
		return listing{outline: o, access: a.accessOf(repo)}.marshal()
	}})
}

// unlisted says more when nobody knows the files of a commit that was taken
// without the Hub.
func unlisted(name resolved, err error) error {
	if !name.local || name.notice == "" {
		return err
	}
	return Errorf(Partial, "commit %s (%s): no member in sight knows its files: %w", name.commit, name.notice, err)
}

func (a *Agent) is(err error, kind Kind) bool { return a.classify(err) == kind }

// Record answers other members from what this node has. It has the shape that
// the swarm's member asks for.
func (a *Agent) Record(key string) ([]byte, bool) {
	raw, err := a.record(key)
	if err != nil {
		return nil, false
	}
	return raw, true
}

var errUnknownRecord = errors.New("unknown record")

func (a *Agent) record(key string) ([]byte, error) {
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case "outline":
		return a.outlineRecord(rest)
	case "layout":
		return a.layoutRecord(rest)
	case "seeded":
		ref, err := pieces.ParseRef(rest)
		if err != nil {
			return nil, err
		}
		if n, ok := a.kept(ref); ok {
			return []byte(n.Commit), nil
		}
	case copyRecord, leavingRecord:
		return a.copyAnswer(kind, rest)
	case "cached":
		return a.cachedRecord(rest)
	}
	return nil, fmt.Errorf("record %q: %w", key, errUnknownRecord)
}

func (a *Agent) cachedRecord(rest string) ([]byte, error) {
	ref, err := pieces.ParseRef(rest)
	if err != nil {
		return nil, err
	}
	s, err := a.opt.Cache.Snapshot(ref)
	if err != nil {
		return nil, err
	}
	return cachedRef(s.Commit, s.Updated), nil
}

func (a *Agent) outlineRecord(rest string) ([]byte, error) {
	slash := strings.LastIndexByte(rest, '/')
	if slash < 0 {
		return nil, errUnknownRecord
	}
	repo, err := pieces.ParseRepo(rest[:slash])
	if err != nil {
		return nil, err
	}
	commit, err := pieces.ParseCommit(rest[slash+1:])
	if err != nil {
		return nil, err
	}
	l, ok := a.known(repo, commit)
	if !ok {
		return nil, errUnknownRecord
	}
	return l.marshal()
}
