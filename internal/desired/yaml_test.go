package desired

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// oneBrace stands in for the agent's judgement of patterns.
func oneBrace(include, exclude []string) error {
	if slices.Contains(append(include, exclude...), "{") {
		return errors.New("a brace")
	}
	return nil
}

func parse(t *testing.T, text string) ([]Model, []error) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return ParseYAML("f.yaml", doc.Content[0].Content[1], oneBrace)
}

func TestParseYAML(t *testing.T) {
	models, faults := parse(t, `models:
  - org/plain
  - ref: datasets/org/data@v1
    pin: true
    include: ["b", "a", "b"]
    exclude: "*.bin"
    refresh: 1h30m
  - {ref: "hf://org/third@0123456789abcdef0123456789abcdef01234567"}
`)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var got []string
	for _, m := range models {
		got = append(got, fmt.Sprint(m.Ref, m.Pin, m.Include, m.Exclude, m.Refresh))
	}
	want := []string{
		"org/plain@main false [] [] 0s", "datasets/org/data@v1 true [a b] [*.bin] 1h30m0s",
		"org/third@0123456789abcdef0123456789abcdef01234567 false [] [] 0s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	for _, empty := range []string{"models:", "models: []", "models: null"} {
		if models, faults := parse(t, empty); len(models)+len(faults) > 0 {
			t.Errorf("%s: %v %v", empty, models, faults)
		}
	}
}

// Every fault is told with its line, and all at once.
func TestParseYAMLFaults(t *testing.T) {
	for text, want := range map[string][]string{
		"models: org/name": {"f.yaml:1: models: want a list"},
		"models: {a: b}":   {"f.yaml:1: models: want a list"},
		"models:\n- a/b/c/d\n- 7\n- [x]\n- org/name\n- {ref: org/name@main}": {
			"f.yaml:2: models: ref: ", "f.yaml:3: models: ref: want [datasets/", "f.yaml:4: models: want a reference",
			"f.yaml:6: models: org/name@main is named already at f.yaml:5"},
		"models:\n- pin: true\n- {ref: org/name, pinn: true}\n- {ref: org/name, pin: 1}\n- {ref: org/a, ref: org/b}": {
			"f.yaml:2: models: an entry without ref", `f.yaml:3: models: pinn: unknown key, want one of ref, pin`,
			"f.yaml:4: models: pin: want true or false", "f.yaml:5: models: ref is set twice"},
		"models:\n- {ref: org/name, include: 3}\n- {ref: org/name, exclude: [{}]}\n- {ref: org/name, include: '{'}": {
			"f.yaml:2: models: include: want a list of patterns", "f.yaml:3: models: exclude: want a list", "f.yaml:4: models: a brace"},
		"models:\n- {ref: org/name, refresh: 1}\n- {ref: org/name, refresh: 5s}\n- {ref: org/name@0123456789abcdef0123456789abcdef01234567, refresh: 1h}": {
			"f.yaml:2: models: refresh: want a duration", "f.yaml:3: models: refresh: want a duration of at least 1m0s",
			"f.yaml:4: models: refresh: org/name@0123456789abcdef0123456789abcdef01234567 is a commit"},
	} {
		_, faults := parse(t, text)
		if len(faults) != len(want) {
			t.Errorf("%s:\n%v", text, errors.Join(faults...))
			continue
		}
		for i, fault := range faults {
			if !strings.HasPrefix(fault.Error(), want[i]) {
				t.Errorf("%s:\ngot  %s\nwant %s", text, fault, want[i])
			}
		}
	}
	if _, faults := parse(t, "models:"+strings.Repeat("\n- org/name", MaxModels+1)); len(faults) != 1 {
		t.Errorf("too many: %v", faults)
	}
}
