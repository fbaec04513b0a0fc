package main

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"p2pagent/pkg/agent"
)

// filtersValue chooses what ls shows: conditions that must all hold.
type filtersValue struct {
	texts []string
	hold  []func(agent.Snapshot) bool
}

func (v *filtersValue) String() string { return strings.Join(v.texts, ",") }
func (v *filtersValue) Type() string   { return "condition" }

func (v *filtersValue) Set(s string) error {
	holds, err := condition(s)
	if err != nil {
		return err
	}
	v.texts, v.hold = append(v.texts, s), append(v.hold, holds)
	return nil
}

// states are what a condition on the state may name.
var states = map[string]func(agent.Snapshot) bool{
	"complete": func(x agent.Snapshot) bool { return x.Complete },
	"partial":  func(x agent.Snapshot) bool { return !x.Complete && x.Listed > 0 },
	"unlisted": func(x agent.Snapshot) bool { return x.Listed == 0 },
	"seeded":   func(x agent.Snapshot) bool { return x.Seeded },
	"kept":     func(x agent.Snapshot) bool { return x.Kept },
	"pinned":   func(x agent.Snapshot) bool { return x.Pinned },
}

// choices are conditions on the state; the others have no end of values.
func (v *filtersValue) choices() []string {
	var out []string
	for _, word := range slices.Sorted(maps.Keys(states)) {
		out = append(out, "state="+word)
	}
	return out
}

// condition reads repo=PATTERN, state=WORD, size>BYTES or size<BYTES.
func condition(s string) (func(agent.Snapshot) bool, error) {
	at := strings.IndexAny(s, "=<>")
	if at < 0 {
		return nil, fmt.Errorf("want repo=PATTERN, state=WORD or size>BYTES, got %q", s)
	}
	key, sign, value := s[:at], s[at], s[at+1:]
	switch {
	case key == "repo" && sign == '=':
		if value == "" {
			return nil, fmt.Errorf("want repo=PATTERN, such as repo=org/*, got %q", s)
		}
		if _, err := path.Match(value, ""); err != nil {
			return nil, fmt.Errorf("repo: %w: %q", err, value)
		}
		return func(x agent.Snapshot) bool { ok, _ := path.Match(value, x.Repo); return ok || value == x.Repo }, nil
	case key == "state" && sign == '=' && states[value] != nil:
		return states[value], nil
	case key == "state" && sign == '=':
		return nil, fmt.Errorf("want complete, partial, unlisted, seeded, kept or pinned, got %q", value)
	case key == "size" && sign != '=':
		var n sizeValue
		if err := n.Set(value); err != nil {
			return nil, err
		}
		return func(x agent.Snapshot) bool { return (sign == '>') == (x.Size > int64(n)) && x.Size != int64(n) }, nil
	}
	return nil, fmt.Errorf("want repo=PATTERN, state=WORD or size>BYTES, got %q", s)
}

// choose returns the snapshots for which every condition holds.
func (v *filtersValue) choose(all []agent.Snapshot) []agent.Snapshot {
	return slices.DeleteFunc(slices.Clone(all), func(x agent.Snapshot) bool {
		return slices.ContainsFunc(v.hold, func(holds func(agent.Snapshot) bool) bool { return !holds(x) })
	})
}

// sortValue is the order of ls.
type sortValue string

const (
	byName sortValue = "name"
	bySize sortValue = "size" // the largest first
	byUse  sortValue = "used" // the last used first
)

var orders = []sortValue{byName, bySize, byUse}

func (v *sortValue) Set(s string) error { return choose(v, s, orders...) }
func (v *sortValue) choices() []string  { return texts(orders) }
func (v *sortValue) String() string     { return string(*v) }
func (v *sortValue) Type() string       { return "name|size|used" }

func (v sortValue) sort(all []agent.Snapshot) {
	slices.SortStableFunc(all, func(x, y agent.Snapshot) int {
		switch v {
		case bySize:
			return cmp.Compare(y.Size, x.Size)
		case byUse:
			return y.Used.Compare(x.Used)
		}
		return cmp.Or(strings.Compare(x.Repo, y.Repo), strings.Compare(x.Ref, y.Ref))
	})
}
