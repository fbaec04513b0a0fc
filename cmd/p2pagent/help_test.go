package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"p2pagent/pkg/agent"
)

// The help of every verb fits a terminal of 80 columns and shows an example.
func TestHelpOfEveryVerb(t *testing.T) {
	p := &program{env: func(string) (string, bool) { return "", false }}
	verbs := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		verbs++
		c.InitDefaultHelpFlag()
		for line := range strings.Lines(c.Long + "\n" + c.UsageString()) {
			if line = strings.TrimRight(line, "\n"); utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", c.CommandPath(), utf8.RuneCountInString(line), line)
			}
		}
		if c.Example == "" && c.HasParent() {
			t.Errorf("%s --help has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(p.root())
	if verbs < 20 {
		t.Errorf("only %d verbs", verbs)
	}
}

func TestFilters(t *testing.T) {
	all := []agent.Snapshot{
		{Ref: "org/a@main", Repo: "org/a", Size: 10, Complete: true, Listed: 1, Pinned: true, Used: time.Unix(2, 0)},
		{Ref: "org/b@main", Repo: "org/b", Size: 3e9, Listed: 2, Used: time.Unix(3, 0)},
		{Ref: "x/c@main", Repo: "x/c", Size: 200, Used: time.Unix(1, 0)},
	}
	for _, x := range []struct {
		filters []string
		order   sortValue
		want    string
	}{
		{nil, byName, "org/a org/b x/c"},
		{nil, bySize, "org/b x/c org/a"},
		{nil, byUse, "org/b org/a x/c"},
		{[]string{"repo=org/*"}, byName, "org/a org/b"},
		{[]string{"repo=org/*", "state=complete"}, byName, "org/a"},
		{[]string{"state=partial"}, byName, "org/b"},
		{[]string{"state=unlisted"}, byName, "x/c"},
		{[]string{"state=pinned"}, byName, "org/a"},
		{[]string{"size>1GB"}, byName, "org/b"},
		{[]string{"size<1GB", "size>10"}, byName, "x/c"},
	} {
		var v filtersValue
		for _, f := range x.filters {
			if err := v.Set(f); err != nil {
				t.Fatal(err)
			}
		}
		list := v.choose(all)
		x.order.sort(list)
		var got []string
		for _, s := range list {
			got = append(got, s.Repo)
		}
		if strings.Join(got, " ") != x.want {
			t.Errorf("%v by %s: %v, want %s", x.filters, x.order, got, x.want)
		}
	}
	for _, bad := range []string{"", "repo", "state=lost", "size=3", "size>much", "used=now", "repo=[", "repo=", "repo>a"} {
		if err := new(filtersValue).Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
