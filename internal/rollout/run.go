package rollout

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// Swarm is what a rollout needs of the members.
type Swarm interface {
	// Nodes returns this member, the others in sight, and those that were lately.
	Nodes() []Node
	// Ask has a node hold the order and calls heard with each report, about every so
	// often, until ctx ends or the node has said its last.
	Ask(ctx context.Context, id string, o Order, every time.Duration, heard func(Report)) error
}

// Options say how a rollout is run.
type Options struct {
	Swarm    Swarm
	Selector Selector
	// Order finds out what is to be held, once for all nodes; notice is what who asked
	// should know of it. It returns soon after ctx has ended.
	Order func(ctx context.Context) (o Order, notice string, err error)
	// Wait goes on until every node has all, or can't have it; without it a rollout
	// ends when each has answered.
	Wait bool
	// Lasting tells whether failures of a kind stay when tried again at once.
	Lasting func(kind string) bool
}

const (
	tickEvery = time.Second
	// reportsASecond is how many reports the asking member takes: with more nodes
	// each reports less often.
	reportsASecond = 200
	maxEvery       = 30 * time.Second
	// dialsAtOnce bounds the nodes that are being asked and have not answered.
	dialsAtOnce = 32
	// missingFor is how long a node that can't be asked is waited for.
	missingFor = time.Minute
	againAfter = 2 * time.Second // a node that could not be asked is asked again
)

// ErrNobody marks a selector that means no member; the error says which labels there
// are in their place.
var ErrNobody = errors.New("no member matches the selector")

// run is one rollout. Its owner is the goroutine of Run; mu guards what the others
// touch.
type run struct {
	o      Options
	order  Order
	notice string
	dials  chan struct{}
	ended  chan struct{} // one slot: a node has said its last
	work   sync.WaitGroup

	mu   sync.Mutex
	rows map[string]*row // by node id
}

type row struct {
	node   Node
	report Report
	since  time.Time // when it got missing
	over   bool      // nobody asks it any more
}

// Run asks the nodes and returns how it ended. watch is called about once a second. A
// rollout that was interrupted returns the table and ctx's cause; the nodes go on.
func Run(ctx context.Context, o Options, watch func(Table)) (Table, error) {
	order, notice, err := o.await(ctx, watch)
	if err != nil {
		return Table{}, err
	}
	r := &run{o: o, order: order, notice: notice, dials: make(chan struct{}, dialsAtOnce), ended: make(chan struct{}, 1), rows: map[string]*row{}}
	asking, stop := context.WithCancel(ctx)
	defer r.work.Wait()
	defer stop()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for due := true; ; {
		r.meet(asking)
		t, ended := r.table(time.Now())
		switch {
		case len(t.Nodes) == 0:
			return t, o.Selector.nobody(o.Swarm.Nodes())
		case ended:
			return t, nil
		}
		if due { // a table of many rows is not written at the end of each
			watch(t)
		}
		select {
		case <-ctx.Done():
			return t, context.Cause(ctx)
		case <-tick.C:
			due = true
		case <-r.ended:
			due = false
		}
	}
}

// await finds out what to order, and lets watch see that it goes on.
func (o Options) await(ctx context.Context, watch func(Table)) (order Order, notice string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		order, notice, err = o.Order(ctx)
	}()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return order, notice, err
		case <-tick.C:
			watch(Table{Nodes: []Row{}})
		}
	}
}

// meet asks nodes that are new and notes which are in sight.
func (r *run) meet(ctx context.Context) {
	nodes := r.o.Swarm.Nodes()
	taken := make(map[string]bool, len(nodes)) // addresses of those in sight
	for _, n := range nodes {
		taken[n.Addr] = taken[n.Addr] || !n.Lost
	}
	nodes = slices.DeleteFunc(nodes, func(n Node) bool { return !r.o.Selector.means(n) })
	every := interval(len(nodes))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range nodes {
		old := r.rows[n.ID]
		switch {
		case n.Lost && taken[n.Addr]: // it is back under another identity
			delete(r.rows, n.ID)
		case old == nil && n.Lost:
			r.rows[n.ID] = &row{node: n, report: Report{State: Missing, Reason: "not in sight"}, since: time.Now()}
		case old == nil, old.node.Lost && !n.Lost:
			x := &row{node: n, report: Report{State: Asking}, since: time.Now()}
			r.rows[n.ID] = x
			r.work.Go(func() { r.ask(ctx, x, every) })
		}
	}
}

// interval is how often each of n nodes reports.
func interval(n int) time.Duration {
	return min(max(time.Second, time.Duration(n)*time.Second/reportsASecond).Truncate(time.Second), maxEvery)
}

// ask asks one node until it has said its last.
func (r *run) ask(ctx context.Context, x *row, every time.Duration) {
	for !r.attempt(ctx, x, every) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(againAfter):
		}
	}
}

// attempt asks once, and tells whether there is nothing more to ask.
func (r *run) attempt(ctx context.Context, x *row, every time.Duration) (over bool) {
	select {
	case r.dials <- struct{}{}:
	case <-ctx.Done():
		return true
	}
	answered := sync.OnceFunc(func() { <-r.dials })
	defer answered()
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	err := r.o.Swarm.Ask(ctx, x.node.ID, r.order, every, func(p Report) {
		answered()
		if over = r.heard(x, p); over {
			enough()
		}
	})
	if !over && ctx.Err() == nil {
		r.lost(x, err)
	}
	select {
	case r.ended <- struct{}{}:
	default:
	}
	return over || ctx.Err() != nil
}

// heard takes a report and tells whether it was the last that matters.
func (r *run) heard(x *row, p Report) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.over { // the node had said more before it heard that it is enough
		return true
	}
	if p.State == Failed && p.Total == 0 { // a failure says nothing of what it had before
		p.Total, p.Completed = x.report.Total, x.report.Completed
	}
	x.report = p
	switch p.State {
	case Refused, Here:
		x.over = true
	case Failed:
		x.over = !r.o.Wait || r.o.Lasting(p.Kind)
	default:
		x.over = !r.o.Wait
	}
	return x.over
}

// lost notes that a node can't be asked, or stopped to answer.
func (r *run) lost(x *row, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.report.State != Missing {
		x.since = time.Now()
	}
	x.report.State, x.report.Rate, x.report.Kind, x.report.Reason = Missing, 0, "", "it stopped to answer"
	if err != nil {
		x.report.Reason = err.Error()
	}
}

// table is the rollout as it is now. It has ended when every node has, those that
// have been missing for long included.
func (r *run) table(now time.Time) (t Table, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = Table{Ref: r.order.Ref.String(), Commit: string(r.order.Commit), Notice: r.notice, Nodes: []Row{}}
	ended = true
	for _, x := range r.rows {
		t.Nodes = append(t.Nodes, Row{Node: x.node.Name, Peer: x.node.ID, Report: x.report})
		if !x.over && !r.givenUp(x, now) {
			ended = false
		}
	}
	t.sum()
	return t, ended
}

// givenUp tells whether a missing node is not waited for any more. One that was lost
// before the rollout began is waited for only with Wait.
func (r *run) givenUp(x *row, now time.Time) bool {
	if x.report.State != Missing {
		return false
	}
	return now.Sub(x.since) >= missingFor || !r.o.Wait
}
