package failures

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// tests reads every Go test file, and the Python files below scripts/.
func (r *Report) tests(root fs.FS) (all []shown, err error) {
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		found, err := r.file(root, name)
		all = append(all, found...)
		return err
	})
	return all, err
}

func (r *Report) file(root fs.FS, name string) ([]shown, error) {
	isPython := path.Ext(name) == ".py" && strings.HasPrefix(name, "scripts/")
	if !isPython && !strings.HasSuffix(name, "_test.go") {
		return nil, nil
	}
	source, err := fs.ReadFile(root, name)
	if err != nil {
		return nil, err
	}
	if isPython {
		return r.python(name, string(source)), nil
	}
	return r.goFile(name, source)
}

var (
	named  = regexp.MustCompile(`^Test([A-Z][0-9]{2})[A-Z]`)
	formed = regexp.MustCompile(`(?s)^([A-Z][0-9]{2}): (.+?)\n\n(.+)$`)
)

func (r *Report) goFile(name string, source []byte) (all []shown, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
			continue
		}
		if t, ok := r.comment(name, f.Name.Name, f.Doc.Text()); ok {
			all = append(all, t)
		}
	}
	return all, nil
}

// comment reads a test's doc comment. A name with an id and a comment without
// one, or the other way round, is a mistake of whoever wrote it.
func (r *Report) comment(file, name, doc string) (shown, bool) {
	var id string
	if m := named.FindStringSubmatch(name); m != nil {
		id = m[1]
	}
	m := formed.FindStringSubmatch(doc)
	if m == nil && id == "" {
		return shown{}, false
	}
	if m == nil || m[1] != id {
		r.wrong(`%s: %s: name and doc comment want the same id, and the comment the form "// %s: fault." and, behind an empty line, what happens`, file, name, id)
		return shown{}, false
	}
	return shown{id: id, fault: oneLine(m[2]), happens: oneLine(m[3]), name: name, file: file}, true
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var (
	marked = regexp.MustCompile(`^\s*# ([A-Z][0-9]{2}): (.+)$`)
	remark = regexp.MustCompile(`^\s*#(.*)$`)
	def    = regexp.MustCompile(`^\s*(?:async )?def (\w+)`)
)

// python finds comment lines of the form that stand right above a def.
func (r *Report) python(file, source string) (all []shown) {
	var at *shown
	for line := range strings.Lines(source) {
		line = strings.TrimRight(line, "\n")
		if m := marked.FindStringSubmatch(line); m != nil {
			at = &shown{id: m[1], fault: m[2], file: file}
			continue
		}
		if at == nil {
			continue
		}
		if m := remark.FindStringSubmatch(line); m != nil {
			at.happens = oneLine(at.happens + " " + m[1])
			continue
		}
		if m := def.FindStringSubmatch(line); m != nil && at.happens != "" {
			at.name = m[1]
			all = append(all, *at)
		} else {
			r.wrong("%s: the comment of %s wants lines that say what happens, and a def right below", file, at.id)
		}
		at = nil
	}
	return all
}
