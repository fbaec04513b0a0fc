package desired

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"p2pagent/pkg/pieces"
)

// MaxModels bounds the list in a configuration.
const MaxModels = 1024

// minRefresh keeps a fleet from asking the Hub all the time.
const minRefresh = time.Minute

// reader reads the list of a configuration file and gathers what is wrong with it.
type reader struct {
	file   string
	check  func(include, exclude []string) error
	models []Model
	at     map[string]int // line by reference
	faults []error
}

// ParseYAML reads the value of `models:`: a list whose entries are references, or
// mappings of ref, pin, include, exclude and refresh. Every fault carries FILE:LINE.
// check judges patterns.
func ParseYAML(file string, list *yaml.Node, check func(include, exclude []string) error) ([]Model, []error) {
	r := &reader{file: file, check: check, at: map[string]int{}}
	switch {
	case list.Kind == yaml.ScalarNode && list.Tag == "!!null":
	case list.Kind != yaml.SequenceNode:
		r.fault(list, "models: want a list of references, or of ref, pin, include, exclude and refresh")
	case len(list.Content) > MaxModels:
		r.fault(list, "models: %d entries, at most %d", len(list.Content), MaxModels)
	default:
		for _, n := range list.Content {
			r.entry(n)
		}
	}
	return r.models, r.faults
}

func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d: %w", r.file, n.Line, fmt.Errorf(format, args...)))
}

func (r *reader) entry(n *yaml.Node) {
	var m Model
	before := len(r.faults)
	switch n.Kind {
	case yaml.ScalarNode:
		r.key(&m, "ref", n)
	case yaml.MappingNode:
		r.mapping(&m, n)
	default:
		r.fault(n, "models: want a reference, or a mapping with ref")
	}
	if len(r.faults) > before {
		return
	}
	r.add(n, m)
}

// add takes a model in after what can be wrong with the whole of it.
func (r *reader) add(n *yaml.Node, m Model) {
	ref := m.Ref.String()
	switch {
	case m.Ref == pieces.Ref{}:
		r.fault(n, "models: an entry without ref")
	case r.at[ref] > 0:
		r.fault(n, "models: %s is named already at %s:%d", ref, r.file, r.at[ref])
	case m.Refresh > 0 && !m.moves():
		r.fault(n, "models: refresh: %s is a commit, which never means another", ref)
	default:
		if err := r.check(m.Include, m.Exclude); err != nil {
			r.fault(n, "models: %w", err)
			return
		}
		r.at[ref] = n.Line
		r.models = append(r.models, m)
	}
}

func (r *reader) mapping(m *Model, n *yaml.Node) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			r.fault(key, "models: %s is set twice", key.Value)
			continue
		}
		seen[key.Value] = true
		r.key(m, key.Value, n.Content[i+1])
	}
}

// keys are what an entry may have.
var keys = []string{"ref", "pin", "include", "exclude", "refresh"}

func (r *reader) key(m *Model, key string, v *yaml.Node) {
	var err error
	switch key {
	case "ref":
		m.Ref, err = refOf(v)
	case "pin":
		err = decode(v, "!!bool", &m.Pin, "true or false")
	case "include":
		m.Include, err = words(v)
	case "exclude":
		m.Exclude, err = words(v)
	case "refresh":
		m.Refresh, err = span(v)
	default:
		err = fmt.Errorf("unknown key, want one of %s", strings.Join(keys, ", "))
	}
	if err != nil {
		r.fault(v, "models: %s: %w", key, err)
	}
}

// Fields are the entry that means the model: its reference, or a mapping.
func (m Model) Fields() any {
	out := map[string]any{}
	if m.Pin {
		out["pin"] = true
	}
	if len(m.Include) > 0 {
		out["include"] = m.Include
	}
	if len(m.Exclude) > 0 {
		out["exclude"] = m.Exclude
	}
	if m.Refresh > 0 {
		out["refresh"] = m.Refresh.String()
	}
	if len(out) == 0 {
		return m.Ref.String()
	}
	out["ref"] = m.Ref.String()
	return out
}

func decode(v *yaml.Node, tag string, into any, want string) error {
	if v.Kind != yaml.ScalarNode || v.Tag != tag {
		return errors.New("want " + want)
	}
	return v.Decode(into)
}

func refOf(v *yaml.Node) (pieces.Ref, error) {
	var text string
	if err := decode(v, "!!str", &text, "[datasets/|spaces/]org/name[@revision]"); err != nil {
		return pieces.Ref{}, err
	}
	return pieces.ParseRef(text)
}

// words takes one word for a list of one.
func words(v *yaml.Node) ([]string, error) {
	list := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		list = v.Content
	}
	var out []string
	for _, n := range list {
		var word string
		if err := decode(n, "!!str", &word, "a list of patterns"); err != nil {
			return nil, err
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func span(v *yaml.Node) (time.Duration, error) {
	var text string
	if err := decode(v, "!!str", &text, `a duration such as "1h"`); err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minRefresh {
		return 0, fmt.Errorf(`want a duration of at least %v, such as "1h", got %q`, minRefresh, text)
	}
	return d, nil
}
