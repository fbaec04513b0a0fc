package kube

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestLabels(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	got := Labels([]Snapshot{
		{"org/name", "bbb", early},
		{"org/name", "aaa", late}, // what the revision means now
		{"org/name", "ccc", early},
		{"datasets/org/name", "ddd", early},
		{"gpt2", "eee", time.Time{}},
		{"org/twice", "111", early},
		{"org/twice", "222", early},
	})
	want := map[string]string{
		"p2pagent.dev/models--org--name":   "aaa",
		"p2pagent.dev/datasets--org--name": "ddd",
		"p2pagent.dev/models--gpt2":        "eee",
		"p2pagent.dev/models--org--twice":  "222",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// valid is the syntax of a label's name and value.
var valid = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

// TestNames: what the API server would refuse never comes out, and different
// repositories stay different.
func TestNames(t *testing.T) {
	long := strings.Repeat("x", 96)
	seen := map[string]string{}
	for _, repo := range []string{
		"a/b", "org/name_1.2-x", "org/" + long, long + "/" + long, long + "/" + long + "y", "org/ends-", "org/ends.", "spaces/o/s",
		"org/" + strings.Repeat("n", 50), "org/" + strings.Repeat("n", 51), "org/" + strings.Repeat("n", 52),
	} {
		got := name(repo)
		if !valid.MatchString(got) {
			t.Errorf("%s: %q is no name for a label", repo, got)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s are both %s", repo, other, got)
		}
		seen[got] = repo
	}
}

func TestLabelsAreBounded(t *testing.T) {
	var many []Snapshot
	for i := range 3 * maxLabels {
		many = append(many, Snapshot{Repo: fmt.Sprintf("org/n%d", i), Commit: "c"})
	}
	if n := len(Labels(many)); n != maxLabels {
		t.Errorf("%d labels, want %d", n, maxLabels)
	}
}

func TestChanges(t *testing.T) {
	have := map[string]string{"kubernetes.io/os": "linux", Prefix + "stays": "1", Prefix + "goes": "1", Prefix + "moves": "1"}
	want := map[string]string{Prefix + "stays": "1", Prefix + "moves": "2", Prefix + "comes": "1"}
	node := maps.Clone(have)
	apply(node, changes(have, want))
	want["kubernetes.io/os"] = "linux"
	if !maps.Equal(node, want) {
		t.Errorf("the node has %v\nwant %v", node, want)
	}
	if todo := changes(node, want); len(todo) != 0 {
		t.Errorf("nothing to do, and yet %v", todo)
	}
}

// apply is what the API server does with a merge patch of labels.
func apply(labels map[string]string, patch map[string]*string) {
	for key, value := range patch {
		if value == nil {
			delete(labels, key)
		} else {
			labels[key] = *value
		}
	}
}
