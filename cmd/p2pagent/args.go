package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// suggestWithin is how many letters a word may be off to be taken for a mistyped command.
const suggestWithin = 2

// explainArgs makes complaints about a command's arguments say what it takes and what
// it got.
func explainArgs(c *cobra.Command) {
	check := c.Args
	c.SuggestionsMinimumDistance = suggestWithin
	c.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case check == nil || check(cmd, args) == nil:
			return nil
		case cmd.HasSubCommands():
			return unknownCommand(cmd, args[0])
		}
		return fmt.Errorf("%s takes %s, got %s", strings.TrimPrefix(cmd.CommandPath(), "p2pagent "), cmp.Or(takes(cmd), "no arguments"), cmp.Or(strings.Join(args, " "), "none"))
	}
}

// takes says in the words of help which arguments a command has.
func takes(c *cobra.Command) string {
	_, args, _ := strings.Cut(c.Use, " ")
	return args
}

// unknownCommand says which command was perhaps meant.
func unknownCommand(cmd *cobra.Command, word string) error {
	meant := ""
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		meant = fmt.Sprintf(", did you mean %q?", near[0])
	}
	return fmt.Errorf("unknown command %q for %q%s", word, cmd.CommandPath(), meant)
}
