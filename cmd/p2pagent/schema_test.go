package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	schemas "github.com/invopop/jsonschema"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"p2pagent/pkg/agent"
)

var update = flag.Bool("update", false, "write docs/schemas and testdata/schemas/properties.txt anew")

const schemaDir = "../../docs/schemas"

// outputs are the shapes that each command prints; one of several prints any of
// them. Every command that fails prints errorOutput last.
var outputs = map[string][]any{
	"config":  {configOutput{}},
	"doctor":  {checksOutput{}},
	"env":     {envOutput{}},
	"fetch":   {fetchProgress{}, fetchResult{}},
	"ls":      {snapshotsOutput{}},
	"peers":   {peersOutput{}},
	"pin":     {pinOutput{}},
	"prune":   {prunedOutput{}},
	"ps":      {jobsOutput{}},
	"reload":  {reloadOutput{}},
	"rm":      {removedOutput{}},
	"rollout": {rolloutTable{}},
	"show":    {snapshotOutput{}},
	"status":  {agent.Status{}},
	"verify":  {verifyResult{}},
	"wait":    {waitResult{}},
}

// schemaOf describes what a command prints. A strict schema has no room for fields
// that it does not name; the shipped ones leave it, for later versions.
func schemaOf(t *testing.T, name string, strict bool) []byte {
	t.Helper()
	r := &schemas.Reflector{Anonymous: true, DoNotReference: true, ExpandedStruct: true, AllowAdditionalProperties: !strict}
	whole := &schemas.Schema{Version: schemas.Version, Title: "p2pagent " + name + " --format json"}
	for _, shape := range append(slices.Clone(outputs[name]), errorOutput{}) {
		s := r.Reflect(shape)
		s.Version = ""
		whole.AnyOf = append(whole.AnyOf, s)
	}
	raw, err := json.MarshalIndent(whole, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(raw, '\n')
}

// TestSchemas compares the shipped schemas with the types that commands print.
func TestSchemas(t *testing.T) {
	for name := range outputs {
		path, want := filepath.Join(schemaDir, name+".json"), schemaOf(t, name, false)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what p2pagent %s prints (go test ./cmd/p2pagent -run Schemas -update writes it): %v", path, name, err)
		}
	}
}

// TestPropertiesStay: what was printed once, programs read. -update adds to the
// list and takes nothing away.
func TestPropertiesStay(t *testing.T) {
	const path = "testdata/schemas/properties.txt"
	now := map[string]bool{}
	for name, shapes := range outputs {
		for _, shape := range append(slices.Clone(shapes), errorOutput{}) {
			properties(reflect.TypeOf(shape), name, now, nil)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for p := range strings.Lines(string(raw)) {
		if p = strings.TrimSpace(p); !now[p] {
			t.Errorf("%s went away or has another type: only with another SchemaVersion", p)
		}
	}
	if *update {
		raw = []byte(strings.Join(slices.Sorted(maps.Keys(now)), "\n") + "\n")
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have := len(strings.Split(strings.TrimSpace(string(raw)), "\n")); have < len(now) {
		t.Errorf("%s has %d properties of %d (-update adds them)", path, have, len(now))
	}
}

// properties adds "command.field.field kind" for everything that t encodes to.
func properties(t reflect.Type, path string, into map[string]bool, within []reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.PkgPath() == "time" || slices.Contains(within, t) {
		into[path+" "+t.Kind().String()] = true
		return
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || name == "" && !f.Anonymous:
		case name == "":
			properties(f.Type, path, into, append(within, t))
		default:
			properties(f.Type, path+"."+name, into, append(within, t))
		}
	}
}

// conforms NAME FILE: every line of the file is as the command of that name prints it,
// and has no field that the schema does not name.
func (s scripts) cmdConforms(ts *testscript.TestScript, neg bool, args []string) {
	schema := s.compile(ts, args[0])
	var faults []error
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[1])))
	d.UseNumber()
	seen := 0
	for ; d.More(); seen++ {
		var v any
		ts.Check(d.Decode(&v))
		if err := schema.Validate(v); err != nil {
			faults = append(faults, err)
		}
	}
	switch {
	case seen == 0:
		ts.Fatalf("%s has no JSON", args[1])
	case neg != (len(faults) > 0):
		ts.Fatalf("%s as p2pagent %s prints it: %v", args[1], args[0], faults)
	}
}

type scripts struct{ t *testing.T }

func (s scripts) compile(ts *testscript.TestScript, name string) *jsonschema.Schema {
	if outputs[name] == nil {
		ts.Fatalf("no schema of %s", name)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaOf(s.t, name, true)))
	ts.Check(err)
	c := jsonschema.NewCompiler()
	url := fmt.Sprintf("mem:///%s.json", name)
	ts.Check(c.AddResource(url, doc))
	schema, err := c.Compile(url)
	ts.Check(err)
	return schema
}
