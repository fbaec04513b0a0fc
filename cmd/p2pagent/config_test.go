package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"p2pagent/pkg/agent"
)

// load parses settings from a command line, an environment and a file.
func load(t *testing.T, args []string, env map[string]string, file string) (*settings, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	get := func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		if name == "HOME" {
			return "/home/u", true
		}
		return "", false
	}
	p := &program{env: get}
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	s := p.newSettings(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s, s.load()
}

// samples has four different values for every option: flag, variable, file, and
// what the first becomes when printed.
var samples = map[string][4]string{
	"state-dir":      {"/a", "/b", "/c", "/a"},
	"hub-cache":      {"/a/hub", "/b/hub", "/c/hub", "/a/hub"},
	"hub-endpoint":   {"http://a", "http://b", "http://c", "http://a"},
	"bind":           {"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"},
	"gossip-port":    {"1001", "1002", "1003", "1001"},
	"swarm-port":     {"2001", "2002", "2003", "2001"},
	"advertise":      {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"},
	"join":           {"a:1,b:2", "c:3", "[d:4, e:5]", "a:1,b:2"},
	"join-timeout":   {"1s", "2s", "3s", "1s"},
	"swarm-key-file": {"/k1", "/k2", "/k3", "/k1"},
	"insecure":       {"true", "true", "true", "true"},
	"upstream":       {"false", "false", "false", "false"},
	"fetchers":       {"1", "2", "3", "1"},
	"xet":            {"off", "only", "auto", "off"},
	"ranges":         {"4", "5", "6", "4"},
	"label":          {"a=1", "b=2", "{c: 3}", "a=1"},
	"metrics-addr":   {"127.0.0.1:1", ":2", "host:3", "127.0.0.1:1"},
	"log-format":     {"text", "json", "auto", "text"},
	"socket":         {"/s1", "/s2", "/s3", "/s1"},
	"gateway":        {"127.0.0.1:1", "off", "localhost:3", "127.0.0.1:1"},
	"gateway-open":   {"org/a,datasets/b", "*", "[org/c]", "org/a,datasets/b"},
	"gateway-xet":    {"huge", "all", "off", "huge"},
	"upload-limit":   {"1kB", "2MiB", "3000", "1000"},
	"download-limit": {"1kB", "2MiB", "3000", "1000"},
	"upstream-limit": {"1kB", "2MiB", "3000", "1000"},

	"accept-rollouts":   {"false", "false", "false", "false"},
	"max-cache":         {"1kB", "2MiB", "3000", "1000"},
	"high-watermark":    {"90", "80", "70", "90"},
	"low-watermark":     {"50", "40", "30", "50"},
	"evict-last-copies": {"true", "true", "true", "true"},
}

// For every key: flag before variable before file before default, and the origin
// says which.
func TestPrecedence(t *testing.T) {
	probe, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range probe.names() {
		if name == "config" {
			continue
		}
		v, ok := samples[name]
		if !ok {
			t.Errorf("option %s has no sample", name)
			continue
		}
		flag, env, file := []string{"--" + name + "=" + v[0]}, map[string]string{envName(name): v[1]}, name+": "+v[2]+"\n"
		for _, c := range []struct {
			args   []string
			env    map[string]string
			file   string
			origin string
		}{
			{flag, env, file, "flag --" + name},
			{nil, env, file, "env " + envName(name)},
			{nil, nil, file, "file "},
			{nil, nil, "", "default"},
		} {
			if name == "low-watermark" {
				c.file += "high-watermark: 90\n" // makes no sense without
			}
			s, err := load(t, c.args, c.env, c.file)
			if err != nil {
				t.Errorf("%s from %s: %v", name, c.origin, err)
				continue
			}
			if got := s.origins[name]; !strings.HasPrefix(got, c.origin) {
				t.Errorf("%s: origin %q, want %q", name, got, c.origin)
			}
			got := s.flags.Lookup(name).Value.String()
			if c.args != nil && got != v[3] {
				t.Errorf("%s: %q, want %q", name, got, v[3])
			}
			if c.origin == "default" && got == v[3] {
				t.Errorf("%s: the default is the sample %q: nothing is shown", name, got)
			}
		}
	}
}

func TestFleetVariables(t *testing.T) {
	for _, c := range []struct {
		env              map[string]string
		hub, state, from string
	}{
		{nil, "/home/u/.cache/huggingface/hub", "/home/u/.cache/huggingface/p2pagent", "default"},
		{map[string]string{"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", "/x/huggingface/p2pagent", "default"},
		{map[string]string{"HF_HOME": "~/hf"}, "/home/u/hf/hub", "/home/u/hf/p2pagent", "default"},
		{map[string]string{"HF_HOME": "/hf", "HF_HUB_CACHE": "/models/hub"}, "/models/hub", "/models/p2pagent", "env HF_HUB_CACHE"},
		{map[string]string{"HUGGINGFACE_HUB_CACHE": "/models/hub"}, "/models/hub", "/models/p2pagent", "env HUGGINGFACE_HUB_CACHE"},
		{map[string]string{"HF_HUB_CACHE": "/models/hub", "P2PAGENT_HUB_CACHE": "/mine/hub"}, "/mine/hub", "/mine/p2pagent", "env P2PAGENT_HUB_CACHE"},
		{map[string]string{"HOME": "", "STATE_DIRECTORY": "/var/lib/p2pagent"}, "/var/lib/p2pagent/huggingface/hub", "/var/lib/p2pagent/agent", "default"},
	} {
		s, err := load(t, nil, c.env, "")
		if err != nil {
			t.Errorf("%v: %v", c.env, err)
			continue
		}
		if s.HubCache != c.hub || s.StateDir != c.state || s.origins["hub-cache"] != c.from {
			t.Errorf("%v: cache %s, state %s, origin %s", c.env, s.HubCache, s.StateDir, s.origins["hub-cache"])
		}
	}
	if _, err := load(t, nil, map[string]string{"HOME": ""}, ""); err == nil || !strings.Contains(err.Error(), "no default without HOME") {
		t.Errorf("no home: %v", err)
	}
	for v, want := range map[string]bool{"1": true, "on": true, "Yes": true, "true": true, "0": false, "": false, "no": false} {
		if s, err := load(t, nil, map[string]string{"HF_HUB_OFFLINE": v}, ""); err != nil || s.Offline != want {
			t.Errorf("HF_HUB_OFFLINE=%s: offline %v, %v", v, s.Offline, err)
		}
	}
}

// Kubernetes makes variables out of a service's name; they are no settings.
func TestForeignVariables(t *testing.T) {
	if _, err := load(t, nil, map[string]string{"P2PAGENT_SERVICE_HOST": "10.0.0.1", "P2PAGENT_PORT_7946_TCP": "tcp://10.0.0.1:7946"}, ""); err != nil {
		t.Error(err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"joins: [a:1]", `:1: unknown key "joins", did you mean "join"?`},
		{"zzzzzzzz: 1", `:1: unknown key "zzzzzzzz"`},
		{"join: [1]", `line 1: want a word, got number "1"`},
		{"join: {a: b}", ":1: join: want a list, got a mapping"},
		{"label: [a]", ":1: label: want a mapping of labels, got a list"},
		{"label: {a: null}", `label "a": want a word`},
		{"fetchers: 1.5", `:1: fetchers: want a whole number, got number "1.5"`},
		{"upstream: 1", `:1: upstream: want true or false, got number "1"`},
		{"bind: 5", `:1: bind: want text, got number "5"`},
		{"upload-limit: many", "want a size"},
		{"upload-limit: -5", "want a size"},
		{"\tfetchers: 1", ":1: "},
		{"a: b: c", ":1: "},
		{"? [a]\n: b", ":1: unknown key"},
	} {
		_, err := load(t, nil, nil, c.file+"\n")
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "c.yaml:") || classify(err) != agent.Usage {
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "5": 5, "5b": 5, "1k": 1000, "1KB": 1000, "1KiB": 1024, "1.5 MiB": 3 << 19, "2G": 2e9, "1TiB": 1 << 40,
	} {
		var v sizeValue
		if err := v.Set(in); err != nil || int64(v) != want {
			t.Errorf("%q: %d, %v; want %d", in, v, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "1X", "nan", "inf", "1e300", "99999999TiB", "MiB"} {
		var v sizeValue
		if err := v.Set(in); err == nil {
			t.Errorf("%q accepted as %d", in, v)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add("fetchers: 3\njoin: [a:1]\nlabel: {a: b}\n")
	f.Add("a: &x 1\nb: *x\n")
	f.Add("- 1")
	f.Fuzz(func(t *testing.T, text string) {
		p := &program{env: func(string) (string, bool) { return "", false }}
		s := p.newSettings(pflag.NewFlagSet("", pflag.ContinueOnError))
		s.Config = "f.yaml"
		file, faults := s.parseFile([]byte(text))
		for _, err := range dropNil(faults) {
			if !strings.HasPrefix(err.Error(), "f.yaml:") {
				t.Errorf("no place in %v", err)
			}
		}
		for name, e := range file.entries {
			if !slices.Contains(s.names(), name) || !strings.HasPrefix(e.at, "f.yaml:") {
				t.Errorf("entry %s %+v", name, e)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	s, _ := load(t, nil, nil, "")
	for in, want := range map[string]string{"fetcher": `, did you mean "fetchers"?`, "hub_cache": `, did you mean "hub-cache"?`, "nothing": "", "": ""} {
		if got := s.nearest(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if d := distance("kitten", "sitting"); d != 3 {
		t.Errorf("distance %d", d)
	}
}

func TestSockets(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{}
	p := place{get: func(k string) string { return env[k] }}
	if got := p.serveSocket("/state"); got != "/state/agent.sock" {
		t.Error(got)
	}
	env["XDG_RUNTIME_DIR"] = dir
	if got := p.serveSocket("/state"); got != dir+"/p2pagent/agent.sock" {
		t.Error(got)
	}
	p.root = true
	if got := p.serveSocket("/state"); got != "/run/p2pagent/agent.sock" {
		t.Error(got)
	}
	env["RUNTIME_DIRECTORY"] = "/run/x:/run/y"
	if got := p.serveSocket("/state"); got != "/run/x/agent.sock" {
		t.Error(got)
	}
	l, err := agent.Listen(filepath.Join(dir, "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := p.findSocket(dir); got != filepath.Join(dir, "agent.sock") {
		t.Errorf("found %s", got)
	}
}
