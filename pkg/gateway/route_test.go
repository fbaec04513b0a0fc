package gateway

import (
	"testing"

	"p2pagent/pkg/pieces"
)

// G09: the forms of repository ids and URL prefixes.
//
// Names of one and two segments, datasets and spaces, names that are words of the
// routes, revisions escaped and raw: each URL leads to one call, and what is no
// route to none.
func TestG09RepositoryForms(t *testing.T) {
	const c = "0123456789012345678901234567890123456789"
	for _, test := range []struct {
		url, route, repo, revision, path string
	}{
		{"/gpt2/resolve/main/config.json", "resolve", "gpt2", "main", "config.json"},
		{"/org/model/resolve/main/config.json", "resolve", "org/model", "main", "config.json"},
		{"/org/model/resolve/main/a/b/c.bin", "resolve", "org/model", "main", "a/b/c.bin"},
		{"/datasets/org/x/resolve/main/d.csv", "resolve", "datasets/org/x", "main", "d.csv"},
		{"/datasets/squad/resolve/main/d.csv", "resolve", "datasets/squad", "main", "d.csv"},
		{"/spaces/org/x/resolve/main/app.py", "resolve", "spaces/org/x", "main", "app.py"},
		{"/org/model/raw/main/config.json", "raw", "org/model", "main", "config.json"},
		{"/gpt2/raw/v1/config.json", "raw", "gpt2", "v1", "config.json"},
		{"/org/model/resolve/" + c + "/f", "resolve", "org/model", c, "f"},
		{"/org/model/resolve/refs%2Fpr%2F1/f", "resolve", "org/model", "refs/pr/1", "f"},
		{"/org/model/resolve/refs/pr/1/f", "resolve", "org/model", "refs/pr/1", "f"},
		{"/org/model/resolve/refs/convert/parquet/d/0.parquet", "resolve", "org/model", "refs/convert/parquet", "d/0.parquet"},
		{"/org/model/resolve/feature%2Fx/f", "resolve", "org/model", "feature/x", "f"},
		{"/org/model/resolve/HEAD/f", "resolve", "org/model", "main", "f"},
		{"/org/resolve/resolve/main/f", "resolve", "org/resolve", "main", "f"},
		{"/org/tree/resolve/main/f", "resolve", "org/tree", "main", "f"},
		{"/resolve/resolve/main/f", "resolve", "resolve", "main", "f"},
		{"/gpt2/resolve/resolve/f", "resolve", "gpt2", "resolve", "f"},
		{"/org/model/resolve/main/resolve/main/f", "resolve", "org/model", "main", "resolve/main/f"},
		{"/org/model/resolve/main/sub%20dir/tok%2Bx%20%231.json", "resolve", "org/model", "main", "sub dir/tok+x #1.json"},
		{"/org/model/resolve/main/a+b.json", "resolve", "org/model", "main", "a+b.json"},
		{"/org/model/resolve/main/100%25.txt", "resolve", "org/model", "main", "100%.txt"},
		{"/org/model/resolve/main/%C3%9Cn%C3%AFcode.txt", "resolve", "org/model", "main", "Ünïcode.txt"},
		{"/api/resolve-cache/models/org/model/" + c + "/a/f", "resolve", "org/model", c, "a/f"},
		{"/api/resolve-cache/models/gpt2/" + c + "/f", "resolve", "gpt2", c, "f"},
		{"/api/resolve-cache/datasets/org/x/" + c + "/f", "resolve", "datasets/org/x", c, "f"},
		{"/api/models/gpt2", "info", "gpt2", "main", ""},
		{"/api/models/org/model", "info", "org/model", "main", ""},
		{"/api/models/org/tree", "info", "org/tree", "main", ""},
		{"/api/models/resolve", "info", "resolve", "main", ""},
		{"/api/datasets/squad", "info", "datasets/squad", "main", ""},
		{"/api/spaces/org/x", "info", "spaces/org/x", "main", ""},
		{"/api/models/org/model/revision/main", "info", "org/model", "main", ""},
		{"/api/models/org/model/revision/HEAD", "info", "org/model", "main", ""},
		{"/api/models/gpt2/revision/refs%2Fpr%2F1", "info", "gpt2", "refs/pr/1", ""},
		{"/api/models/org/revision/revision/main", "info", "org/revision", "main", ""},
		{"/api/models/org/model/tree/main", "tree", "org/model", "main", ""},
		{"/api/models/org/model/tree/main/", "tree", "org/model", "main", ""},
		{"/api/models/gpt2/tree/main", "tree", "gpt2", "main", ""},
		{"/api/models/org/tree/tree/main", "tree", "org/tree", "main", ""},
		{"/api/models/org/model/tree/main/a/b", "tree", "org/model", "main", "a/b"},
		{"/api/models/org/model/tree/main/a%2Fb", "tree", "org/model", "main", "a/b"},
		{"/api/models/org/model/tree/refs/pr/1", "tree", "org/model", "refs/pr/1", ""},
		{"/api/models/gpt2/tree/refs/pr/1/sub", "tree", "gpt2", "refs/pr/1", "sub"},
		{"/api/datasets/org/x/tree/" + c, "tree", "datasets/org/x", c, ""},
		{"/api/models/org/model/paths-info/main", "paths", "org/model", "main", ""},
		{"/api/models/gpt2/paths-info/refs%2Fpr%2F1", "paths", "gpt2", "refs/pr/1", ""},
		{"/api/models/org/model/refs", "refs", "org/model", "main", ""},
		{"/api/models/gpt2/refs", "refs", "gpt2", "main", ""},
		{"/api/models/org/model/auth-check", "auth", "org/model", "main", ""},
		{"/api/models/org/model/xet-read-token/" + c, "xet", "org/model", c, ""},
		{"/api/whoami-v2", "whoami", "", "", ""},
		// No routes.
		{"/", "no route", "", "", ""},
		{"/api", "no route", "", "", ""},
		{"/api/", "no route", "", "", ""},
		{"/api/models", "no route", "", "", ""},
		{"/api/models/", "no route", "", "", ""},
		{"/api/resolve-cache", "no route", "", "", ""},
		{"/api/resolve-cache/models/org/model/main/f", "no route", "", "", ""},
		{"/api/agent-harnesses", "no route", "", "", ""},
		{"/api/telemetry/hf_hub/x", "no route", "", "", ""},
		{"/api/models/org/model/discussions", "no route", "", "", ""},
		{"/api/models/org/model/commits/main", "no route", "", "", ""},
		{"/api/models/a/b/c", "no route", "", "", ""},
		{"/api/kernels/org/x", "no route", "", "", ""},
		{"/org/model", "no route", "", "", ""},
		{"/org/model/resolve/main", "no route", "", "", ""},
		{"/org/model/resolve/main/", "no route", "", "", ""},
		{"/org//resolve/main/f", "no route", "", "", ""},
		{"//model/resolve/main/f", "no route", "", "", ""},
		{"/a/b/c/resolve/main/f", "no route", "", "", ""},
		{"/org/mo..del/resolve/main/f", "no route", "", "", ""},
		{"/org%2Fmodel/x/resolve/main/f", "no route", "", "", ""},
	} {
		got := parse(test.url)
		if got.route == routeNone {
			got = call{route: routeNone}
		}
		want := call{route: route(test.route), revision: test.revision, path: test.path}
		if test.repo != "" {
			repo, err := pieces.ParseRepo(test.repo)
			if err != nil {
				t.Fatal(err)
			}
			want.repo = repo
		}
		if got != want {
			t.Errorf("%s: %+v, want %+v", test.url, got, want)
		}
	}
}

// FuzzParse: nothing a client can write in a URL does harm, and what is taken for
// a repository has a name that the Hub could give.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/org/model/resolve/main/f", "/api/models/gpt2/tree/refs/pr/1", "/api/resolve-cache/models/x", "%", "/api/models/%2e%2e/x", "/a/raw/%00/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		c := parse(escaped)
		if c.route == routeNone || c.route == routeWhoAmI {
			return
		}
		if same, err := pieces.ParseRepo(c.repo.String()); err != nil || same != c.repo {
			t.Errorf("%q: repository %q: %v", escaped, c.repo, err)
		}
		if c.revision == "" {
			t.Errorf("%q: no revision", escaped)
		}
	})
}
