// Package leaktest fails tests that leave something behind: goroutines, open
// files and sockets, temporary files.
package leaktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long connections may take to close once both sides did.
const patience = 5 * time.Second

// Check notes what there is now. When the test has ended, and all that it asked
// Cleanup for after this call, it compares. Call it first, and outside a bubble
// of testing/synctest, whose end already proves that no goroutine is left in it.
func Check(t testing.TB) {
	t.Helper()
	check(t, patience)
}

func check(t testing.TB, patience time.Duration) {
	t.Helper()
	temp := filepath.Join(t.TempDir(), "tmp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	open, running := files(), goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if err := goleak.Find(running); err != nil {
			t.Error(err)
		}
		if left := stillOpen(open, patience); len(left) > 0 {
			t.Errorf("left open: %q", left)
		}
		if left, _ := filepath.Glob(filepath.Join(temp, "*")); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

func stillOpen(before map[string]int, patience time.Duration) []string {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		left := more(files(), before)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// more returns what is in after more often than in before.
func more(after, before map[string]int) (out []string) {
	for name, n := range after {
		if n > before[name] {
			out = append(out, name)
		}
	}
	return out
}

// files counts the open files of this process by name: a path, or the number of
// a socket or pipe. What the runtime keeps for itself (epoll) has none.
func files() map[string]int {
	out := make(map[string]int)
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		name, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(name, "anon_inode:") {
			out[name]++
		}
	}
	return out
}
