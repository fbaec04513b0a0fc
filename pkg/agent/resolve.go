package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// resolveAge is how old the swarm's answer to "where is this branch" may be:
// members that start within it cost the Hub one request in all.
const resolveAge = 30 * time.Second

// othersWait is how long a member that never asks the Hub waits for one that
// does: the Hub client's own deadline and some.
const othersWait = 40 * time.Second

// resolved is what a revision means.
type resolved struct {
	commit pieces.Commit
	access pieces.Access
	local  bool   // taken without the Hub
	closed bool   // because the Hub refused it to whoever asked
	notice string // why, and how old it is
}

// teller hears what the work is at and what it waits for; an empty state is the
// one of before.
type teller func(s State, waiting string)

// untold is for work that no job stands for.
func untold(State, string) {}

// Resolve returns the commit that a ref means now, and a notice when somebody else
// than the Hub said so. One member asks the Hub for the swarm.
func (a *Agent) Resolve(ctx context.Context, ref pieces.Ref) (commit pieces.Commit, notice string, err error) {
	name, err := a.resolve(ctx, ref, nil, untold)
	if err != nil {
		return "", "", fmt.Errorf("resolve %s: %w", ref, err)
	}
	return name.commit, name.notice, nil
}

// resolve finds the commit that a revision means, by this node's rights or the
// caller's.
func (a *Agent) resolve(ctx context.Context, ref pieces.Ref, caller *Rights, tell teller) (resolved, error) {
	if pieces.IsCommit(ref.Revision) {
		return resolved{commit: pieces.Commit(ref.Revision)}, nil
	}
	if s, err := a.opt.Cache.Snapshot(ref); a.opt.Offline && err == nil {
		return resolved{commit: s.Commit, local: true, notice: cachedNotice("this cache", s.Updated, errOffline)}, nil
	}
	if err := a.settle(ctx, tell); err != nil {
		return resolved{}, err
	}
	tell(Resolving, "what "+ref.String()+" means")
	raw, err := a.shared(ctx, "resolve/"+ref.String(), resolveAge, question{ref.Repo, caller, func(ctx context.Context, r *Rights) ([]byte, error) {
		commit, access, err := r.Hub.Resolve(ctx, ref)
		return resolveRecord(commit, access), err
	}})
	if err == nil {
		name, err := parseResolveRecord(string(raw))
		a.learnAccess(ref.Repo, name.access)
		return name, err
	}
	if ctx.Err() != nil || !(a.is(err, NotFound) || a.is(err, Unreachable) || a.is(err, Stalled)) {
		return resolved{}, err
	}
	name, without := a.resolveWithoutHub(ctx, ref, err)
	name.closed = a.is(err, NotFound)
	return name, without
}

// resolveRecord is what a revision means, and who may read the repository, when
// the Hub said so.
func resolveRecord(commit pieces.Commit, access pieces.Access) []byte {
	return []byte(strings.TrimSuffix(string(commit)+" "+string(access), " "))
}

func parseResolveRecord(s string) (resolved, error) {
	id, access, _ := strings.Cut(s, " ")
	commit, err := pieces.ParseCommit(id)
	return resolved{commit: commit, access: pieces.ParseAccess(access)}, err
}

// settle waits for the membership, so that a fleet that boots at once does not
// ask the Hub once for every member. Its end is bounded by the swarm.
func (a *Agent) settle(ctx context.Context, tell teller) error {
	tell("", "the swarm to settle")
	return a.opt.Swarm.Settled(ctx)
}

var errOffline = errors.New("the Hub is not asked (offline)")

// question is what one member asks the Hub for all.
type question struct {
	repo   pieces.Repo
	caller *Rights // tried where this node's own are refused; may be nil
	put    func(context.Context, *Rights) ([]byte, error)
}

