package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/internal/doctor"
	"p2pagent/pkg/agent"
)

const doctorLong = `Look for what is wrong with this node, and say what to do about it: the agent, the
variables of Hub clients, the Hub, the token and the clock, the disk, the key, the
ports and the other members. Changes nothing. With --join it also asks whether
those members answer.

It looks with the eyes of who runs it: as the agent's user, with the agent's
settings and variables, it sees what the agent sees.

Exit code 1 when a check failed; with --strict also when one warns.`

// doctorWait bounds the command: two questions to the agent, and the checks.
const doctorWait = 12 * time.Second

// agentWait bounds the questions to the agent.
const agentWait = 4 * time.Second

func (p *program) doctorCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "doctor", Short: "find what is wrong with this node", Long: doctorLong, Args: cobra.NoArgs}
	cmd.Flags().SortFlags = false
	format, strict := formatHuman, false
	cmd.Flags().Var(&format, "format", "how to write results")
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings are failures")
	s := p.newSettings(cmd.Flags())
	s.showOnly("socket", "config", "join", "swarm-key-file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), doctorWait, &timeoutError{doctorWait})
		defer cancel()
		return bounded(ctx, func() error {
			if err := s.load(); err != nil {
				return err
			}
			results := doctor.Run(ctx, s.patient(ctx))
			if err := p.printResults(results, format, strict); err != nil {
				return err
			}
			return verdict(results, strict)
		})
	}
	return cmd
}

// verdict is the error that the command ends with.
func verdict(results []doctor.Result, strict bool) error {
	failed := 0
	for _, r := range results {
		if bad(r, strict) {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return agent.Errorf(agent.Other, "%d of %d checks failed", failed, len(results))
}

func bad(r doctor.Result, strict bool) bool {
	return r.Verdict == doctor.Fail || strict && r.Verdict == doctor.Warn
}

func (p *program) printResults(results []doctor.Result, format formatValue, strict bool) error {
	switch format {
	case formatJSON:
		return p.printJSON(checksOutput{version1, results})
	case formatQuiet:
		for _, r := range results {
			if bad(r, strict) {
				fmt.Fprintln(p.stdout, r.Check)
			}
		}
		return nil
	}
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{string(r.Verdict), r.Check, r.Seen})
		if r.Do != "" {
			rows = append(rows, []string{"", "", "-> " + r.Do})
		}
	}
	return table(p.stdout, rows)
}
