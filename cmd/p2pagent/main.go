// Command p2pagent brings models from the Hugging Face Hub onto every node of a
// fleet with one upstream copy, verified. `p2pagent help` lists its verbs;
// docs/operations.md describes them.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// drainWait is how long a stop that was asked for may take: a bit less than the
// ten seconds that are promised.
const drainWait = 9500 * time.Millisecond

// memoryLimit keeps the heap of an agent small beside a training job. With
// stacks and the runtime's own memory it stays below 150 MiB.
const memoryLimit = 112 << 20

// gcPercent bounds the garbage beside what lives. Nearly all that lives is piece
// buffers, which are used again: letting as much garbage lie would double them.
const gcPercent = 30

func main() { os.Exit(run()) }

// run is main with an exit code, as tests call it.
func run() int {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go watchSignals(cancel)
	p := &program{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		env: os.LookupEnv, terminal: isTerminal(os.Stderr), ask: isTerminal(os.Stdin),
	}
	return p.main(ctx, os.Args[1:])
}

// program is what the outside gives the commands.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) (string, bool)
	terminal       bool // stderr is one
	ask            bool // stdin is one
}

// watchSignals ends the context with the first signal and the process with the
// second, or when draining takes too long.
func watchSignals(cancel context.CancelCauseFunc) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	first := (<-signals).(syscall.Signal)
	cancel(&signalError{first})
	select {
	case <-signals:
	case <-time.After(drainWait):
	}
	os.Exit(exitSignal + int(first))
}
