package agent

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"p2pagent/pkg/pieces"
)

func TestGlobLikePython(t *testing.T) {
	f, err := os.Open("testdata/fnmatch.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hits := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var row [3]any
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		pattern, name, want := row[0].(string), row[1].(string), row[2].(bool)
		if got := compileGlob(pattern).match(name); got != want {
			t.Errorf("pattern %q, name %q: %v, Python says %v", pattern, name, got, want)
		}
		if want {
			hits++
		}
	}
	if hits < 100 {
		t.Errorf("only %d rows match: not the table this test is for", hits)
	}
}

// Many stars must not make matching slow: this is exponential when every star is
// tried anew.
func TestGlobIsNotExponential(t *testing.T) {
	g := compileGlob(strings.Repeat("*a", 40) + "b")
	if g.match(strings.Repeat("a", 2000)) {
		t.Error("matched")
	}
}

func TestFilter(t *testing.T) {
	paths := []string{"README.md", "a.safetensors", "sub/b.safetensors", "sub/config.json"}
	var files []pieces.File
	for _, p := range paths {
		files = append(files, pieces.File{Path: p})
	}
	for _, c := range []struct {
		include, exclude []string
		want             string
	}{
		{nil, nil, "README.md a.safetensors sub/b.safetensors sub/config.json"},
		{[]string{"*.safetensors"}, nil, "a.safetensors sub/b.safetensors"},
		{[]string{"*.safetensors"}, []string{"sub/"}, "a.safetensors"},
		{nil, []string{"*.md", "sub/c*"}, "a.safetensors sub/b.safetensors"},
		{[]string{"sub/*", "README*"}, []string{"*"}, ""},
		{[]string{"sub"}, nil, ""},
	} {
		f, err := newFilter(c.include, c.exclude)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, file := range f.choose(files) {
			got = append(got, file.Path)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("include %q exclude %q: %q, want %q", c.include, c.exclude, got, c.want)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	for _, p := range [][]string{{""}, {strings.Repeat("x", maxPattern+1)}, {"\xff"}, make([]string, maxPatterns+1)} {
		if _, err := newFilter(p, nil); err == nil {
			t.Errorf("%d patterns, first %.10q: accepted", len(p), p[0])
		}
	}
}

func TestRequestKey(t *testing.T) {
	ref := pieces.Ref{Repo: pieces.Repo{Name: "org/m"}, Revision: "main"}
	a := Request{Ref: ref, Include: []string{"b", "a", "a"}}
	b := Request{Ref: ref, Include: []string{"a", "b"}, Tied: true}
	if a.key() != b.key() {
		t.Errorf("%s and %s mean the same", a.key(), b.key())
	}
	for _, other := range []Request{{Ref: ref}, {Ref: ref, Exclude: []string{"a", "b"}}, {Ref: ref, Include: []string{`a","b`}}} {
		if other.key() == b.key() {
			t.Errorf("%+v has the key of %+v", other, b)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("*.json", "a/b.json")
	f.Add("[!a-z]*", "Zx")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		g := compileGlob(pattern) // neither panics nor takes long
		if g.match(name) && !compileGlob("*"+pattern).match("x"+name) {
			t.Errorf("%q matches %q, with a star in front it does not match more", pattern, name)
		}
	})
}
