package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"p2pagent/pkg/pieces"
)

// Refs returns what the branches, tags and pull requests of a repository mean, by
// their whole names (refs/heads/main). One member asks the Hub for the swarm; when
// it can't be asked, those that this cache knows are returned. The token, "" for
// none, is the caller's: see View.
func (a *Agent) Refs(ctx context.Context, repo pieces.Repo, token string) (map[string]pieces.Commit, error) {
	refs, err := a.share(ctx, "refs/"+repo.String()+" "+tokenName(token), func(ctx context.Context) (any, error) {
		if err := a.settle(ctx, untold); err != nil {
			return nil, err
		}
		caller, done := a.lender.borrow(token)
		defer done()
		return a.refs(ctx, repo, caller)
	})
	if err != nil {
		return nil, fmt.Errorf("refs of %s: %w", repo, err)
	}
	return refs.(map[string]pieces.Commit), nil
}

func (a *Agent) refs(ctx context.Context, repo pieces.Repo, caller *Rights) (map[string]pieces.Commit, error) {
	raw, err := a.shared(ctx, "refs/"+repo.String(), resolveAge, question{repo, caller, func(ctx context.Context, r *Rights) ([]byte, error) {
		refs, err := r.Hub.Refs(ctx, repo)
		if err != nil {
			return nil, err
		}
		return json.Marshal(refs)
	}})
	if err != nil {
		return a.cachedRefs(repo, err)
	}
	return parseRefs(raw)
}

// maxRefs bounds what a member can make this one believe.
const maxRefs = 1 << 16

func parseRefs(raw []byte) (map[string]pieces.Commit, error) {
	var refs map[string]pieces.Commit
	if err := json.Unmarshal(raw, &refs); err != nil || len(refs) > maxRefs {
		return nil, Errorf(Integrity, "refs from the swarm: unknown form")
	}
	for name, commit := range refs {
		if !pieces.IsCommit(string(commit)) || pieces.CheckRevision(name) != nil {
			return nil, Errorf(Integrity, "refs from the swarm: %q means %q", name, commit)
		}
	}
	return refs, nil
}

// cachedRefs are those of the cache; why is returned when it has none.
func (a *Agent) cachedRefs(repo pieces.Repo, why error) (map[string]pieces.Commit, error) {
	all, err := a.opt.Cache.List()
	if err != nil {
		return nil, err
	}
	out := map[string]pieces.Commit{}
	for _, s := range all {
		for _, revision := range s.Revisions {
			if s.Repo == repo {
				out[wholeRef(revision)] = s.Commit
			}
		}
	}
	if len(out) == 0 {
		return nil, why
	}
	return out, nil
}

func wholeRef(revision string) string {
	if strings.HasPrefix(revision, "refs/") {
		return revision
	}
	return "refs/heads/" + revision
}
