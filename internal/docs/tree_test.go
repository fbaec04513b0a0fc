package docs

import (
	"flag"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated parts of the documents anew")

// root is the project's folder as seen from this package.
const root = "../.."

// documents returns README.md and everything below docs/, by path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"README.md", "NEWS.md", "scripts/README.md"} {
		out[name] = read(t, name)
	}
	for _, name := range files(t, "docs", ".md") {
		out[name] = read(t, name)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// files lists the files of a folder and below that end in suffix, by path from
// the root.
func files(t *testing.T, dir, suffix string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(root, dir), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), ".") && e.Name() != ".." {
			return fs.SkipDir
		}
		if !e.IsDir() && strings.HasSuffix(name, suffix) {
			rel, err := filepath.Rel(root, name)
			out = append(out, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

var fence = regexp.MustCompile("(?ms)^```.*?^```$")

// prose is a document without its code blocks.
func prose(text string) string { return fence.ReplaceAllString(text, "") }

// generated compares the part of a document that is called name with want, or
// writes it.
func generated(t *testing.T, document, name, want string) {
	t.Helper()
	text := read(t, document)
	begin := "<!-- generated: " + name + " -->\n"
	before, rest, ok := strings.Cut(text, begin)
	got, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatalf("%s has no part %q", document, name)
	}
	want = strings.TrimRight(want, "\n") + "\n"
	if got == want {
		return
	}
	if !*update {
		t.Errorf("%s: part %q is not what the code says (go test ./internal/docs -update writes it):\n%s\nwant:\n%s", document, name, got, want)
		return
	}
	text = before + begin + want + "<!-- end -->" + after
	if err := os.WriteFile(filepath.Join(root, document), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// cells returns the rows of the first Markdown table behind a heading, the
// heading of the table left out.
func cells(t *testing.T, document, heading string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, document), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", document, heading)
	}
	var out [][]string
	for line := range strings.Lines(rest) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			if len(out) > 0 {
				break
			}
			continue
		}
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		out = append(out, row)
	}
	if len(out) < 3 {
		t.Fatalf("%s: no table behind %q", document, heading)
	}
	return out[2:]
}

var quotedCode = regexp.MustCompile("`([^`\n]+)`")

// codeIn returns what stands in backquotes.
func codeIn(text string) []string {
	var out []string
	for _, m := range quotedCode.FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	odd     = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// anchors returns what links to a document may name behind #.
func anchors(text string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(prose(text), -1) {
		out[strings.ReplaceAll(odd.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return out
}

func TestLinksLeadSomewhere(t *testing.T) {
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(prose(text), -1) {
			checkLink(t, name, m[1])
		}
	}
}

func checkLink(t *testing.T, from, target string) {
	t.Helper()
	if strings.Contains(target, "://") {
		return
	}
	file, anchor, _ := strings.Cut(target, "#")
	name := from
	if file != "" {
		name = path.Join(path.Dir(from), file)
	}
	if strings.HasPrefix(name, "../") || strings.HasPrefix(file, "/") {
		t.Errorf("%s: link %q leaves the project", from, target)
		return
	}
	if _, err := os.Stat(filepath.Join(root, name)); err != nil {
		t.Errorf("%s: link %q: %v", from, target, err)
		return
	}
	if anchor != "" && !anchors(read(t, name))[anchor] {
		t.Errorf("%s: link %q: no such heading in %s", from, target, name)
	}
}

var ourPath = regexp.MustCompile(`^(cmd|pkg|internal|scripts|docs|tools|\.ci)/[A-Za-z0-9_./-]*$`)

func TestPathsInBackquotesExist(t *testing.T) {
	for name, text := range documents(t) {
		if name == "scripts/README.md" {
			continue // its paths start at scripts/
		}
		for _, code := range codeIn(prose(text)) {
			if !ourPath.MatchString(code) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, code)); err != nil {
				t.Errorf("%s: `%s`: %v", name, code, err)
			}
		}
	}
}

var makeTarget = regexp.MustCompile("`make ([a-z-]+)")

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for name, text := range documents(t) {
		for _, m := range makeTarget.FindAllStringSubmatch(text, -1) {
			if !strings.Contains("\n"+makefile, "\n"+m[1]+":") {
				t.Errorf("%s: the Makefile has no target %q", name, m[1])
			}
		}
	}
}
