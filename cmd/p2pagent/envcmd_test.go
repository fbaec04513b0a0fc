package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// odd is a value in which every format has something to get wrong.
const odd = `/data/it's "here" $HOME $(HF_HOME) #1 \n`

// TestEnvFormats reads each format the way its users do.
func TestEnvFormats(t *testing.T) {
	vars := []variable{{"A", odd}, {"B", "1"}, {"C", "a,b"}}
	print := func(format envFormat, vars []variable) (string, error) {
		var out bytes.Buffer
		err := (&program{stdout: &out}).printVariables(vars, format)
		return out.String(), err
	}
	text, err := print(envShell, vars)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.CommandContext(t.Context(), "sh", "-c", text+`printf '%s|%s|%s' "$A" "$B" "$C"; sh -c 'printf "|%s" "$A"'`).Output()
	if want := odd + "|1|a,b|" + odd; err != nil || string(got) != want {
		t.Errorf("a shell reads %q, %v, want %q", got, err, want)
	}

	text, _ = print(envJSON, vars)
	var j struct{ Env map[string]string }
	if err := json.Unmarshal([]byte(text), &j); err != nil || len(j.Env) != 3 || j.Env["A"] != odd {
		t.Errorf("JSON %s: %v", text, err)
	}

	text, _ = print(envYAML, vars)
	var y []map[string]any
	if err := yaml.Unmarshal([]byte(text), &y); err != nil || len(y) != 3 {
		t.Fatalf("YAML %s: %v", text, err)
	}
	if y[0]["name"] != "A" || y[0]["value"] != strings.ReplaceAll(odd, "$", "$$") || y[1]["value"] != "1" {
		t.Errorf("YAML: %v; a pod wants text, and $$ for $", y)
	}
	if vars[0].Value != odd {
		t.Error("the YAML changed the caller's values")
	}

	if text, err := print(envFile, vars); exitCode(err) != 2 || text != "" {
		t.Errorf("a file with quotes: %q, %v", text, err)
	}
	if text, err := print(envFile, []variable{{"A", "/data/$x y#z"}, {"B", "1"}}); err != nil || text != "A=/data/$x y#z\nB=1\n" {
		t.Errorf("a file: %q, %v", text, err)
	}
}

func TestClientVariables(t *testing.T) {
	usual := []string{"HF_ENDPOINT", "NO_PROXY", "no_proxy", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"}
	for _, c := range []struct {
		name     string
		env      map[string]string
		face     face
		offline  bool
		want     []string
		endpoint string
		noProxy  string
		code     int
	}{
		{name: "default cache", env: map[string]string{"HOME": "/h"}, face: face{gateway: "127.0.0.1:8090", hubCache: "/h/.cache/huggingface/hub"},
			want: usual, endpoint: "http://127.0.0.1:8090", noProxy: "127.0.0.1,localhost"},
		{name: "another cache", env: map[string]string{"HOME": "/h"}, face: face{gateway: "127.0.0.1:9", hubCache: "/data/hub"},
			want: append(slices.Clone(usual), "HF_HUB_CACHE"), endpoint: "http://127.0.0.1:9", noProxy: "127.0.0.1,localhost"},
		{name: "here the default, elsewhere not", env: map[string]string{"HOME": "/h", "HF_HOME": "/data"}, face: face{gateway: "127.0.0.1:9", hubCache: "/data/hub"},
			want: append(slices.Clone(usual), "HF_HUB_CACHE"), endpoint: "http://127.0.0.1:9", noProxy: "127.0.0.1,localhost"},
		{name: "elsewhere the default, here not", env: map[string]string{"HOME": "/h", "HF_HUB_CACHE": "/x"}, face: face{gateway: "127.0.0.1:9", hubCache: "/h/.cache/huggingface/hub"},
			want: append(slices.Clone(usual), "HF_HUB_CACHE"), endpoint: "http://127.0.0.1:9", noProxy: "127.0.0.1,localhost"},
		{name: "IPv6", env: map[string]string{"HOME": "/h", "NO_PROXY": "a, .b"}, face: face{gateway: "[::1]:8090", hubCache: "/h/.cache/huggingface/hub"},
			want: usual, endpoint: "http://[::1]:8090", noProxy: "a,.b,127.0.0.1,localhost,::1"},
		{name: "with Xet", env: map[string]string{"HOME": "/h"}, face: face{"127.0.0.1:8090", "/h/.cache/huggingface/hub", true},
			want: slices.Delete(slices.Clone(usual), 3, 4), endpoint: "http://127.0.0.1:8090", noProxy: "127.0.0.1,localhost"},
		{name: "offline", env: map[string]string{"HOME": "/h"}, face: face{gateway: "", hubCache: "/h/.cache/huggingface/hub"}, offline: true, want: []string{"HF_HUB_OFFLINE", "HF_HUB_CACHE"}},
		{name: "no gateway", face: face{gateway: "", hubCache: "/c"}, code: 1},
		{name: "any port", face: face{gateway: "127.0.0.1:0", hubCache: "/c"}, code: 1},
	} {
		get := func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
		s := &settings{env: get}
		s.place = place{get: s.get}
		vars, err := s.clientVariables(c.face, c.offline)
		var names []string
		for _, v := range vars {
			names = append(names, v.Name)
		}
		m := jsonOf(vars)
		if exitCode(err) != c.code || !slices.Equal(names, c.want) || m["HF_ENDPOINT"] != c.endpoint || m["NO_PROXY"] != c.noProxy || m["no_proxy"] != c.noProxy {
			t.Errorf("%s: %v, %v", c.name, vars, err)
		}
	}
}
