package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// each does f for all nodes at once and returns the errors of all.
func (d *demo) each(f func(*node) error) error {
	errs := make([]error, len(d.nodes))
	var all sync.WaitGroup
	for i, n := range d.nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// stop ends every child; one that does not end by itself is an error.
func (d *demo) stop() error {
	errs := []error{d.each(func(n *node) error { return n.stop() })}
	if d.hub != nil {
		errs = append(errs, d.hub.stop())
	}
	return errors.Join(errs...)
}

func (d *demo) report(ctx context.Context) error {
	size, err := snapshotSize(d.nodes[0].result.Path)
	if err != nil {
		return err
	}
	out := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintf(out, "\nnode\ttime\tfrom the Hub\tfrom peers\tverified\n")
	var upstream int64
	for _, n := range d.nodes {
		fmt.Fprintf(out, "%s\t%.1f s\t%s\t%s\t%d files\n", n.name, n.took.Seconds(), mib(n.result.Upstream), n.peers(), n.verified)
		upstream += n.result.Upstream
	}
	_ = out.Flush() // standard output is the only thing that can fail here
	fmt.Printf("\nmodel: %s in %s\n", mib(size), d.ref)
	if d.hub == nil {
		fmt.Printf("bytes from the Hub ÷ model bytes, as the agents counted: %.3f\n", float64(upstream)/float64(size))
		return nil
	}
	s, err := d.hub.stats(ctx)
	if err != nil {
		return fmt.Errorf("ask the Hub: %w", err)
	}
	fmt.Printf("Hub bytes ÷ model bytes: %.3f for %d nodes\nHub API calls: %s\n", float64(s.Body)/float64(size), len(d.nodes), counts(s.Calls))
	return nil
}

// peers lists what came from whom, most first.
func (n *node) peers() string {
	var names []string
	for name := range n.result.Peers {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(n.result.Peers[b]>>10 - n.result.Peers[a]>>10) })
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %s", name, mib(n.result.Peers[name]))
	}
	return strings.Join(names, ", ")
}

func counts(calls map[string]int64) string {
	var out []string
	for route, n := range calls {
		out = append(out, fmt.Sprintf("%d %s", n, route))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// snapshotSize adds up the files that the links of a snapshot point to.
func snapshotSize(snapshot string) (total int64, err error) {
	err = filepath.WalkDir(snapshot, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := os.Stat(path)
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}
