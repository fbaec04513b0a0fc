package hub_test

import (
	"errors"
	"strings"
	"testing"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

const secret = "hf_verysecrettoken"

// TestRefusals: what the Hub says becomes a typed error with a hint, after one
// request, and no error holds the token.
func TestRefusals(t *testing.T) {
	s := hubtest.New(hubtest.Options{Token: secret})
	files := model().Files
	s.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: files})
	s.AddRepo(hubtest.RepoSpec{ID: "org/private", Files: files, Private: true})
	s.AddRepo(hubtest.RepoSpec{ID: "org/gated", Files: files, Gated: true})
	s.AddRepo(hubtest.RepoSpec{ID: "org/disabled", Files: files, Disabled: true})
	endpoint := s.Start(t)
	for _, tc := range []struct {
		name, ref, token string
		want             error
		says             string
	}{
		{"R06 missing, anonymous", "org/missing", "", hub.ErrRepoNotFound, "check the name, or set HF_TOKEN if it is private"},
		{"R06 missing, with a token", "org/missing", secret, hub.ErrRepoNotFound, "check the name; if it is private, the token in use may not read it"},
		{"R06 private, anonymous", "org/private", "", hub.ErrRepoNotFound, "set HF_TOKEN"},
		{"private, with the token", "org/private", secret, nil, ""},
		{"a wrong token", "org/model", "hf_otherwrongtoken", hub.ErrUnauthorized, "the token in use was refused: check HF_TOKEN"},
		{"R07 gated, anonymous", "org/gated", "", hub.ErrGated, "accept its terms on its page at http://127.0.0.1"},
		{"R07 gated, anonymous", "org/gated", "", hub.ErrGated, "and set HF_TOKEN"},
		{"gated, with the token", "org/gated", secret, nil, ""},
		{"R08 no such revision", "org/model@v9", "", hub.ErrRevisionNotFound, "check the branch, tag or commit"},
		{"R08 no such commit", "org/model@" + strings.Repeat("0", 40), "", hub.ErrRevisionNotFound, "check the branch, tag or commit"},
		{"R09 disabled", "org/disabled", "", hub.ErrDisabled, "repository is disabled"},
		{"another kind", "datasets/org/model", "", hub.ErrRepoNotFound, "datasets/org/model@main"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.ResetStats()
			c := newClient(t, hub.Options{Endpoint: endpoint, Token: func() (string, error) { return tc.token, nil }})
			err := everything(t, c, ref(tc.ref))
			if !errors.Is(err, tc.want) || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.want, tc.says)
			}
			if err == nil {
				return
			}
			if !hub.Permanent(err) || strings.Contains(err.Error(), "hf_") {
				t.Errorf("permanent %v, or the token shows: %v", hub.Permanent(err), err)
			}
			st := s.Stats()
			if refused := st.Status[401] + st.Status[403] + st.Status[404]; refused != 1 {
				t.Errorf("%d requests were refused, want 1 and no retry", refused)
			}
		})
	}
}

// everything resolves, lists and reads a byte of every file.
func everything(t *testing.T, c *hub.Client, r pieces.Ref) error {
	commit, _, err := c.Resolve(t.Context(), r)
	if err != nil {
		return err
	}
	o, err := c.List(t.Context(), r.Repo, commit)
	if err != nil {
		return err
	}
	for _, f := range o.Files {
		if _, err := readAll(t, c, o, f, 0, min(1, f.Blob.Size)); err != nil {
			return err
		}
	}
	return nil
}

// TestBareStatuses: servers that are not the Hub send no code; the route tells
// what a 404 means.
func TestBareStatuses(t *testing.T) {
	for _, tc := range []struct {
		route     hubtest.Route
		status    int
		code      string
		want      error
		permanent bool
	}{
		{hubtest.Info, 404, "", hub.ErrRepoNotFound, true},
		{hubtest.Info, 410, "", hub.ErrRepoNotFound, true},
		{hubtest.Tree, 404, "", hub.ErrRevisionNotFound, true},
		{hubtest.Head, 404, "", hub.ErrEntryNotFound, true},
		{hubtest.Get, 404, "", hub.ErrEntryNotFound, true},
		{hubtest.Head, 404, "EntryNotFound", hub.ErrEntryNotFound, true},
		{hubtest.Get, 404, "EntryNotFound", hub.ErrEntryNotFound, true},
		{hubtest.Get, 404, "RepoNotFound", hub.ErrRepoNotFound, true},
		{hubtest.Info, 404, "RepoNotFound", hub.ErrRepoNotFound, true},
		{hubtest.Tree, 401, "", hub.ErrUnauthorized, true},
		{hubtest.Head, 403, "", hub.ErrUnauthorized, true},
		{hubtest.Head, 403, "GatedRepo", hub.ErrGated, true},
		{hubtest.Info, 400, "", nil, true},
		{hubtest.Info, 418, "", nil, true},
		{hubtest.Info, 304, "", nil, true},
		{hubtest.Head, 302, "", nil, true}, // a redirect to nowhere
		{hubtest.Info, 500, "", nil, false},
		{hubtest.Tree, 502, "", nil, false},
		{hubtest.Get, 503, "", nil, false},
		{hubtest.CDN, 504, "", nil, false},
		{hubtest.CDN, 401, "", nil, true},
		{hubtest.CDN, 404, "", nil, true},
	} {
		s, c, o := loopback(t, hub.Options{Retries: -1})
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: tc.route, Status: tc.status, Code: tc.code, Message: "because"})
		err := everything(t, c, pieces.Ref{Repo: o.Repo, Revision: "main"})
		var status *hub.StatusError
		if !errors.As(err, &status) || status.Status != tc.status || hub.Permanent(err) != tc.permanent || errors.Unwrap(status) != tc.want {
			t.Errorf("%s %d %s: got %v", tc.route, tc.status, tc.code, err)
		}
	}
}

func TestMessages(t *testing.T) {
	s, c, _ := loopback(t, hub.Options{})
	s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Info, Status: 400, Message: "no\x1b[31m good\nat all"})
	_, _, err := c.Resolve(t.Context(), ref("org/model"))
	want := "resolve org/model@main: 400 Bad Request ("
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), "answered 400, request Root=1-hubtest): no[31m good at all") {
		t.Errorf("got %q", err)
	}
}

// TestEverySentinelAnswers: Permanent is a method on all of them.
func TestEverySentinelAnswers(t *testing.T) {
	for _, err := range []error{hub.ErrRepoNotFound, hub.ErrGated, hub.ErrRevisionNotFound, hub.ErrEntryNotFound, hub.ErrDisabled, hub.ErrUnauthorized} {
		if !hub.Permanent(err) {
			t.Errorf("%v is permanent", err)
		}
	}
	for _, err := range []error{hub.ErrUnreachable, errors.New("other"), nil} {
		if hub.Permanent(err) {
			t.Errorf("%v is not permanent", err)
		}
	}
}
