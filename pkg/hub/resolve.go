package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"p2pagent/pkg/pieces"
)

// Resolve asks which commit a revision is, and who may read the repository. A
// revision that is a commit id already costs no request, and then nothing is known
// of the access; whether the commit exists, List tells.
func (c *Client) Resolve(ctx context.Context, ref pieces.Ref) (pieces.Commit, pieces.Access, error) {
	if pieces.IsCommit(ref.Revision) {
		return pieces.Commit(ref.Revision), pieces.AccessUnknown, nil
	}
	r := request{op: "resolve " + ref.String(), bucket: BucketAPI, method: http.MethodGet, header: identity(),
		url: c.at(revisionURL(ref.Repo, ref.Revision), ""), missing: ErrRepoNotFound}
	var info repoInfo
	if _, err := c.getJSON(ctx, r, &info); err != nil {
		return "", "", err
	}
	commit, err := pieces.ParseCommit(info.SHA)
	if err != nil {
		return "", "", &ProtocolError{Op: r.op, Host: c.endpoint.Host, Reason: "sha is no commit id"}
	}
	if info.ID != "" && info.ID != ref.Repo.Name {
		c.log.Info("repository has another name now", slog.String("asked", ref.Repo.Name), slog.String("is", tidy(info.ID, 200)))
	}
	return commit, info.access(), nil
}

// repoInfo is what is read of the Hub's description of a repository.
type repoInfo struct {
	ID      string `json:"id"`
	SHA     string `json:"sha"`
	Private *bool  `json:"private"`
	Gated   any    `json:"gated"` // false, "auto" or "manual"
}

// access is open only when the Hub says so: a mirror that leaves the fields out
// has said nothing.
func (i repoInfo) access() pieces.Access {
	switch {
	case i.Private == nil || i.Gated == nil:
		return pieces.AccessUnknown
	case !*i.Private && i.Gated == false:
		return pieces.AccessOpen
	}
	return pieces.AccessRestricted
}

// Refs asks for the branches, tags and pull requests of a repository. The names
// are whole: refs/heads/main.
func (c *Client) Refs(ctx context.Context, repo pieces.Repo) (map[string]pieces.Commit, error) {
	r := request{op: "list refs of " + repo.String(), bucket: BucketAPI, method: http.MethodGet, header: identity(),
		url: c.at(refsURL(repo), "include_prs=1"), missing: ErrRepoNotFound}
	var lists map[string][]struct {
		Ref    string `json:"ref"`
		Target string `json:"targetCommit"`
	}
	if _, err := c.getJSON(ctx, r, &lists); err != nil {
		return nil, err
	}
	out := map[string]pieces.Commit{}
	for _, list := range lists {
		for _, ref := range list {
			commit, err := pieces.ParseCommit(ref.Target)
			if err != nil || pieces.CheckRevision(ref.Ref) != nil {
				return nil, &ProtocolError{Op: r.op, Host: c.endpoint.Host, Reason: "a ref that can't be: " + tidy(ref.Ref, 200)}
			}
			out[ref.Ref] = commit
		}
	}
	return out, nil
}

// MayRead asks the Hub whether whoever has the client's token may read a file, in
// one request that is not repeated; nil means yes.
func (c *Client) MayRead(ctx context.Context, repo pieces.Repo, commit pieces.Commit, path string) error {
	r := request{op: fmt.Sprintf("may a caller read %s", repo), bucket: BucketResolvers, method: http.MethodHead, header: identity(),
		url: c.at(fileURL(repo, commit, path), ""), missing: ErrRepoNotFound}
	return c.once(ctx, r, func(ctx context.Context) error {
		a, err := c.follow(ctx, r, true)
		if err != nil {
			return err
		}
		if a.moved() { // to where the bytes are: that is a yes
			return a.Body.Close()
		}
		if err := c.check(r, a, http.StatusOK); err != nil {
			return err
		}
		return a.Body.Close()
	})
}
