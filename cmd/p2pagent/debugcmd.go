package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"p2pagent/internal/metrics"
	"p2pagent/pkg/agent"
)

// insideParts are the names of what an agent tells of its inside, each a file of
// the bundle.
const (
	insideMetrics    = "metrics.txt"
	insideConfig     = "agent-config.json"
	insideLog        = "log.txt"
	insideGoroutines = "goroutines.txt"
)

// inside is what the agent's own process adds to a bundle.
func (m *member) inside(recent *tail) agent.Inside {
	redact := m.settings.redactor()
	clean := func(write func(context.Context, io.Writer) error) func(context.Context, io.Writer) error {
		return func(ctx context.Context, w io.Writer) error {
			var raw bytes.Buffer
			err := write(ctx, &raw)
			_, werr := w.Write(redact(raw.Bytes()))
			return errors.Join(err, werr)
		}
	}
	return agent.Inside{
		insideMetrics: clean(func(_ context.Context, w io.Writer) error { return metrics.Write(w, m.sample) }),
		insideConfig:  clean(func(_ context.Context, w io.Writer) error { return json.NewEncoder(w).Encode(m.settings.printed()) }),
		insideLog:     clean(func(_ context.Context, w io.Writer) error { _, err := w.Write(recent.Bytes()); return err }),
		insideGoroutines: clean(func(_ context.Context, w io.Writer) error {
			return pprof.Lookup("goroutine").WriteTo(w, 1) // 1: functions and lines, no arguments
		}),
	}
}

const bundleLong = `Write what is needed to find out why this node does what it does: the agent's
status, jobs, members, snapshots, settings, metrics, goroutines and last log lines,
as a tar.gz. Tokens, keys and signed URLs are not in it; names of models and
members are. Without an agent it has what can be had, and errors.txt says why the
rest is missing.`

func (p *program) debugCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "gather what helps to find a fault", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("debug: bundle?") }}
	cmd.AddCommand(p.bundleCmd())
	return cmd
}

func (p *program) bundleCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "bundle FILE", Short: "write a tar.gz for who helps", Long: bundleLong, Args: cobra.ExactArgs(1)}
	cmd.Flags().SortFlags = false
	s := p.newSettings(cmd.Flags())
	s.showOnly("socket", "config")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := s.load(); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), askWait, &timeoutError{askWait})
		defer cancel()
		if err := s.writeBundle(ctx, args[0]); err != nil {
			return fmt.Errorf("write bundle %s: %w", args[0], err)
		}
		fmt.Fprintln(p.stderr, "p2pagent: tokens, keys and signed URLs are left out; look through it before you pass it on")
		_, err := fmt.Fprintln(p.stdout, args[0])
		return err
	}
	return cmd
}

// bundle is a tar.gz being made. Every file passes redact.
type bundle struct {
	tar    *tar.Writer
	redact func([]byte) []byte
	now    time.Time
	faults bytes.Buffer
}

// writeBundle makes the file, which must not exist: 0600, for it says a lot.
func (s *settings) writeBundle(ctx context.Context, path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(f)
	b := &bundle{tar: tar.NewWriter(zip), redact: s.redactor(), now: time.Now()}
	err = b.fill(ctx, s)
	err = errors.Join(err, b.tar.Close(), zip.Close(), f.Close())
	if err != nil {
		os.Remove(path)
	}
	return err
}

func (b *bundle) fill(ctx context.Context, s *settings) error {
	c := s.client()
	asJSON := func(v any, err error) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		return json.MarshalIndent(v, "", "  ")
	}
	for _, part := range []struct {
		name string
		get  func() ([]byte, error)
	}{
		{"version.txt", func() ([]byte, error) {
			return fmt.Appendf(nil, "p2pagent %s %s %s/%s\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH), nil
		}},
		{"command-config.json", func() ([]byte, error) { return asJSON(s.printed(), nil) }},
		{"status.json", func() ([]byte, error) { v, err := c.Status(ctx); return asJSON(v, err) }},
		{"jobs.json", func() ([]byte, error) { v, err := c.Jobs(ctx); return asJSON(v, err) }},
		{"peers.json", func() ([]byte, error) { v, err := c.Peers(ctx); return asJSON(v, err) }},
		{"snapshots.json", func() ([]byte, error) { v, err := c.List(ctx); return asJSON(v, err) }},
		{insideMetrics, func() ([]byte, error) { return c.Inside(ctx, insideMetrics) }},
		{insideConfig, func() ([]byte, error) { return c.Inside(ctx, insideConfig) }},
		{insideLog, func() ([]byte, error) { return c.Inside(ctx, insideLog) }},
		{insideGoroutines, func() ([]byte, error) { return c.Inside(ctx, insideGoroutines) }},
	} {
		raw, err := part.get()
		if err != nil {
			fmt.Fprintf(&b.faults, "%s: %v\n", part.name, err)
			continue
		}
		if err := b.add(part.name, raw); err != nil {
			return err
		}
	}
	return b.add("errors.txt", b.faults.Bytes())
}

func (b *bundle) add(name string, raw []byte) error {
	raw = b.redact(raw)
	err := b.tar.WriteHeader(&tar.Header{Name: "p2pagent-bundle/" + name, Mode: 0o600, Size: int64(len(raw)), ModTime: b.now})
	if err == nil {
		_, err = b.tar.Write(raw)
	}
	return err
}
