package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"p2pagent/pkg/pieces"
)

// maxPatterns and maxPattern bound what a caller can make every file be compared
// with.
const (
	maxPatterns = 256
	maxPattern  = 1024
)

// glob is a pattern with the meaning of Python's fnmatch, because that is what
// allow_patterns and ignore_patterns of the Hub's own client mean: * crosses /,
// [!x] negates, and a pattern that ends in / means everything below it.
type glob []token

type tokenKind uint8

const (
	literal tokenKind = iota
	anyOne
	anyRun
	oneOf
)

type token struct {
	kind   tokenKind
	lo     rune // of literal
	negate bool // of oneOf
	ranges [][2]rune
}

func compileGlob(pattern string) glob {
	if strings.HasSuffix(pattern, "/") {
		pattern += "*"
	}
	var g glob
	for p := []rune(pattern); len(p) > 0; {
		var t token
		t, p = nextToken(p)
		if t.kind != anyRun || len(g) == 0 || g[len(g)-1].kind != anyRun {
			g = append(g, t)
		}
	}
	return g
}

func nextToken(p []rune) (token, []rune) {
	switch p[0] {
	case '*':
		return token{kind: anyRun}, p[1:]
	case '?':
		return token{kind: anyOne}, p[1:]
	case '[':
		if end := classEnd(p); end > 0 {
			return class(p[1:end]), p[end+1:]
		}
	}
	return token{kind: literal, lo: p[0]}, p[1:]
}

// classEnd returns where the ] of a class is, or 0: then [ means itself. A ]
// directly after [ or [! belongs to the class.
func classEnd(p []rune) int {
	i := 1
	if i < len(p) && p[i] == '!' {
		i++
	}
	if i < len(p) && p[i] == ']' {
		i++
	}
	for ; i < len(p); i++ {
		if p[i] == ']' {
			return i
		}
	}
	return 0
}

// class reads what stands between the brackets. Ranges that run backwards are
// empty, as in Python.
func class(p []rune) token {
	t := token{kind: oneOf}
	if len(p) > 0 && p[0] == '!' {
		t.negate, p = true, p[1:]
	}
	for len(p) > 0 {
		if len(p) > 2 && p[1] == '-' {
			if p[0] <= p[2] {
				t.ranges = append(t.ranges, [2]rune{p[0], p[2]})
			}
			p = p[3:]
			continue
		}
		t.ranges = append(t.ranges, [2]rune{p[0], p[0]})
		p = p[1:]
	}
	return t
}

func (t token) matches(r rune) bool {
	switch t.kind {
	case literal:
		return r == t.lo
	case anyOne:
		return true
	}
	in := slices.ContainsFunc(t.ranges, func(x [2]rune) bool { return x[0] <= r && r <= x[1] })
	return in != t.negate
}

// match compares in time proportional to len(g) × len(name) at most: only the
// last * is ever tried again.
func (g glob) match(name string) bool {
	r := []rune(name)
	at, i, star, mark := 0, 0, -1, 0
	for i < len(r) {
		switch {
		case at < len(g) && g[at].kind == anyRun:
			star, mark = at, i
			at++
		case at < len(g) && g[at].matches(r[i]):
			at, i = at+1, i+1
		case star >= 0:
			mark++
			at, i = star+1, mark
		default:
			return false
		}
	}
	for at < len(g) && g[at].kind == anyRun {
		at++
	}
	return at == len(g)
}

// filter chooses files by patterns: all that some include pattern matches (or
// simply all, when there is none), less those that some exclude pattern matches.
type filter struct{ include, exclude []glob }

func newFilter(include, exclude []string) (filter, error) {
	if len(include)+len(exclude) > maxPatterns {
		return filter{}, Errorf(Usage, "%d patterns, at most %d", len(include)+len(exclude), maxPatterns)
	}
	if err := errors.Join(checkPatterns(include), checkPatterns(exclude)); err != nil {
		return filter{}, Errorf(Usage, "%w", err)
	}
	var f filter
	for _, p := range include {
		f.include = append(f.include, compileGlob(p))
	}
	for _, p := range exclude {
		f.exclude = append(f.exclude, compileGlob(p))
	}
	return f, nil
}

func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if p == "" || len(p) > maxPattern || !utf8.ValidString(p) {
			return fmt.Errorf("pattern %q: want 1 to %d bytes of UTF-8", p, maxPattern)
		}
	}
	return nil
}

func (f filter) wants(path string) bool {
	hit := func(g glob) bool { return g.match(path) }
	if len(f.include) > 0 && !slices.ContainsFunc(f.include, hit) {
		return false
	}
	return !slices.ContainsFunc(f.exclude, hit)
}

// Match returns the paths that a Request with these patterns means, in their
// order.
func Match(paths, include, exclude []string) ([]string, error) {
	f, err := newFilter(include, exclude)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return !f.wants(p) }), nil
}

// choose returns the files that the filter wants, in their order.
func (f filter) choose(files []pieces.File) []pieces.File {
	if len(f.include)+len(f.exclude) == 0 {
		return files
	}
	var out []pieces.File
	for _, file := range files {
		if f.wants(file.Path) {
			out = append(out, file)
		}
	}
	return out
}
