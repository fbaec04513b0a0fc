package failures

import (
	"fmt"
	"path"
	"strings"
)

const head = `# Failures

What can go wrong around an agent, what it does then, and the test that shows it. The id stands in the test's name: ` + "`go test -run TestS01 ./...`" + ` runs one.
Written by ` + "`go run ./scripts/failures`" + ` from the doc comments of the tests and from [list.txt](../scripts/failures/list.txt); a row without a test says why.
`

// page lays the groups out as Markdown.
func page(groups []*group) string {
	var out strings.Builder
	out.WriteString(head)
	for _, g := range groups {
		fmt.Fprintf(&out, "\n## %s: %s\n\n| id | fault | what happens | test |\n|---|---|---|---|\n", g.letter, g.title)
		for _, f := range g.faults {
			f.rows(&out)
		}
	}
	return out.String()
}

func (f *fault) rows(out *strings.Builder) {
	if len(f.shown) == 0 {
		row(out, f.id, f.title, f.reason, "-")
	}
	for _, t := range f.shown {
		row(out, f.id, t.fault, t.happens, fmt.Sprintf("[`%s`](../%s) in %s", t.name, t.file, path.Dir(t.file)))
	}
}

func row(out *strings.Builder, cells ...string) {
	for _, c := range cells {
		out.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	out.WriteString("|\n")
}
