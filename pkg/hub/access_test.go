package hub_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// The Hub's word on who may read, in all its forms.
func TestResolveAccess(t *testing.T) {
	for body, want := range map[string]pieces.Access{
		`"private":false,"gated":false`:    pieces.AccessOpen,
		`"private":true,"gated":false`:     pieces.AccessRestricted,
		`"private":false,"gated":"auto"`:   pieces.AccessRestricted,
		`"private":false,"gated":"manual"`: pieces.AccessRestricted,
		`"private":false,"gated":true`:     pieces.AccessRestricted,
		`"private":false`:                  pieces.AccessUnknown,
		`"gated":false`:                    pieces.AccessUnknown,
		`"private":false,"gated":null`:     pieces.AccessUnknown,
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"sha":"0123456789012345678901234567890123456789",` + body + `}`))
		}))
		c, err := hub.New(hub.Options{Endpoint: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.Resolve(t.Context(), ref("org/model")); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", body, got, err, want)
		}
		c.CloseIdle()
		srv.Close()
	}
}

// A caller's right is asked for with the caller's token alone, which goes no
// further than the Hub.
func TestMayRead(t *testing.T) {
	s := hubtest.New(hubtest.Options{Token: "hf_caller"})
	url := s.Start(t)
	big := []hubtest.File{{Path: "w", Content: hubtest.Generated(1, 2<<20)}, {Path: "small", Content: hubtest.Bytes([]byte("x"))}}
	commits := map[string]pieces.Commit{}
	for _, spec := range []hubtest.RepoSpec{{ID: "org/open"}, {ID: "org/gated", Gated: true}, {ID: "org/private", Private: true}} {
		spec.Files = big
		commits[spec.ID] = s.AddRepo(spec)
	}
	c, err := hub.New(hub.Options{Endpoint: url, Token: func() (string, error) { return "hf_of_the_node", nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	for _, path := range []string{"w", "small"} {
		for _, test := range []struct {
			repo, token string
			want        error
		}{
			{"org/open", "", nil}, {"org/open", "hf_caller", nil},
			{"org/gated", "", hub.ErrGated}, {"org/gated", "hf_caller", nil}, {"org/gated", "hf_other", hub.ErrUnauthorized},
			{"org/private", "", hub.ErrRepoNotFound}, {"org/private", "hf_caller", nil},
			{"org/gated", "hf bad\r\nX: y", hub.ErrUnauthorized},
		} {
			err := c.As(test.token).MayRead(t.Context(), ref(test.repo).Repo, commits[test.repo], path)
			if !errors.Is(err, test.want) {
				t.Errorf("%s with %q: %v, want %v", test.repo, test.token, err, test.want)
			}
			if err != nil && test.token != "" && strings.Contains(err.Error(), test.token) {
				t.Errorf("the error holds the token: %v", err)
			}
		}
	}
	if n := s.Stats().TokensAtCDN; n != 0 {
		t.Errorf("%d tokens left the Hub", n)
	}
}

func TestRefs(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	url := s.Start(t)
	commit := s.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}})
	s.Tag("org/model", "v1", commit)
	s.Tag("org/model", "refs/pr/1", commit)
	c, err := hub.New(hub.Options{Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	refs, err := c.Refs(t.Context(), ref("org/model").Repo)
	if err != nil || len(refs) != 3 || refs["refs/heads/main"] != commit || refs["refs/tags/v1"] != commit || refs["refs/pr/1"] != commit {
		t.Errorf("%v %v", refs, err)
	}
	if _, err := c.Refs(t.Context(), ref("org/none").Repo); !errors.Is(err, hub.ErrRepoNotFound) {
		t.Errorf("no repository: %v", err)
	}
}

// X04: redacted hashes.
//
// A listing whose xetHash is "redacted", or anything else that is no hash, reads as
// one without.
func TestX04RedactedHash(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	url := s.Start(t)
	oid, sum := strings.Repeat("ab", 20), strings.Repeat("cd", 32)
	commit := s.AddRepo(hubtest.RepoSpec{ID: "org/model", Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}, Rows: []map[string]any{
		{"type": "file", "oid": oid, "size": 5 << 20, "path": "w1", "lfs": map[string]any{"oid": sum, "size": 5 << 20}, "xetHash": "redacted"},
		{"type": "file", "oid": oid, "size": 5 << 20, "path": "w2", "lfs": map[string]any{"oid": sum, "size": 5 << 20}, "xetHash": nil},
		{"type": "file", "oid": oid, "size": 5 << 20, "path": "w3", "lfs": map[string]any{"oid": sum, "size": 5 << 20}, "xetHash": strings.Repeat("ef", 20)},
	}})
	c, err := hub.New(hub.Options{Endpoint: url})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdle()
	o, err := c.List(t.Context(), ref("org/model").Repo, commit)
	if err != nil || len(o.Files) != 4 || o.Files[1].Blob.Digest.String() != sum || o.Files[2].Blob != o.Files[1].Blob {
		t.Fatalf("%+v %v", o, err)
	}
	for _, f := range o.Files {
		if !f.Xet.IsZero() {
			t.Errorf("%s: Xet hash %s", f.Path, f.Xet)
		}
	}
}
