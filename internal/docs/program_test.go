package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// bin is the folder of the program under test, set by TestMain.
var bin string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "p2pdocs")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	return m.Run()
}

// build makes the program once. This package imports what the program does, so
// all but its own packages is in the build cache.
var build = sync.OnceValue(func() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), 3*time.Minute, errors.New("go build took 3 minutes"))
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(bin, "p2pagent"), "./cmd/p2pagent")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", errors.Join(err, context.Cause(ctx)), out)
	}
	return nil
})

func mustBuild(t *testing.T) {
	t.Helper()
	sources(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
}

// sources reads what the program is built from, so that go test knows: it can't
// see what go build reads, and would take a stale result from its cache.
func sources(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"go.mod": read(t, "go.mod")}
	for _, dir := range []string{"cmd", "pkg", "internal", "scripts"} {
		for _, name := range files(t, dir, ".go") {
			out[name] = read(t, name)
		}
	}
	return out
}

// output runs the program in an environment that has nothing but vars.
func output(t *testing.T, vars []string, args ...string) string {
	t.Helper()
	mustBuild(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "p2pagent"), args...)
	cmd.Env = append([]string{"HOME=" + bin}, vars...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("p2pagent %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// flagHelp is a flag as --help shows it.
type flagHelp struct {
	name, usage string
}

var (
	flagLine = regexp.MustCompile(`^ +(?:-[a-zA-Z], )?--([a-z-]+)(.*)$`)
	column   = regexp.MustCompile(`  +`)
	standard = regexp.MustCompile(` \(default .*\)$`)
)

// flagsOf returns the flags that a verb's help lists, "help" left out.
func flagsOf(t *testing.T, verb ...string) []flagHelp {
	t.Helper()
	_, text, _ := strings.Cut(output(t, nil, append(slices.Clone(verb), "--help")...), "\nFlags:\n")
	var out []flagHelp
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			break
		}
		if m := flagLine.FindStringSubmatch(line); m != nil {
			parts := column.Split(m[2], 2)
			out = append(out, flagHelp{m[1], strings.TrimSpace(parts[len(parts)-1])})
		} else if len(out) > 0 {
			out[len(out)-1].usage += " " + strings.TrimSpace(line)
		}
	}
	for i := range out {
		out[i].usage = standard.ReplaceAllString(out[i].usage, "")
	}
	return slices.DeleteFunc(out, func(f flagHelp) bool { return f.name == "help" })
}

var verbLine = regexp.MustCompile(`^  ([a-z]+) +\S`)

// verbs returns every command but those that every program of this kind has.
func verbs(t *testing.T) [][]string {
	t.Helper()
	out := subcommands(t)
	for _, group := range slices.Clone(out) {
		out = append(out, subcommands(t, group...)...)
	}
	return out
}

func subcommands(t *testing.T, parent ...string) [][]string {
	t.Helper()
	text := output(t, nil, append(slices.Clone(parent), "--help")...)
	var out [][]string
	inside := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") {
			inside = slices.Contains([]string{"Run:", "Models:", "Look:", "Additional Commands:", "Available Commands:"}, strings.TrimSpace(line))
		}
		m := verbLine.FindStringSubmatch(line)
		if inside && m != nil && m[1] != "help" && m[1] != "completion" {
			out = append(out, append(slices.Clone(parent), m[1]))
		}
	}
	return out
}
