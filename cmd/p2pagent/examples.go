package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// examples are what help shows of commands that have none of their own.
var examples = map[string]string{
	"config":          "p2pagent config print",
	"config print":    "p2pagent config print --config /etc/p2pagent/p2pagent.yaml",
	"config validate": "p2pagent config validate /etc/p2pagent/p2pagent.yaml",
	"debug":           "p2pagent debug bundle bundle.tar.gz",
	"debug bundle":    "p2pagent debug bundle bundle.tar.gz",
	"doctor":          "p2pagent doctor\np2pagent doctor --strict -q",
	"env":             "eval \"$(p2pagent env)\"",
	"keygen":          "p2pagent keygen swarm.key",
	"ls":              "p2pagent ls --sort size\np2pagent ls --filter state=partial -q",
	"peers":           "p2pagent peers",
	"ps":              "p2pagent ps",
	"reload":          "p2pagent reload",
	"rollout":         "p2pagent rollout org/name --selector pool=a --wait",
	"show":            "p2pagent show org/name",
	"status":          "p2pagent status",
	"verify":          "p2pagent verify org/name\np2pagent ls -q | xargs p2pagent verify",
	"version":         "p2pagent version",
	"kube":            "p2pagent kube label --help",
	"kube own":        "p2pagent kube own --help",
	"kube label":      "p2pagent kube label --help",
}

// helpWidth is what every help fits: a terminal as it comes.
const helpWidth = 80

// finishCommands gives every command an example, completion and complaints that help,
// and makes its help fit.
func (p *program) finishCommands(root *cobra.Command) {
	if !root.HasParent() {
		explainArgs(root)
		root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", helpWidth)))
	}
	for _, c := range root.Commands() {
		c.Long = fit(c.Long)
		c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "\n", " ") }) // help breaks lines itself
		name := strings.TrimPrefix(c.CommandPath(), "p2pagent ")
		if c.Example == "" && examples[name] != "" {
			c.Example = "  " + strings.ReplaceAll(examples[name], "\n", "\n  ")
		}
		p.completeArgs(c, name)
		completeFlags(c)
		explainArgs(c)
		p.finishCommands(c)
	}
}

// fit breaks the lines of paragraphs that have one that is too long.
func fit(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		if slices.ContainsFunc(strings.Split(p, "\n"), func(line string) bool { return utf8.RuneCountInString(line) > helpWidth }) {
			paragraphs[i] = reflow(strings.Fields(p))
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

func reflow(words []string) string {
	var out strings.Builder
	column := 0
	for i, w := range words {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
		case column+1+n > helpWidth:
			out.WriteByte('\n')
			column = 0
		default:
			out.WriteByte(' ')
			column++
		}
		out.WriteString(w)
		column += n
	}
	return out.String()
}
