package leaktest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// witness is a test that is checked: it keeps its cleanups and what they say.
type witness struct {
	testing.TB
	cleanups []func()
	said     []string
}

func (w *witness) Cleanup(f func())             { w.cleanups = append(w.cleanups, f) }
func (w *witness) Error(args ...any)            { w.said = append(w.said, fmt.Sprint(args...)) }
func (w *witness) Errorf(f string, args ...any) { w.said = append(w.said, fmt.Sprintf(f, args...)) }

func (w *witness) end() string {
	for i := len(w.cleanups) - 1; i >= 0; i-- {
		w.cleanups[i]()
	}
	return strings.Join(w.said, "\n")
}

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		name string
		leak func(t testing.TB) (undo func())
		want string
	}{
		{"nothing", func(testing.TB) func() { return func() {} }, ""},
		{"a goroutine", func(testing.TB) func() {
			stop := make(chan struct{})
			go func() { <-stop }()
			return func() { close(stop) }
		}, "found unexpected goroutines"},
		{"a file", func(t testing.TB) func() {
			f, err := os.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}, "left open"},
		{"a temporary file", func(t testing.TB) func() {
			f, err := os.CreateTemp("", "x")
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			return func() { os.Remove(f.Name()) }
		}, "left behind"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &witness{TB: t}
			check(w, 50*time.Millisecond)
			undo := test.leak(t)
			defer undo()
			got := w.end()
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("it says %q, want %q", got, test.want)
			}
		})
	}
}

// What is cleaned up, before or behind Check, is no leak.
func TestCheckRunsLast(t *testing.T) {
	Check(t)
	f, err := os.Create(filepath.Join(os.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); os.Remove(f.Name()) })
}
