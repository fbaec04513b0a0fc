package layers

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "p2pagent/"

// TestImports parses every file of the tree, whatever its build tags. It does not
// ask the go command, whose answers are not part of a test's inputs and would let
// an old result stand.
func TestImports(t *testing.T) {
	root := os.DirFS("../..")
	seen := 0
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name == "tools" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || path.Ext(name) != ".go":
			return nil
		}
		seen++
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		for _, fault := range check(name, src) {
			t.Error(fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("only %d files found: is this the tree?", seen)
	}
}

// check returns what is wrong with one file.
func check(name string, src []byte) []string {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	dir, isTest := path.Dir(name), strings.HasSuffix(name, "_test.go")
	r, ok := table[dir]
	if !ok {
		return []string{fmt.Sprintf("%s: package %s is not in the table", name, dir)}
	}
	var faults []string
	for _, spec := range file.Imports {
		target, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return []string{err.Error()}
		}
		if reason := r.refuses(dir, target, isTest); reason != "" {
			faults = append(faults, fmt.Sprintf("%s: may not import %s: %s", files.Position(spec.Pos()), target, reason))
		}
	}
	if r.pure && !isTest {
		faults = append(faults, impurities(files, file)...)
	}
	return faults
}

func (r row) refuses(dir, target string, isTest bool) string {
	if target == "C" {
		return "the binary is static"
	}
	for prefix, allowed := range heavy {
		if strings.HasPrefix(target, prefix) && !isTest && !slices.Contains(allowed, dir) {
			return "only " + strings.Join(allowed, ", ") + " may"
		}
	}
	if !isTest && slices.Contains(r.avoids, target) {
		return dir + " does without"
	}
	ours, ok := strings.CutPrefix(target, module)
	switch {
	case !ok || ours == dir || isTest && covers(r.tests, ours) || slices.Contains(r.imports, ours):
		return ""
	case !isTest && slices.Contains(testOnly, ours) && !slices.Contains(testOnly, dir):
		return "it is for tests"
	case covers(r.imports, ours):
		return ""
	}
	return "not in the table"
}

func covers(list []string, name string) bool {
	return slices.Contains(list, "*") || slices.Contains(list, name)
}

// impurities are go statements and clocks.
func impurities(files *token.FileSet, file *ast.File) []string {
	var faults []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			faults = append(faults, fmt.Sprintf("%s: a goroutine in a pure package", files.Position(n.Pos())))
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}, n.Sel.Name) {
				faults = append(faults, fmt.Sprintf("%s: time.%s in a pure package", files.Position(n.Pos()), n.Sel.Name))
			}
		}
		return true
	})
	return faults
}

// TestCheckFindsFaults keeps the check from passing everything.
func TestCheckFindsFaults(t *testing.T) {
	for _, test := range []struct{ file, source, want string }{
		{"pkg/pieces/x.go", `import "fmt"`, ""},
		{"pkg/pieces/x.go", `import "os"`, "does without"},
		{"pkg/pieces/x_test.go", `import "os"`, ""},
		{"pkg/pieces/x.go", `import "p2pagent/pkg/hub"`, "not in the table"},
		{"pkg/pieces/x_test.go", `import "p2pagent/pkg/hub"`, "not in the table"},
		{"pkg/pieces/x_test.go", `import "p2pagent/pkg/pieces"`, ""},
		{"pkg/hub/x.go", `import "p2pagent/pkg/pieces"`, ""},
		{"pkg/hub/x.go", `import "p2pagent/pkg/swarm"`, "not in the table"},
		{"pkg/hub/x.go", `import "p2pagent/pkg/hub/hubtest"`, "for tests"},
		{"pkg/hub/x_test.go", `import "p2pagent/pkg/hub/hubtest"`, ""},
		{"pkg/hub/x.go", `import "github.com/libp2p/go-libp2p/core/peer"`, "only pkg/swarm"},
		{"pkg/swarm/x.go", `import "github.com/libp2p/go-libp2p/core/peer"`, ""},
		{"pkg/cachefs/x.go", `import "p2pagent/pkg/seeder"`, "not in the table"},
		{"pkg/agent/x.go", `import "p2pagent/pkg/hub"`, "not in the table"},
		{"pkg/agent/x_test.go", `import "p2pagent/pkg/hub"`, ""},
		{"cmd/p2pagent/x.go", `import "p2pagent/pkg/hub"`, ""},
		{"cmd/p2pagent/x.go", `import "p2pagent/pkg/hub/hubtest"`, "for tests"},
		{"scripts/hubserver/x.go", `import "p2pagent/pkg/hub/hubtest"`, ""},
		{"internal/plan/x.go", `import "time"; var d time.Duration`, ""},
		{"internal/plan/x.go", `import "time"; var d = time.Now()`, "time.Now"},
		{"internal/plan/x.go", `func f() { go f() }`, "a goroutine"},
		{"internal/plan/x_test.go", `func f() { go f() }`, ""},
		{"internal/stall/x.go", `import "C"`, "static"},
		{"internal/util/x.go", ``, "not in the table"},
	} {
		got := strings.Join(check(test.file, []byte("package x; "+test.source)), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s with %s: %q, want %q", test.file, test.source, got, test.want)
		}
	}
}

// TestTableIsSound keeps rows from naming what is not there.
func TestTableIsSound(t *testing.T) {
	later := []string{"pkg/gateway"} // not written yet
	for dir, r := range table {
		if _, err := os.Stat(filepath.Join("../..", dir)); err != nil && !slices.Contains(later, dir) {
			t.Errorf("row %s: %v", dir, err)
		}
		for _, target := range append(slices.Clone(r.imports), r.tests...) {
			if _, ok := table[target]; !ok && target != "*" {
				t.Errorf("row %s allows %s, which has no row", dir, target)
			}
		}
	}
}
