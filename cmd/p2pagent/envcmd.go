package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"p2pagent/internal/doctor"
	"p2pagent/pkg/agent"
)

const envLong = `Print the variables with which unmodified Hub clients use this node: its gateway
and its cache. Asks the agent where they are; without one, the settings say it.

  eval "$(p2pagent env)"                 # this shell
  p2pagent env --format env > hub.env    # EnvironmentFile of systemd, docker --env-file
  p2pagent env --format yaml             # env of a pod's container

With --offline: the variables with which clients ask nobody and read the cache
alone, for what was fetched before.`

func (p *program) envCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "env", Short: "print the variables that clients of this node need", Long: envLong, Args: cobra.NoArgs}
	cmd.Flags().SortFlags = false
	format, offline := envFormat(envShell), false
	cmd.Flags().Var(&format, "format", "how to write them")
	cmd.Flags().BoolVar(&offline, "offline", false, "for clients that read the cache alone")
	s := p.newSettings(cmd.Flags())
	s.showOnly("socket", "config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := s.load(); err != nil {
			return err
		}
		f, err := p.faceOf(cmd.Context(), s)
		if err != nil {
			return err
		}
		vars, err := s.clientVariables(f, offline)
		if err != nil {
			return err
		}
		return p.printVariables(vars, format)
	}
	return cmd
}

// face is what clients have to know of a node.
type face struct {
	gateway, hubCache string
	xet               bool // the gateway serves Xet too
}

// faceOf asks the agent; when there is none, what it would use is the answer.
func (p *program) faceOf(ctx context.Context, s *settings) (face, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, &timeoutError{askWait})
	defer cancel()
	st, err := s.client().Status(ctx)
	switch {
	case err == nil:
		return face{st.Gateway, st.HubCache, st.GatewayXet}, nil
	case classify(err) == agent.NoAgent:
		fmt.Fprintf(p.stderr, "p2pagent: %s; printing what the settings say\n", clean(err.Error()))
		return face{s.gatewayAddr(), s.HubCache, s.GatewayXet != offerOff}, nil
	}
	return face{}, err
}

// variable is one of a client's environment.
type variable struct {
	Name  string `yaml:"name"`
	Value string `yaml:"value"`
}

// clientVariables returns the variables in the order in which they are printed.
// The timeouts leave the gateway time to begin a file that is on its way; Xet is
// off unless its bytes come from the gateway.
func (s *settings) clientVariables(f face, offline bool) ([]variable, error) {
	cache := variable{"HF_HUB_CACHE", f.hubCache}
	if offline {
		return []variable{{"HF_HUB_OFFLINE", "1"}, cache}, nil
	}
	host, port, err := net.SplitHostPort(f.gateway)
	if err != nil || port == "0" {
		return nil, &agent.Error{Kind: agent.Other, Message: "this node has no gateway that clients could find",
			Hint: "start the agent with --gateway " + defaultGateway + ", or let clients read the cache alone with --offline"}
	}
	direct := doctor.NoProxy(s.env, host)
	out := []variable{
		{"HF_ENDPOINT", "http://" + f.gateway},
		{"NO_PROXY", direct}, {"no_proxy", direct}, // where both are set, some clients read only one
	}
	if !f.xet {
		out = append(out, variable{"HF_HUB_DISABLE_XET", "1"})
	}
	out = append(out, variable{"HF_HUB_DISABLE_TELEMETRY", "1"}, variable{"HF_HUB_ETAG_TIMEOUT", "30"}, variable{"HF_HUB_DOWNLOAD_TIMEOUT", "60"})
	if !s.foundByDefault(f.hubCache) {
		out = append(out, cache)
	}
	return out, nil
}

// foundByDefault tells whether clients find the cache without HF_HUB_CACHE, both
// in this environment and in an empty one.
func (s *settings) foundByDefault(hubCache string) bool {
	empty := place{get: func(name string) string {
		if name == "HOME" {
			return s.get(name)
		}
		return ""
	}}
	plain, err := empty.hubCache()
	return err == nil && plain == hubCache && s.clientCache() == hubCache
}

// clientCache is where a client with this environment looks, "" when that can't
// be told.
func (s *settings) clientCache() string {
	for _, name := range fleetVariables["hub-cache"] {
		if dir := s.get(name); dir != "" {
			return filepath.Clean(expandHome(dir, s.get("HOME")))
		}
	}
	dir, _ := s.place.hubCache()
	return dir
}

// printVariables writes them so that nothing in a value is read as anything else.
func (p *program) printVariables(vars []variable, format envFormat) error {
	if format == envJSON {
		return p.printJSON(envOutput{version1, jsonOf(vars)})
	}
	write := map[envFormat]func([]variable) (string, error){envShell: shellLines, envFile: fileLines, envYAML: podLines}[format]
	text, err := write(vars)
	if err == nil {
		_, err = fmt.Fprint(p.stdout, text)
	}
	return err
}

func jsonOf(vars []variable) map[string]string {
	out := map[string]string{}
	for _, v := range vars {
		out[v.Name] = v.Value
	}
	return out
}

func shellLines(vars []variable) (string, error) {
	var out strings.Builder
	for _, v := range vars {
		fmt.Fprintf(&out, "export %s='%s'\n", v.Name, strings.ReplaceAll(v.Value, "'", `'\''`))
	}
	return out.String(), nil
}

// fileLines refuses what systemd and docker read differently: the one knows
// quotes and escapes, the other takes everything as it stands.
func fileLines(vars []variable) (string, error) {
	var out strings.Builder
	for _, v := range vars {
		if strings.ContainsAny(v.Value, "\"'\\\n\r") || v.Value != strings.TrimSpace(v.Value) {
			return "", usagef("%s=%q can't be written so that systemd and docker read the same; use --format shell or yaml", v.Name, v.Value)
		}
		fmt.Fprintf(&out, "%s=%s\n", v.Name, v.Value)
	}
	return out.String(), nil
}

// podLines is the env of a container. A pod's $(NAME) means another variable, so
// every $ is doubled.
func podLines(vars []variable) (string, error) {
	out := slices.Clone(vars)
	for i := range out {
		out[i].Value = strings.ReplaceAll(out[i].Value, "$", "$$")
	}
	raw, err := yaml.Marshal(out)
	return string(raw), err
}

// envFormat is how variables are written.
type envFormat string

const (
	envShell envFormat = "shell"
	envFile  envFormat = "env"
	envJSON  envFormat = "json"
	envYAML  envFormat = "yaml"
)

var envFormats = []envFormat{envShell, envFile, envJSON, envYAML}

func (v *envFormat) Set(s string) error { return choose(v, s, envFormats...) }
func (v *envFormat) choices() []string  { return texts(envFormats) }

func (v *envFormat) String() string { return string(*v) }
func (v *envFormat) Type() string   { return "shell|env|json|yaml" }
