package hub

import (
	"context"
	"log/slog"
	"net/http"

	"p2pagent/pkg/pieces"
)

// Resolve asks which commit a revision is. A revision that is a commit id already
// costs no request; whether it exists, List tells.
func (c *Client) Resolve(ctx context.Context, ref pieces.Ref) (pieces.Commit, error) {
	if pieces.IsCommit(ref.Revision) {
		return pieces.Commit(ref.Revision), nil
	}
	r := request{op: "resolve " + ref.String(), bucket: BucketAPI, method: http.MethodGet, header: identity(),
		url: c.at(revisionURL(ref.Repo, ref.Revision), ""), missing: ErrRepoNotFound}
	var info struct {
		ID  string `json:"id"`
		SHA string `json:"sha"`
	}
	if _, err := c.getJSON(ctx, r, &info); err != nil {
		return "", err
	}
	commit, err := pieces.ParseCommit(info.SHA)
	if err != nil {
		return "", &ProtocolError{Op: r.op, Host: c.endpoint.Host, Reason: "sha is no commit id"}
	}
	if info.ID != "" && info.ID != ref.Repo.Name {
		c.log.Info("repository has another name now", slog.String("asked", ref.Repo.Name), slog.String("is", tidy(info.ID, 200)))
	}
	return commit, nil
}
