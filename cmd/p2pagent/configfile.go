package main

import (
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"p2pagent/internal/desired"
	"p2pagent/pkg/agent"
)

// configFile is a YAML file: a mapping whose keys are the names of options, and
// modelsKey.
type configFile struct {
	entries map[string]fileEntry
	models  []desired.Model
}

// modelsKey is the only key that is no option: a list does not fit a flag.
const modelsKey = "models"

type fileEntry struct {
	at   string // file:line
	text string // as the option's Set takes it
	bad  bool   // its fault is told already
}

// maxConfigFile bounds what is read: settings, not data.
const maxConfigFile = 1 << 20

// readFile reads the file that --config or P2PAGENT_CONFIG names; none is no
// fault. Faults carry file:line.
func (s *settings) readFile() (configFile, []error) {
	if !s.flags.Lookup("config").Changed {
		s.Config = s.get(envName("config"))
	}
	if s.Config == "" {
		return configFile{}, nil
	}
	info, err := os.Stat(s.Config)
	if err == nil && info.Size() > maxConfigFile {
		err = fmt.Errorf("%s: longer than %d bytes", s.Config, maxConfigFile)
	}
	if err != nil {
		return configFile{}, []error{fmt.Errorf("read configuration: %w", err)}
	}
	raw, err := os.ReadFile(s.Config)
	if err != nil {
		return configFile{}, []error{fmt.Errorf("read configuration: %w", err)}
	}
	return s.parseFile(raw)
}

func (s *settings) parseFile(raw []byte) (configFile, []error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return configFile{}, []error{syntaxFault(s.Config, err)}
	}
	out := configFile{entries: map[string]fileEntry{}}
	if len(doc.Content) == 0 { // an empty file
		return out, nil
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return out, nil
	}
	if top.Kind != yaml.MappingNode {
		return out, []error{fmt.Errorf("%s:%d: want lines of `key: value`", s.Config, top.Line)}
	}
	var faults []error
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		fault := s.entry(out, key, value)
		if fault == nil && key.Value == modelsKey {
			var more []error
			out.models, more = desired.ParseYAML(s.Config, value, checkPatterns)
			faults = append(faults, more...)
		}
		faults = append(faults, fault)
	}
	return out, faults
}

// checkPatterns judges patterns as the agent will.
func checkPatterns(include, exclude []string) error {
	_, err := agent.Match(nil, include, exclude)
	return err
}

// syntaxFault turns "yaml: line 3: …" into "FILE:3: …".
func syntaxFault(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(text, "line %d:", &line); n == 1 {
		_, text, _ = strings.Cut(text, ": ")
		return fmt.Errorf("%s:%d: %s", path, line, text)
	}
	return fmt.Errorf("%s:1: %s", path, text) // the first line goes without saying
}

// entry takes in one key. A key that is not known is a fault: a typo in a file
// must not be a silent default.
func (s *settings) entry(out configFile, key, value *yaml.Node) error {
	at := fmt.Sprintf("%s:%d", s.Config, key.Line)
	f := s.flags.Lookup(key.Value)
	if key.Value != modelsKey && (f == nil || key.Value == "config" || !isOption(s, key.Value)) {
		return fmt.Errorf("%s: unknown key %q%s", at, key.Value, s.nearest(key.Value))
	}
	if old, ok := out.entries[key.Value]; ok {
		return fmt.Errorf("%s: key %q is set already at %s", at, key.Value, old.at)
	}
	out.entries[key.Value] = fileEntry{at: at, bad: true}
	if key.Value == modelsKey {
		return nil
	}
	text, err := scalarOf(f.Value.Type(), value)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", at, key.Value, err)
	}
	out.entries[key.Value] = fileEntry{at: at, text: text}
	return nil
}

func isOption(s *settings, name string) bool {
	for _, n := range s.names() {
		if n == name {
			return true
		}
	}
	return false
}

// fileTypes says which YAML tags a type of option takes.
var fileTypes = map[string][]string{
	"string":   {"!!str"},
	"bool":     {"!!bool"},
	"int":      {"!!int"},
	"duration": {"!!str"},
	"choice":   {"!!str"},
	"size":     {"!!str", "!!int"},
	"list":     {"!!str"},
	"labels":   {"!!str"},
}

// scalarOf returns the text that an option's Set takes, after it has checked the
// type.
func scalarOf(kind string, v *yaml.Node) (string, error) {
	if v.Kind == yaml.AliasNode {
		v = v.Alias
	}
	switch {
	case v.Kind == yaml.ScalarNode:
		for _, tag := range fileTypes[kind] {
			if v.Tag == tag {
				return v.Value, nil
			}
		}
	case v.Kind == yaml.SequenceNode && kind == "list":
		return words(v.Content)
	case v.Kind == yaml.MappingNode && kind == "labels":
		return pairs(v.Content)
	}
	return "", fmt.Errorf("want %s, got %s", kindText[kind], nodeText(v))
}

func words(items []*yaml.Node) (string, error) {
	var out []string
	for _, n := range items {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || strings.Contains(n.Value, ",") {
			return "", fmt.Errorf("line %d: want a word, got %s", n.Line, nodeText(n))
		}
		out = append(out, n.Value)
	}
	return strings.Join(out, ","), nil
}

func pairs(content []*yaml.Node) (string, error) {
	var out []string
	for i := 0; i+1 < len(content); i += 2 {
		k, v := content[i], content[i+1]
		if v.Kind != yaml.ScalarNode || v.Tag == "!!null" || strings.Contains(k.Value+v.Value, ",") {
			return "", fmt.Errorf("line %d: label %q: want a word", k.Line, k.Value)
		}
		out = append(out, k.Value+"="+v.Value)
	}
	return strings.Join(out, ","), nil
}

var kindText = map[string]string{
	"string": "text", "bool": "true or false", "int": "a whole number", "duration": `a duration such as "30s"`,
	"size": `a size such as "100MB"`, "list": "a list", "labels": "a mapping of labels", "choice": "a word",
}

func nodeText(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	}
	what := map[string]string{"!!int": "number", "!!float": "number", "!!bool": "switch", "!!str": "text", "!!null": "nothing"}[n.Tag]
	return strings.TrimSpace(fmt.Sprintf("%s %q", what, n.Value))
}

// nearest suggests a key that differs little from one that is not known.
func (s *settings) nearest(key string) string {
	best, least := "", 3
	for _, name := range append(s.names(), modelsKey) {
		if d := distance(key, name); d < least && name != "config" {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
