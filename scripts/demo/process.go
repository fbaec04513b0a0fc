package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a child with its output in a log file.
type process struct {
	name, log string
	cmd       *exec.Cmd
	ended     chan struct{} // closed when it has ended
}

// child prepares a command that cannot outlive this program.
func child(dir string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// environ is ours without the settings of the caller's own Hub cache and agent.
// keepHub leaves those that say where the real Hub is and who is asking.
func environ(keepHub bool, more ...string) []string {
	var out []string
	for _, kv := range os.Environ() {
		hub := strings.HasPrefix(kv, "HF_ENDPOINT=") || strings.HasPrefix(kv, "HF_TOKEN")
		if strings.HasPrefix(kv, "P2PAGENT_") || (strings.HasPrefix(kv, "HF_") && !(hub && keepHub)) {
			continue
		}
		out = append(out, kv)
	}
	return append(out, more...)
}

func start(name, log string, stdout io.Writer, cmd *exec.Cmd) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = io.Writer(f), f
	if stdout != nil {
		cmd.Stdout = stdout
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
		close(p.ended)
	}()
	return p, nil
}

// alive is nil while the process runs, and says how it ended after that.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended early (%v): %s", p.name, p.cmd.ProcessState, lastWords(p.log))
	default:
		return nil
	}
}

// stop asks the process to end and makes it after 10 seconds, which is an error.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.ended:
		return nil
	case <-time.After(10 * time.Second):
	}
	_ = p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("%s did not end within 10 s of SIGTERM", p.name)
}

// until repeats ready every 50 ms until it is true, the process has ended or ctx is done.
func (p *process) until(ctx context.Context, what string, limit time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s: not within %v: %s", what, limit, lastWords(p.log)))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ready() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.ended:
			return p.alive()
		case <-tick.C:
		}
	}
	return nil
}

// output runs a short command and returns its standard output; an error holds
// the last line that it wrote to standard error.
func output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			err = fmt.Errorf("%w: %s", err, lastLine(errs.String()))
		}
		return out.String(), err
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		return "", errors.Join(context.Cause(ctx), <-done)
	}
}

func lastWords(log string) string {
	text, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return lastLine(string(text))
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndex(s, "\n")+1:]
}
