package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"p2pagent/internal/tracing"
	"p2pagent/pkg/hub"
)

// factsEvery is how often other members are told of the free space.
const factsEvery = time.Minute

// run takes part in the swarm while front works, and ends with front's error, or
// with that of a part that failed. The parts outlive front: a job that is told to
// stop still finds its cache and its node.
func (m *member) run(ctx context.Context, front func(context.Context) error) error {
	traces, err := m.trace(ctx)
	if err != nil {
		return err
	}
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	parts, stopParts := context.WithCancel(failed)
	defer stopParts()
	g.Go(func() error { return m.cache.Run(parts) })
	g.Go(func() error { return m.members.Run(parts) })
	g.Go(func() error { return m.node.Run(parts) })
	g.Go(func() error { return m.refreshFacts(parts) })
	g.Go(func() error { return traces(parts) })
	g.Go(func() error {
		defer stopParts()
		return m.runFront(ctx, failed, front)
	})
	return g.Wait()
}

// trace has what this member does sent to a collector, if the environment names one,
// until the context of what it returns ends.
func (m *member) trace(ctx context.Context) (func(context.Context) error, error) {
	if !tracing.On(m.settings.get) {
		return func(context.Context) error { return nil }, nil
	}
	e, err := tracing.Begin(context.WithoutCancel(ctx), m.settings.name(), versionText(), m.log.With("part", "traces"))
	if err != nil {
		return nil, err
	}
	return e.Run, nil
}

// runFront runs front and the jobs it starts until front returns, ctx ends or a
// part has failed.
func (m *member) runFront(ctx, failed context.Context, front func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(failed, func() { cancel(context.Cause(failed)) })()
	jobs, stopJobs := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.agent.Run(jobs) }()
	err := front(ctx)
	stopJobs()
	return errors.Join(err, <-done)
}

// refreshFacts keeps what others are told of this member true.
func (m *member) refreshFacts(ctx context.Context) error {
	tick := time.NewTicker(factsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if f, err := m.facts(); err == nil {
			if err := m.members.Update(f); err != nil {
				m.log.Warn("tell other members about this one", "err", err)
			}
		}
	}
}

// told is called when the Hub asks this member to wait: the Hub counts requests
// by address, so all members behind it slow down together.
func (m *member) told(bucket string, until time.Time) {
	m.agent.NoteWait("the Hub's rate limit ("+bucket+")", until)
	m.node.Hold(bucket, time.Until(until))
}

// held is called when another member was told to wait, or says so.
func (m *member) held(bucket string, wait time.Duration) {
	if !hub.IsBucket(bucket) {
		return
	}
	until := time.Now().Add(wait)
	m.agent.NoteWait("the Hub's rate limit ("+bucket+"), met by another member,", until)
	if m.hub != nil {
		m.hub.Hold(bucket, until)
	}
}

// Close gives back what newMember took, in reverse order.
func (m *member) Close() error {
	var err error
	if m.hub != nil {
		m.hub.CloseIdle()
	}
	if m.host != nil {
		err = m.host.Close()
	}
	if m.layouts != nil {
		err = errors.Join(err, m.layouts.Close())
	}
	if m.cache != nil {
		err = errors.Join(err, m.cache.Close())
	}
	return err
}
