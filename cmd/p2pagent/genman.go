//go:build genman

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// A build with the tag genman writes the manual; the one that is shipped has no
// use for it.
func init() { unlisted = append(unlisted, (*program).genManCmd) }

func (p *program) genManCmd() *cobra.Command {
	return &cobra.Command{
		Use: "gen-man DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write the manual: %w", err)
			}
			cmd.Root().DisableAutoGenTag = true // no date of today: two builds are equal
			head := &doc.GenManHeader{Section: "1", Source: "p2pagent " + version, Manual: "p2pagent"}
			return doc.GenManTree(cmd.Root(), head, args[0])
		},
	}
}
