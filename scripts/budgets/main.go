// Budgets prints how long functions, files and packages are, longest first. It
// judges nothing: a file over 400 lines or a function over 100 wants a reason,
// which a reader can weigh and a program can't.
//
//	go run ./scripts/budgets [DIR]
package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"os"
	"path"
	"slices"
	"strings"
)

// thing is a function, a file or a package.
type thing struct {
	name  string
	lines int
}

// survey gathers what is measured: lines of code, tests apart.
type survey struct {
	functions, files []thing
	packages         map[string]int
}

func main() {
	log.SetFlags(0)
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	s := survey{packages: make(map[string]int)}
	if err := fs.WalkDir(os.DirFS(root), ".", s.visit(root)); err != nil {
		log.Fatalf("budgets: %v", err)
	}
	var packages []thing
	for name, lines := range s.packages {
		packages = append(packages, thing{name, lines})
	}
	report("functions", s.functions)
	report("files", s.files)
	report("packages", packages)
}

func (s *survey) visit(root string) fs.WalkDirFunc {
	return func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		return s.measure(root, name)
	}
}

func (s *survey) measure(root, name string) error {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path.Join(root, name), nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	code := codeLines(files, file)
	s.files = append(s.files, thing{name, code})
	s.packages[path.Dir(name)] += code
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			lines := files.Position(f.End()).Line - files.Position(f.Pos()).Line + 1
			s.functions = append(s.functions, thing{fmt.Sprintf("%s:%d %s", name, files.Position(f.Pos()).Line, f.Name.Name), lines})
		}
	}
	return nil
}

// codeLines counts the lines on which a token other than a comment begins or ends.
func codeLines(files *token.FileSet, file *ast.File) int {
	lines := make(map[int]bool)
	ast.Inspect(file, func(n ast.Node) bool {
		switch n.(type) {
		case nil, *ast.Comment, *ast.CommentGroup:
			return false
		}
		lines[files.Position(n.Pos()).Line] = true
		lines[files.Position(n.End()-1).Line] = true
		return true
	})
	return len(lines)
}

func report(what string, things []thing) {
	if len(things) == 0 {
		return
	}
	slices.SortFunc(things, func(a, b thing) int { return cmp.Or(b.lines-a.lines, cmp.Compare(a.name, b.name)) })
	at := func(percent int) int { return things[(len(things)-1)*(100-percent)/100].lines }
	fmt.Printf("%d %s, lines of code: median %d, p90 %d, longest\n", len(things), what, at(50), at(90))
	for _, t := range things[:min(5, len(things))] {
		fmt.Printf("%6d  %s\n", t.lines, t.name)
	}
}
