package docs

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imports returns what each folder's Go files import, tests apart. Modules of
// their own, with a go.mod, are no part of it.
func imports(t *testing.T) (code, tests map[string]map[string]bool) {
	t.Helper()
	code, tests = map[string]map[string]bool{}, map[string]map[string]bool{}
	for name, text := range sources(t) {
		if _, err := os.Stat(filepath.Join(root, path.Dir(name), "go.mod")); err == nil || !strings.HasSuffix(name, ".go") {
			continue // go.mod itself, and modules beside it
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		into := code
		if strings.HasSuffix(name, "_test.go") {
			into = tests
		}
		dir := path.Dir(name)
		if into[dir] == nil {
			into[dir] = map[string]bool{}
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			into[dir][imported] = true
		}
	}
	return code, tests
}

// TestImportTable checks the table of docs/architecture.md against what the
// packages import.
func TestImportTable(t *testing.T) {
	code, _ := imports(t)
	seen := map[string]bool{}
	for _, row := range cells(t, "docs/architecture.md", "## Who may import whom") {
		dir := codeIn(row[0])[0]
		seen[dir] = true
		may := map[string]bool{}
		for _, p := range codeIn(row[2]) {
			may[p] = true
		}
		for p := range code[dir] {
			if ours, ok := strings.CutPrefix(p, "p2pagent/"); ok && !may[ours] && !may["*"] {
				t.Errorf("%s imports %s, the table in docs/architecture.md says it may not", dir, ours)
			}
		}
		if code[dir] == nil {
			t.Errorf("docs/architecture.md: there is no package %s", dir)
		}
	}
	for dir := range code {
		if !seen[dir] && !strings.HasPrefix(dir, "scripts/") {
			t.Errorf("docs/architecture.md says nothing of %s", dir)
		}
	}
}

// TestDependencies compares docs/design/dependencies.md with the modules that our
// code imports, and those with what go.mod calls direct.
func TestDependencies(t *testing.T) {
	required, direct := modules(t)
	code, tests := imports(t)
	used := map[string]bool{}
	for _, all := range []map[string]map[string]bool{code, tests} {
		for _, list := range all {
			for p := range list {
				if m := moduleOf(required, p); m != "" {
					used[m] = true
				}
			}
		}
	}
	told := map[string]bool{}
	for _, row := range cells(t, "docs/design/dependencies.md", "## The list") {
		told[codeIn(row[0])[0]] = true
	}
	differ(t, "docs/design/dependencies.md", told, "the imports", used)
	differ(t, "go.mod", direct, "the imports", used)
}

func differ(t *testing.T, what string, a map[string]bool, other string, b map[string]bool) {
	t.Helper()
	for _, m := range slices.Sorted(maps.Keys(a)) {
		if !b[m] {
			t.Errorf("%s: %s is not among %s", what, m, other)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(b)) {
		if !a[m] {
			t.Errorf("%s lacks %s, which is among %s", what, m, other)
		}
	}
}

// modules reads go.mod: all that are required, and those that are direct.
func modules(t *testing.T) (required, direct map[string]bool) {
	t.Helper()
	required, direct = map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(read(t, "go.mod")) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) < 2 || !strings.HasPrefix(fields[1], "v") || !strings.Contains(fields[0], ".") {
			continue
		}
		required[fields[0]] = true
		if !strings.Contains(line, "// indirect") {
			direct[fields[0]] = true
		}
	}
	return required, direct
}

// moduleOf finds the module with the longest path that holds a package.
func moduleOf(required map[string]bool, pkg string) string {
	for p := pkg; p != "."; p = path.Dir(p) {
		if required[p] {
			return p
		}
	}
	return ""
}
