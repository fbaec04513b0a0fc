package hub_test

import (
	"errors"
	"strings"
	"testing"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

const secret = "hf_verysecrettoken"

// refusal is a name that can't be read, and what the error says of it.
type refusal struct {
	ref, token string
	want       error
	says       string
}

// refused wants what the Hub says to become a permanent error with a hint, after
// one request, and no error to hold the token.
func refused(t *testing.T, refusals ...refusal) {
	t.Helper()
	leaktest.Check(t)
	s := guarded()
	endpoint := s.Start(t)
	for _, r := range refusals {
		s.ResetStats()
		c := newClient(t, hub.Options{Endpoint: endpoint, Token: func() (string, error) { return r.token, nil }})
		err := everything(t, c, ref(r.ref))
		if !errors.Is(err, r.want) || !hub.Permanent(err) || !strings.Contains(err.Error(), r.says) || strings.Contains(err.Error(), "hf_") {
			t.Errorf("%s: got %v (permanent: %v), want %v with %q", r.ref, err, hub.Permanent(err), r.want, r.says)
		}
		st := s.Stats()
		if n := st.Status[401] + st.Status[403] + st.Status[404]; n != 1 {
			t.Errorf("%s: %d requests were refused, want 1 and no retry", r.ref, n)
		}
	}
}

// guarded is a Hub with repositories that not everybody may read.
func guarded() *hubtest.Server {
	s := hubtest.New(hubtest.Options{Token: secret})
	files := model().Files
	s.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: files})
	s.AddRepo(hubtest.RepoSpec{ID: "org/private", Files: files, Private: true})
	s.AddRepo(hubtest.RepoSpec{ID: "org/gated", Files: files, Gated: true})
	s.AddRepo(hubtest.RepoSpec{ID: "org/disabled", Files: files, Disabled: true})
	return s
}

// R06: the repository is missing, or private: the Hub does not tell which.
//
// One request and no retry. The error says what may be wrong, depending on
// whether a token was shown.
func TestR06MissingOrPrivate(t *testing.T) {
	refused(t,
		refusal{"org/missing", "", hub.ErrRepoNotFound, "check the name, or set HF_TOKEN if it is private"},
		refusal{"org/missing", secret, hub.ErrRepoNotFound, "check the name; if it is private, the token in use may not read it"},
		refusal{"org/private", "", hub.ErrRepoNotFound, "set HF_TOKEN"},
		refusal{"datasets/org/model", "", hub.ErrRepoNotFound, "datasets/org/model@main"})
}

// R07: the repository is gated.
//
// One request and no retry. The error points to the page where its terms are
// accepted, and to the token.
func TestR07Gated(t *testing.T) {
	refused(t,
		refusal{"org/gated", "", hub.ErrGated, "accept its terms on its page at http://127.0.0.1"},
		refusal{"org/gated", "", hub.ErrGated, "and set HF_TOKEN"})
}

// R08: no such revision.
//
// One request and no retry, for a branch as for a commit.
func TestR08NoSuchRevision(t *testing.T) {
	refused(t,
		refusal{"org/model@v9", "", hub.ErrRevisionNotFound, "check the branch, tag or commit"},
		refusal{"org/model@" + strings.Repeat("0", 40), "", hub.ErrRevisionNotFound, "check the branch, tag or commit"})
}

// R08: the commit has no such file.
//
// One request and no retry, with an error of its own.
func TestR08NoSuchFile(t *testing.T) {
	s, c, o := loopback(t, hub.Options{})
	f := file(t, o, shard)
	f.Path = "absent.safetensors"
	_, err := readAll(t, c, o, f, 0, 10)
	if !errors.Is(err, hub.ErrEntryNotFound) || !hub.Permanent(err) || s.Stats().Status[404] != 1 {
		t.Errorf("got %v, status %v", err, s.Stats().Status)
	}
}

// R09: the Hub has taken the repository down.
//
// Permanent, with an error of its own.
func TestR09Disabled(t *testing.T) {
	refused(t, refusal{"org/disabled", "", hub.ErrDisabled, "repository is disabled"})
}

func TestToken(t *testing.T) {
	refused(t, refusal{"org/model", "hf_otherwrongtoken", hub.ErrUnauthorized, "the token in use was refused: check HF_TOKEN"})
	s := guarded()
	c := newClient(t, hub.Options{Endpoint: s.Start(t), Token: withToken})
	for _, r := range []string{"org/private", "org/gated"} {
		if err := everything(t, c, ref(r)); err != nil {
			t.Errorf("%s with the token: %v", r, err)
		}
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
