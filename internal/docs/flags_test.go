package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// defaults says the ones that depend on the node, as config print computes them
// in the environment that TestSettingsTable gives it.
var defaults = map[string]string{
	"hub-cache": "`$HF_HOME/hub`",
	"state-dir": "`p2pagent` beside the hub cache",
	"socket":    "see [Where things lie](#where-things-lie)",
	"join":      "none",
	"label":     "none",
}

// TestSettingsTable generates the table of settings from the program's help and
// its config print.
func TestSettingsTable(t *testing.T) {
	var printed struct {
		Settings map[string]struct{ Value string }
	}
	if err := json.Unmarshal([]byte(output(t, []string{"HF_HOME=/hf"}, "config", "print", "--format", "json")), &printed); err != nil {
		t.Fatal(err)
	}
	if got := printed.Settings["hub-cache"].Value; got != "/hf/hub" {
		t.Errorf("default of hub-cache is %q: this test and the document are wrong", got)
	}
	if got := printed.Settings["state-dir"].Value; got != "/hf/p2pagent" {
		t.Errorf("default of state-dir is %q: this test and the document are wrong", got)
	}
	var out strings.Builder
	fmt.Fprintln(&out, "| flag | variable | default | meaning |\n|---|---|---|---|")
	for _, f := range flagsOf(t, "agent") {
		value, ok := defaults[f.name]
		if !ok {
			value = "none"
			if v := printed.Settings[f.name].Value; v != "" {
				value = "`" + v + "`"
			}
		}
		fmt.Fprintf(&out, "| `--%s` | `%s` | %s | %s |\n", f.name, variable(f.name), value, f.usage)
	}
	generated(t, "docs/operations.md", "settings", out.String())
}

func variable(flag string) string {
	return "P2PAGENT_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// TestCommandTable generates the table of verbs with their own flags: those that
// are settings have a table of theirs.
func TestCommandTable(t *testing.T) {
	settings := map[string]bool{}
	for _, f := range flagsOf(t, "agent") {
		settings[f.name] = true
	}
	var out strings.Builder
	fmt.Fprintln(&out, "| command | what it does | flags |\n|---|---|---|")
	for _, verb := range verbs(t) {
		use, short := usage(t, verb...)
		var own []string
		for _, f := range flagsOf(t, verb...) {
			if !settings[f.name] {
				own = append(own, "`--"+f.name+"`")
			} else if f.name == "gossip-port" {
				own = append(own, "all [settings](#settings)")
			}
		}
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", use, short, strings.Join(own, " "))
	}
	generated(t, "docs/operations.md", "commands", strings.ReplaceAll(out.String(), "REF|DIR", "REF\\|DIR"))
}

var usageLine = regexp.MustCompile(`(?m)^  p2pagent (.*?)( \[flags\])?$`)

// usage returns a verb with its arguments, and what its group's help says of it.
func usage(t *testing.T, verb ...string) (use, short string) {
	t.Helper()
	_, text, _ := strings.Cut(output(t, nil, append(verb[:len(verb):len(verb)], "--help")...), "Usage:\n")
	use = usageLine.FindStringSubmatch(text)[1]
	last := len(verb) - 1
	for line := range strings.Lines(output(t, nil, append(verb[:last:last], "--help")...)) {
		if rest, ok := strings.CutPrefix(line, "  "+verb[last]+" "); ok {
			short = strings.TrimSpace(rest)
		}
	}
	return use, short
}

// others are flags that documents name and that are not p2pagent's.
var others = map[string]bool{
	"env-file": true, "update": true, "list": true, "table": true, "now": true, "template": true,
	"all": true, "namespace": true, "set": true, "wait": true, // skopeo, kubectl, helm
}

var namedFlag = regexp.MustCompile("(?:^|[\\s`(\\[])--([a-z][a-z-]*)")

func TestNamedFlagsExist(t *testing.T) {
	known := map[string]bool{"help": true}
	for _, verb := range verbs(t) {
		for _, f := range flagsOf(t, verb...) {
			known[f.name] = true
		}
	}
	for name, text := range documents(t) {
		for _, m := range namedFlag.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] && !others[m[1]] {
				t.Errorf("%s: p2pagent has no flag --%s", name, m[1])
			}
		}
	}
}

func TestEveryFlagIsDocumented(t *testing.T) {
	text := read(t, "docs/operations.md")
	for _, verb := range verbs(t) {
		for _, f := range flagsOf(t, verb...) {
			if !strings.Contains(text, "`--"+f.name) {
				t.Errorf("docs/operations.md says nothing of --%s of p2pagent %s", f.name, strings.Join(verb, " "))
			}
		}
	}
}

var namedVerb = regexp.MustCompile("`p2pagent ([a-z]+)")

func TestNamedVerbsExist(t *testing.T) {
	known := map[string]bool{"help": true, "completion": true}
	for _, verb := range verbs(t) {
		known[verb[0]] = true
	}
	for name, text := range documents(t) {
		for _, m := range namedVerb.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: p2pagent has no verb %q", name, m[1])
			}
		}
	}
}

var number = regexp.MustCompile(`\d+`)

// TestExitCodes compares the table with what p2pagent help says.
func TestExitCodes(t *testing.T) {
	_, text, _ := strings.Cut(output(t, nil, "help"), "Exit codes: ")
	text, _, _ = strings.Cut(text, "\n\n")
	said, told := map[string]bool{}, map[string]bool{}
	for _, code := range number.FindAllString(text, -1) {
		said[code] = true
	}
	for _, row := range cells(t, "docs/operations.md", "## Exit codes") {
		for _, code := range number.FindAllString(row[0], -1) {
			told[code] = true
		}
	}
	if !maps.Equal(said, told) {
		t.Errorf("exit codes in docs/operations.md %v, in p2pagent help %v", slices.Sorted(maps.Keys(told)), slices.Sorted(maps.Keys(said)))
	}
}

// systems are messages that are not ours.
var systems = map[string]bool{"connection refused": true, "i/o timeout": true, "no such host": true, "permission denied": true, "address already in use": true, "connect: no such file": true, "waiting": true}

// TestMessagesExist looks for the messages of the troubleshooting table in the
// code; "…" stands for what varies.
func TestMessagesExist(t *testing.T) {
	var code strings.Builder
	for name, text := range sources(t) {
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			code.WriteString(text)
		}
	}
	all := verb.ReplaceAllString(code.String(), "…")
	for _, row := range cells(t, "docs/operations.md", "## Troubleshooting") {
		for _, message := range codeIn(row[0]) {
			for part := range strings.SplitSeq(message, "…") {
				part = strings.Trim(part, " :,")
				if len(part) > 3 && !systems[part] && !systems[strings.Split(part, ": another")[0]] && !strings.Contains(all, part) {
					t.Errorf("docs/operations.md: no message says %q (of %q)", part, message)
				}
			}
		}
	}
}

var verb = regexp.MustCompile(`%[+#0-9.]*[a-z]`)
