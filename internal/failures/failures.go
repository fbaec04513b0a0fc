// Package failures makes docs/failures.md: which faults the project is tested
// against, what happens under each, and the test that shows it.
//
// A test says so in its doc comment, and is named after the fault's id:
//
//	// S01: the body goes silent half way, the socket stays open.
//	//
//	// The range is dropped after the idle limit and asked for again.
//	func TestS01BodyGoesSilent(t *testing.T) {
//
// A Python function below scripts/ has the same as comment lines right above its
// def. List holds all ids, and for those without a test the reason.
package failures

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
)

// Where the list is read and the page is written, by path from the project's root.
const (
	List = "scripts/failures/list.txt"
	Page = "docs/failures.md"
)

// fault is one row of the list.
type fault struct {
	id, title string
	reason    string // why it has no test, or ""
	shown     []shown
}

// shown is one test of a fault.
type shown struct {
	id, fault, happens string
	name, file         string // of the function
}

// group is all faults of one letter.
type group struct {
	letter, title string
	faults        []*fault
}

// Report is what the tests of a tree say.
type Report struct {
	Text  string   // the page
	Wrong []string // what keeps it from being true; empty is good
	Open  []string // ids that the list calls open and that have a test
}

// Read reads the list and all tests below the project's root.
func Read(root fs.FS) (*Report, error) {
	text, err := fs.ReadFile(root, List)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	groups := r.list(string(text))
	tests, err := r.tests(root)
	if err != nil {
		return nil, err
	}
	r.join(groups, tests)
	r.Text = page(groups)
	return r, nil
}

func (r *Report) wrong(format string, args ...any) {
	r.Wrong = append(r.Wrong, fmt.Sprintf(format, args...))
}

// open is the reason of a fault whose test is still to be written.
const open = "open"

// list reads lines "S upstream stalls", which begin a group, and "S01 a body goes
// silent", with " -- " and a reason where there is no test.
func (r *Report) list(text string) []*group {
	var groups []*group
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		id, rest, _ := strings.Cut(line, " ")
		title, reason, _ := strings.Cut(rest, " -- ")
		switch last := len(groups) - 1; {
		case len(id) == 1:
			groups = append(groups, &group{letter: id, title: title})
		case last < 0 || !strings.HasPrefix(id, groups[last].letter):
			r.wrong("%s: %s stands in no group of its letter", List, id)
		default:
			groups[last].faults = append(groups[last].faults, &fault{id: id, title: title, reason: reason})
		}
	}
	return groups
}

// join gives each fault its tests, and says where list and tests differ.
func (r *Report) join(groups []*group, tests []shown) {
	known := make(map[string]*fault)
	for _, g := range groups {
		for _, f := range g.faults {
			if known[f.id] != nil {
				r.wrong("%s: %s stands there twice", List, f.id)
			}
			known[f.id] = f
		}
	}
	for _, t := range tests {
		if known[t.id] == nil {
			r.wrong("%s: %s: %s has no %s", t.file, t.name, List, t.id)
			continue
		}
		known[t.id].shown = append(known[t.id].shown, t)
	}
	for _, id := range slices.Sorted(maps.Keys(known)) {
		r.judge(known[id])
	}
}

func (r *Report) judge(f *fault) {
	switch tested := len(f.shown) > 0; {
	case tested && f.reason == open:
		r.Open = append(r.Open, f.id)
		r.wrong("%s: %s is no longer open: go run ./scripts/failures", List, f.id)
	case tested && f.reason != "":
		r.wrong("%s: %s has a reason for having no test, and a test: %s", List, f.id, f.shown[0].name)
	case !tested && f.reason == "":
		r.wrong("%s: %s has no test and no reason", List, f.id)
	}
}

// Close takes the word "open" off the ids that have a test now.
func Close(list string, ids []string) string {
	var out strings.Builder
	for line := range strings.Lines(list) {
		if id, _, _ := strings.Cut(line, " "); slices.Contains(ids, id) {
			line = strings.TrimSuffix(strings.TrimSpace(line), " -- "+open) + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}
