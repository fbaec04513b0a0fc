package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"p2pagent/pkg/hub"
)

func (p *program) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "print or check the settings", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("config: print or validate?") }}
	cmd.AddCommand(p.configPrintCmd(), p.configValidateCmd())
	return cmd
}

func (p *program) configPrintCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "print", Short: "print every setting and where it comes from", Args: cobra.NoArgs,
		Long: "Print every setting that an agent would use, as YAML that --config reads, with\nwhere each comes from. Takes the flags of p2pagent agent."}
	format := formatHuman
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(&format, "format", "how to write them")
	origins := cmd.Flags().Bool("show-origin", true, "say where each comes from, as a comment")
	s := p.newSettings(cmd.Flags())
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := s.load(); err != nil {
			return err
		}
		if s.Socket == "" {
			s.Socket = s.place.serveSocket(s.StateDir)
		}
		if format == formatJSON {
			return p.printJSON(s.printed())
		}
		return p.printSettings(s, *origins)
	}
	return cmd
}

func (p *program) configValidateCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "validate [FILE]", Short: "check the settings", Args: cobra.MaximumNArgs(1),
		Long: "Check the settings that an agent would use, and the file; report every fault.\nExit code 2 when there is one. Takes the flags of p2pagent agent."}
	cmd.Flags().SortFlags = false
	s := p.newSettings(cmd.Flags())
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if len(args) == 1 {
			if err := cmd.Flags().Set("config", args[0]); err != nil {
				return err
			}
		}
		if err := s.load(); err != nil {
			return err
		}
		if err := s.checkHub(); err != nil {
			return err
		}
		fmt.Fprintln(p.stderr, "p2pagent: the settings are valid")
		return nil
	}
	return cmd
}

func (s *settings) printed() configOutput {
	out := configOutput{version1, map[string]printedSetting{}, s.Offline, s.tokenText()}
	for _, name := range s.names() {
		out.Settings[name] = printedSetting{s.flags.Lookup(name).Value.String(), s.origins[name]}
	}
	return out
}

// tokenText says whether there is a token, and never which.
func (s *settings) tokenText() string {
	token, err := hub.EnvToken(s.get)()
	switch {
	case err != nil:
		return err.Error()
	case token == "":
		return "none"
	}
	return "set"
}

// printSettings writes YAML with origins as comments.
func (p *program) printSettings(s *settings, origins bool) error {
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	for _, name := range s.names() {
		if name == "config" {
			continue
		}
		text, err := s.yamlOf(name)
		if err != nil {
			return err
		}
		if !origins {
			fmt.Fprintf(t, "%s: %s\n", name, clean(text))
			continue
		}
		fmt.Fprintf(t, "%s: %s\t# %s\n", name, clean(text), clean(s.origins[name]))
	}
	printModels(t, s.models, when(origins, "\t# file "+clean(s.Config)))
	fmt.Fprintf(t, "# HF_HUB_OFFLINE: %v\n# token: %s\n", s.Offline, clean(s.tokenText()))
	return t.Flush()
}

// yamlOf writes a value on one line, as parseFile reads it.
func (s *settings) yamlOf(name string) (string, error) {
	f := s.flags.Lookup(name)
	var v any = f.Value.String()
	switch f.Value.Type() {
	case "int", "bool", "size":
		return f.Value.String(), nil
	case "list":
		v = []string(*f.Value.(*listValue))
	case "labels":
		v = map[string]string(s.Label)
	}
	raw, err := yaml.Marshal(flow(v))
	return strings.TrimSpace(string(raw)), err
}

// flow makes a YAML node that stays on one line.
func flow(v any) *yaml.Node {
	n := &yaml.Node{}
	if err := n.Encode(v); err != nil {
		panic(err) // strings, lists and maps of them always encode
	}
	n.Style |= yaml.FlowStyle
	if n.Kind == yaml.ScalarNode {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
