package pieces

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ErrBadPath marks a file name that p2pagent refuses to write anywhere.
var ErrBadPath = errors.New("unsafe path")

// Longest names that every common filesystem accepts (NAME_MAX and PATH_MAX on
// Linux, less the room that a cache root in front of the path needs).
const (
	maxSegment = 255
	maxPath    = 2048
)

// CheckPath accepts a relative slash-separated path whose every segment is an
// ordinary name. It refuses rather than repairs: "", absolute paths, "." and
// "..", empty segments, a trailing slash, backslashes, NUL and other control
// characters, invalid UTF-8, and names that are too long. Errors wrap ErrBadPath.
func CheckPath(path string) error {
	if reason := badPath(path); reason != "" {
		return fmt.Errorf("path %q: %s: %w", path, reason, ErrBadPath)
	}
	return nil
}

func badPath(path string) string {
	switch {
	case path == "":
		return "empty"
	case len(path) > maxPath:
		return fmt.Sprintf("longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		return "not UTF-8"
	case strings.HasPrefix(path, "/"):
		return "absolute"
	}
	for segment := range strings.SplitSeq(path, "/") {
		if reason := badSegment(segment); reason != "" {
			return reason
		}
	}
	return ""
}

func badSegment(s string) string {
	switch {
	case s == "":
		return "empty segment"
	case s == "." || s == "..":
		return "segment " + s
	case len(s) > maxSegment:
		return fmt.Sprintf("segment longer than %d bytes", maxSegment)
	case strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == '\\' || (r >= 0x80 && r < 0xa0) }):
		return "control character or backslash"
	}
	return ""
}

// checkClash refuses two paths of which one is a folder of the other, and two
// that differ only in case: on some filesystems they are one file.
func checkClash(paths []string) error {
	seen := make(map[string]string, len(paths))
	for _, p := range paths {
		key := strings.ToLower(p)
		if other, ok := seen[key]; ok {
			return fmt.Errorf("paths %q and %q clash: %w", other, p, ErrBadPath)
		}
		seen[key] = p
	}
	for _, p := range paths {
		for dir := parent(strings.ToLower(p)); dir != ""; dir = parent(dir) {
			if other, ok := seen[dir]; ok {
				return fmt.Errorf("path %q lies below file %q: %w", p, other, ErrBadPath)
			}
		}
	}
	return nil
}

func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)]
}
