package failures

import (
	"strings"
	"testing"
	"testing/fstest"
)

const sound = `package x

// S01: the body goes silent,
// half way.
//
// It is dropped
// and asked for again.
func TestS01Silent(t *testing.T) {}

// Other text.
func TestOther(t *testing.T) {}
`

func tree(list string, files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{List: {Data: []byte(list)}}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return fsys
}

func TestPage(t *testing.T) {
	r, err := Read(tree("# comment\nS upstream\nS01 silent\nS02 late -- not worth a|b test\nO offline\nO01 offline\n", map[string]string{
		"pkg/x/x_test.go":      sound,
		"scripts/clients/o.py": "# O01: no network.\n# The file is found\n# in the cache.\ndef offline(lab):\n    pass\n",
		"other/o.py":           "# O99: not ours\n",
	}))
	if err != nil || len(r.Wrong) != 0 {
		t.Fatal(r.Wrong, err)
	}
	for _, want := range []string{
		"## S: upstream\n",
		"| S01 | the body goes silent, half way. | It is dropped and asked for again. | [`TestS01Silent`](../pkg/x/x_test.go) in pkg/x |\n",
		"| S02 | late | not worth a\\|b test | - |\n",
		"| O01 | no network. | The file is found in the cache. | [`offline`](../scripts/clients/o.py) in scripts/clients |\n",
	} {
		if !strings.Contains(r.Text, want) {
			t.Errorf("the page lacks %q:\n%s", want, r.Text)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, test := range []struct{ list, file, source, want string }{
		{"S s\nS01 a\n", "x_test.go", sound, ""},
		{"S s\nS01 a\nS02 b\n", "x_test.go", sound, "S02 has no test and no reason"},
		{"S s\nS01 a\nS01 a\n", "x_test.go", sound, "S01 stands there twice"},
		{"S s\nS01 a -- too hard\n", "x_test.go", sound, "S01 has a reason for having no test, and a test"},
		{"S s\nS01 a -- open\n", "x_test.go", sound, "S01 is no longer open"},
		{"S s\nS02 a -- open\n", "x_test.go", sound, "TestS01Silent: scripts/failures/list.txt has no S01"},
		{"R s\nS01 a\n", "x_test.go", sound, "S01 stands in no group"},
		{"S s\nS01 a -- no\n", "x_test.go", "package x\nfunc TestS01Bare() {}", "want the same id"},
		{"S s\nS01 a -- no\n", "x_test.go", "package x\n\n// S01: a.\n//\n// b\nfunc TestS02Other() {}", "want the same id"},
		{"S s\nS01 a -- no\n", "x_test.go", "package x\n\n// S01: a.\n//\n// b\nfunc TestNoID() {}", "want the same id"},
		{"S s\nS01 a -- no\n", "scripts/x.py", "# S01: a\n# b\n\ndef f():\n", "a def right below"},
		{"S s\nS01 a -- no\n", "scripts/x.py", "# S01: a\ndef f():\n", "what happens"},
	} {
		r, err := Read(tree(test.list, map[string]string{test.file: test.source}))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(r.Wrong, "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%q: %q, want %q", test.list, got, test.want)
		}
	}
}

func TestClose(t *testing.T) {
	const before, after = "S s\nS01 a -- open\nS02 b -- open\n", "S s\nS01 a\nS02 b -- open\n"
	if got := Close(before, []string{"S01"}); got != after {
		t.Errorf("got %q", got)
	}
}
