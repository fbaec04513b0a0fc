// Command demo shows what p2pagent does, on one machine: it starts a Hub and
// several agents, fetches a model on all of them in the same moment, and says
// where every byte came from. Its start script is run, which builds it.
//
// Children never outlive it: each is told to die with it, as it dies with run.
// All files are in the folder given by -work, which is removed at the end.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"p2pagent/scripts/internal/size"
	"p2pagent/scripts/internal/testmodel"
)

type options struct {
	work    string
	nodes   int
	size    size.Bytes
	shards  int
	timeout time.Duration
	model   string // a name on the real Hub, or empty
}

func main() {
	// A child's death signal is tied to the thread that started it: stay on one.
	runtime.LockOSThread()
	dieWithParent()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run() error {
	o, err := parse()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), o.timeout, fmt.Errorf("not done within %v (-timeout)", o.timeout))
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	d := &demo{options: o}
	err = errors.Join(d.run(ctx), d.stop(), os.RemoveAll(o.work))
	if err != nil && ctx.Err() != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	return err
}

func parse() (options, error) {
	o := options{size: 512 << 20, model: os.Getenv("MODEL")}
	flag.StringVar(&o.work, "work", "", "folder for everything, removed by whoever made it")
	flag.IntVar(&o.nodes, "nodes", 5, "number of agents")
	flag.Var(&o.size, "size", "size of the model that is made")
	flag.IntVar(&o.shards, "shards", 4, "its number of safetensors files")
	flag.DurationVar(&o.timeout, "timeout", 0, "give up after this long (default 5m, with MODEL 2h)")
	flag.Parse()
	limit := 5 * time.Minute
	if o.model != "" {
		limit = 2 * time.Hour
	}
	o.timeout = cmp.Or(o.timeout, limit)
	if o.work == "" || flag.NArg() > 0 || o.nodes < 1 || o.nodes > 50 {
		return o, errors.New("use scripts/demo/run [-nodes 1..50] [-size S] [-shards N] [-timeout D]")
	}
	return o, nil
}

// demo is one run: the Hub, the agents, and what is known of the model.
type demo struct {
	options
	ref   string
	hub   *hub // nil with the real Hub
	files []testmodel.File
	nodes []*node
}

func (d *demo) run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	if err := d.startAgents(ctx); err != nil {
		return err
	}
	fmt.Printf("fetching %s on %d nodes at once ...\n", d.ref, len(d.nodes))
	if err := d.each(func(n *node) error { return n.fetch(ctx, d.ref) }); err != nil {
		return err
	}
	if err := d.each(func(n *node) error { return n.verify(ctx, d.ref, d.files) }); err != nil {
		return err
	}
	return d.report(ctx)
}

// prepare makes the model and its Hub, unless the real one is asked for.
func (d *demo) prepare(ctx context.Context) error {
	if d.model != "" {
		d.ref = d.model
		return nil
	}
	d.ref = "demo/model"
	if err := needSpace(d.work, int64(d.size)*int64(1+d.options.nodes)+256<<20); err != nil {
		return err
	}
	fmt.Printf("making a model of %v in %d shards ...\n", d.size, d.shards)
	files, err := testmodel.Write(d.work+"/model", testmodel.Options{Size: int64(d.size), Shards: d.shards, Seed: 1})
	if err != nil {
		return err
	}
	d.files = files
	if d.hub, err = startHub(ctx, d.work, d.ref); err != nil {
		return err
	}
	return d.hub.slowDown(ctx)
}

// dieWithParent asks for SIGTERM when the start script is killed.
func dieWithParent() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0) // best effort
}

func needSpace(dir string, need int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return fmt.Errorf("%s has %d MiB free, the demo wants %d MiB: set TMPDIR to another place, or use -size and -nodes", dir, free>>20, need>>20)
	}
	return nil
}
