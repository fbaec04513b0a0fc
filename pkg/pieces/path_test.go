package pieces

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

// corpus reads a file of Go strings, one a line.
func corpus(t testing.TB, name string) []string {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		s, err := strconv.Unquote(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		out = append(out, s)
	}
	return out
}

func TestHostilePathsAreRefused(t *testing.T) {
	paths := corpus(t, "hostile-paths.txt")
	if len(paths) < 200 {
		t.Fatalf("only %d hostile paths", len(paths))
	}
	paths = append(paths,
		strings.Repeat("a", maxSegment+1), "a/"+strings.Repeat("é", maxSegment/2+1), strings.Repeat("a/", maxPath/2)+"a",
		strings.Repeat("../", 500)+"a", strings.Repeat("a/", 1<<20), strings.Repeat("/", 1<<20), strings.Repeat("a", 1<<20))
	for _, p := range paths {
		if err := CheckPath(p); !errors.Is(err, ErrBadPath) {
			t.Errorf("CheckPath(%.80q) = %v", p, err)
		}
		if o := outlineOf(t, p); o.Validate() == nil {
			t.Errorf("an outline with %.80q is valid", p)
		}
	}
}

func TestOrdinaryPathsAreAccepted(t *testing.T) {
	for _, p := range corpus(t, "ordinary-paths.txt") {
		if err := CheckPath(p); err != nil {
			t.Error(err)
		}
		if err := outlineOf(t, p).Validate(); err != nil {
			t.Error(err)
		}
	}
}

// outlineOf returns an outline of small files with those paths, as given.
func outlineOf(t testing.TB, paths ...string) *Outline {
	o := &Outline{Repo: Repo{Name: "org/name"}, Commit: Commit(gitOfEmpty)}
	empty := mustDigest(t, gitOfEmpty)
	for _, p := range paths {
		o.Files = append(o.Files, File{Path: p, Blob: Blob{Digest: empty}, OID: empty})
	}
	return o
}

func TestClashingPathsAreRefused(t *testing.T) {
	for _, paths := range [][]string{
		{"a", "a"}, {"A", "a"}, {"dir/Config.json", "dir/config.json"}, {"Dir/a", "dir/a"}, {"É", "é"},
		{"a", "a/b"}, {"a", "a/b/c"}, {"a/b", "a/b/c/d"}, {"A", "a/b"}, {"a-", "a/b", "a"}, {"x/Y", "x/y/z"},
		{"a", "b", "c/d", "c/d/e"}, {"\u212a", "k"}, // the Kelvin sign
	} {
		o := outlineOf(t, paths...)
		o.Sort()
		if err := o.Validate(); !errors.Is(err, ErrBadPath) {
			t.Errorf("%q: %v", paths, err)
		}
	}
	for _, paths := range [][]string{
		nil, {"a"}, {"a", "b"}, {"a/b", "a/c"}, {"a", "ab"}, {"a-b", "a/b"}, {"a.b", "a/b", "a0"}, {"A/b", "a/c"},
	} {
		o := outlineOf(t, paths...)
		o.Sort()
		if err := o.Validate(); err != nil {
			t.Errorf("%q: %v", paths, err)
		}
	}
}