// shared returns the record under key, which one member gets from the Hub for
// all. A member that never asks the Hub waits a while for one that does.
func (a *Agent) shared(ctx context.Context, key string, maxAge time.Duration, q question) ([]byte, error) {
	switch {
	case a.opt.Offline:
		raw, err := a.opt.Swarm.Record(ctx, key, maxAge, nil)
		if err != nil && a.is(err, NotFound) {
			err = Errorf(NotFound, "%w, and neither this cache nor a member in sight knows it", errOffline)
		}
		return raw, err
	case a.opt.Hub == nil:
		none := Errorf(Unreachable, "this member never asks the Hub, and no other member in sight did so for %v", othersWait)
		ctx, cancel := context.WithTimeoutCause(ctx, othersWait, none)
		defer cancel()
		return a.opt.Swarm.Record(ctx, key, maxAge, func(context.Context) ([]byte, error) { return nil, none })
	}
	return a.ask(ctx, key, maxAge, q)
}

var errGone = errors.New("who asked went away")

// ask puts a question to the Hub, unless a member knows the answer: once at a time
// for all that ask it here. What one was refused another may be told, by the rights
// of its own caller.
func (a *Agent) ask(ctx context.Context, key string, maxAge time.Duration, q question) ([]byte, error) {
	get := func(ctx context.Context) (raw []byte, err error) {
		err = a.byRights(q.repo, q.caller, func(r *Rights) (err error) { raw, err = q.put(ctx, r); return err })
		return raw, err
	}
	for context.Cause(ctx) == nil {
		mine := false
		answer := a.questions.DoChan(key, func() (any, error) {
			mine = true
			raw, err := a.opt.Swarm.Record(ctx, key, maxAge, get)
			if err != nil && context.Cause(ctx) != nil {
				err = errGone
			}
			return raw, err
		})
		select {
		case <-ctx.Done():
		case r := <-answer:
			if !errors.Is(r.Err, errGone) && (mine || q.caller == nil || !a.refused(r.Err)) {
				raw, _ := r.Val.([]byte)
				return raw, r.Err
			}
		}
	}
	return nil, fmt.Errorf("get record %s: %w", key, context.Cause(ctx))
}

// resolveWithoutHub finds a name that the Hub does not know, or can't be asked
// for: what was seeded here or elsewhere, then the ref in this cache, then that
// in another member's. why is returned when there is none.
func (a *Agent) resolveWithoutHub(ctx context.Context, ref pieces.Ref, why error) (resolved, error) {
	if n, ok := a.kept(ref); ok {
		return resolved{commit: pieces.Commit(n.Commit), local: true, notice: "seeded on this node"}, nil
	}
	if raw, err := a.opt.Swarm.Record(ctx, seededKey(ref), resolveAge, nil); err == nil {
		commit, err := pieces.ParseCommit(string(raw))
		return resolved{commit: commit, local: true, notice: "seeded in the swarm"}, err
	}
	if s, err := a.opt.Cache.Snapshot(ref); err == nil {
		return resolved{commit: s.Commit, local: true, notice: cachedNotice("this cache", s.Updated, why)}, nil
	}
	if raw, err := a.opt.Swarm.Record(ctx, cachedKey(ref), resolveAge, nil); err == nil {
		commit, at, err := parseCachedRef(string(raw))
		return resolved{commit: commit, local: true, notice: cachedNotice("a member", at, why)}, err
	}
	return resolved{}, why
}

func seededKey(ref pieces.Ref) string { return "seeded/" + ref.String() }
func cachedKey(ref pieces.Ref) string { return "cached/" + ref.String() }

// cachedRef is the record of a ref in somebody's cache: the commit and when it
// was what the branch meant.
func cachedRef(commit pieces.Commit, at time.Time) []byte {
	return fmt.Appendf(nil, "%s %d", commit, at.Unix())
}

func parseCachedRef(s string) (pieces.Commit, time.Time, error) {
	id, at, _ := strings.Cut(s, " ")
	commit, err := pieces.ParseCommit(id)
	if err != nil {
		return "", time.Time{}, Errorf(Integrity, "ref from the swarm: %w", err)
	}
	unix, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return "", time.Time{}, Errorf(Integrity, "ref from the swarm: time %q", at)
	}
	return commit, time.Unix(unix, 0), nil
}

func cachedNotice(whose string, at time.Time, why error) string {
	age := "of unknown age"
	if !at.IsZero() {
		age = ageOf(time.Since(at)) + " old"
	}
	return fmt.Sprintf("what %s last saw, %s, because: %v", whose, age, why)
}

// ageOf says a duration as people do.
func ageOf(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(max(d, 0).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
