package kube

import (
	"context"
	"log/slog"
	"maps"
	"time"
)

// Options are what a Labeller works with.
type Options struct {
	Node interface { // *Node
		Patch(ctx context.Context, changes map[string]*string) (map[string]string, error)
	}
	List   func(ctx context.Context) ([]Snapshot, error) // complete ones
	Logger *slog.Logger
}

const (
	lookEvery = 5 * time.Second
	anewEvery = 5 * time.Minute // others may have changed the node
)

// Labeller keeps the labels of a node true. It has no lock and one user: Run.
type Labeller struct {
	o     Options
	have  map[string]string // as the node last had them; nil when that is not known
	asked time.Time         // when it was
	fault string            // the last one said
}

// NewLabeller returns a Labeller; it does nothing before Run.
func NewLabeller(o Options) *Labeller { return &Labeller{o: o} }

// Run looks until ctx ends, and leaves the labels as they are then: what is
// complete stays on the disk. While the agent does not answer nothing changes,
// for the same reason. A failure is logged once and tried again.
func (l *Labeller) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		l.say(l.look(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look compares once, and asks the server only when there is something to do.
func (l *Labeller) look(ctx context.Context) error {
	here, err := l.o.List(ctx)
	if err != nil {
		return err
	}
	if l.have == nil || time.Since(l.asked) >= anewEvery {
		if err := l.patch(ctx, nil); err != nil { // changes nothing, and says what is there
			return err
		}
	}
	if todo := changes(l.have, Labels(here)); len(todo) > 0 {
		return l.patch(ctx, todo)
	}
	return nil
}

func (l *Labeller) patch(ctx context.Context, todo map[string]*string) error {
	have, err := l.o.Node.Patch(ctx, todo)
	if err != nil {
		l.have = nil
		return err
	}
	l.have, l.asked = have, time.Now()
	if len(todo) > 0 {
		l.o.Logger.Info("labelled the node", "changed", len(todo), "complete", maps.Collect(ours(have)))
	}
	return nil
}

// say logs a failure when it is another one than before, and its end.
func (l *Labeller) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == l.fault:
	case text == "":
		l.o.Logger.Info("labels of the node can be kept again")
	default:
		l.o.Logger.Warn("labels of the node can't be kept", "err", text)
	}
	l.fault = text
}
