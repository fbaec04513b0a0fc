package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"p2pagent/internal/tracing"
	"p2pagent/pkg/pieces"
)

// watchEvery is how often a watcher of a job hears of it when no state changes.
const watchEvery = 500 * time.Millisecond

// maxJobs bounds the jobs that run: a client of the gateway starts one for each
// file.
const maxJobs = 4096

// errLeft ends a job whose last caller went away and wanted it to.
var errLeft = Errorf(Left, "no caller waits for it any more")

// job is one running or ended Ensure. Its goroutine alone changes it, through
// update; everyone else reads copies.
type job struct {
	key    string
	serial int
	req    Request
	filter filter
	caller *Rights         // of the request's token, until the work ends; nil without one
	ctx    context.Context // ends with the work, before done
	span   tracing.Span    // of all of it
	cancel context.CancelCauseFunc
	done   chan struct{} // closed once err is set

	// Guarded by Agent.mu.
	callers int
	left    bool            // its last caller went away, and ended it
	brought *atomic.Int64   // bytes that all jobs of its snapshot got from upstream
	counted snapshotKey     // that snapshot
	outline *pieces.Outline // once listed

	mu      sync.Mutex
	view    Job
	meter   meter
	wanted  []pieces.Blob // once the cache is asked for them
	changed chan struct{} // closed and replaced at every change of state

	err error // written before done is closed
}

// Ensure brings the snapshot that the request asks for onto this node and
// returns its path. Callers that ask for the same share one job.
//
// Outcomes:
//
//  1. nil: every wanted file is in the cache, compared with the digest that the
//     Hub published (or, for a seeded name, its seeder), and durable;
//  2. an error of the job, with its kind; pieces that were fetched stay;
//  3. the cause of ctx's end: this caller left. The job goes on, unless the
//     request was Tied and nobody else waits.
func (a *Agent) Ensure(ctx context.Context, req Request) (Result, error) {
	f, err := newFilter(req.Include, req.Exclude)
	if err != nil {
		return Result{}, err
	}
	j, err := a.join(ctx, req, f)
	if err != nil {
		return Result{}, err
	}
	defer a.leave(j, req.Tied)
	return j.wait(ctx, req.Watch, a.remark)
}

// join returns the running job for the request, starting one when there is none. One
// that its callers have left is waited for: it ends soon, and two must not write the
// same.
func (a *Agent) join(ctx context.Context, req Request, f filter) (*job, error) {
	for {
		j, over, err := a.tryJoin(ctx, req, f)
		if j != nil || err != nil {
			return j, err
		}
		select {
		case <-over:
		case <-ctx.Done():
			return nil, fmt.Errorf("fetch %s: %w", req.Ref, context.Cause(ctx))
		}
	}
}

// tryJoin returns the job, or when to try again.
func (a *Agent) tryJoin(ctx context.Context, req Request, f filter) (j *job, over <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return nil, nil, errStopping
	}
	key := req.key()
	j = a.jobs[key]
	switch {
	case j != nil && j.left:
		return nil, j.done, nil
	case j == nil && len(a.jobs) >= maxJobs:
		return nil, nil, Errorf(Stalled, "%d jobs are running", len(a.jobs))
	case j == nil:
		j = a.start(ctx, key, req, f)
	}
	j.callers++
	return j, nil, nil
}

// start is called with a.mu held.
func (a *Agent) start(caller context.Context, key string, req Request, f filter) *job {
	ctx, span := tracing.Join(a.base, caller, "fetch", "ref", req.Ref.String(), "file", req.Path)
	ctx, cancel := context.WithCancelCause(ctx)
	lent, forget := a.lender.borrow(req.token)
	req.token = ""
	a.serial++
	j := &job{
		key: key, serial: a.serial, req: req, filter: f, caller: lent, ctx: ctx, span: span, cancel: cancel,
		done: make(chan struct{}), changed: make(chan struct{}),
		view: Job{
			ID: strconv.Itoa(a.serial), Ref: req.Ref.String(), File: req.Path, Include: req.Include, Exclude: req.Exclude,
			Status: Resolving, Started: time.Now(),
		},
	}
	a.jobs[key] = j
	a.work.Go(func() {
		err := a.ensure(ctx, j)
		j.caller = nil // an ended job is remembered for a while, what it was done by is not
		forget()
		cancel(nil)
		a.end(j, err)
	})
	return j
}

// end makes the outcome known and moves the job to the ended ones.
func (a *Agent) end(j *job, err error) {
	if err != nil {
		err = fmt.Errorf("fetch %s: %w", j.req.Ref, err)
	}
	j.finish(err, a.classify)
	j.traceEnd(err)
	a.mu.Lock()
	delete(a.jobs, j.key)
	j.outline = nil
	a.recent = append(a.recent, j)
	a.recent = a.recent[max(0, len(a.recent)-keepEnded):]
	a.ended[j.view.Kind]++
	a.mu.Unlock()
	close(j.done)
	a.logEnd(j.read(time.Now()), err)
}

func (a *Agent) logEnd(v Job, err error) {
	if err != nil {
		level := slog.LevelWarn
		if v.Kind == Left { // that is no fault
			level = slog.LevelInfo
		}
		a.log.Log(a.base, level, "job failed", "ref", v.Ref, "file", v.File, "kind", string(v.Kind), "error", err)
		return
	}
	level := slog.LevelInfo
	if v.File == "" {
		a.fetches.Observe(v.Finished.Sub(v.Started))
	} else {
		level = slog.LevelDebug // one of many
	}
	a.log.Log(a.base, level, "job done", "ref", v.Ref, "file", v.File, "commit", v.Commit, "files", v.Files, "bytes", v.Total,
		"here", v.Here, "upstream", v.Upstream, "peers", v.FromPeers(), "took", v.Finished.Sub(v.Started).Round(time.Millisecond))
}

func (a *Agent) leave(j *job, tied bool) {
	a.mu.Lock()
	j.callers--
	last := tied && j.callers == 0
	if last {
		j.left = true
	}
	a.mu.Unlock()
	if !last {
		return
	}
	j.cancel(errLeft)
	<-j.done // a one-shot member must not close the cache under a running job
}

// wait returns the job's outcome or, when ctx ends first, its cause.
func (j *job) wait(ctx context.Context, watch func(Job), remark func(*Job, time.Time)) (Result, error) {
	if watch == nil {
		watch = func(Job) {}
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		v, changed := j.look(remark)
		watch(v)
		select {
		case <-j.done:
			v = j.read(time.Now())
			watch(v)
			if j.err != nil {
				return Result{}, j.err
			}
			return resultOf(v), nil
		case <-ctx.Done():
			return Result{}, fmt.Errorf("fetch %s: %w", j.req.Ref, context.Cause(ctx))
		case <-changed:
		case <-tick.C:
		}
	}
}

func (j *job) look(remark func(*Job, time.Time)) (Job, <-chan struct{}) {
	j.mu.Lock()
	changed := j.changed // before the view: a change in between must not be missed
	j.mu.Unlock()
	now := time.Now()
	v := j.read(now)
	remark(&v, now)
	return v, changed
}

// read returns the job as it is now. The caller may keep it.
func (j *job) read(now time.Time) Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.view.gauge(&j.meter, now)
	v := j.view
	v.Peers = maps.Clone(v.Peers)
	v.Gaps = slices.Clone(v.Gaps)
	v.Include, v.Exclude = slices.Clone(v.Include), slices.Clone(v.Exclude)
	return v
}

// update changes the job and wakes the watchers when its state changed.
func (j *job) update(change func(*Job)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.view.Status
	change(&j.view)
	if j.view.Status != before {
		close(j.changed)
		j.changed = make(chan struct{})
	}
}

// enter moves the job to its next state; it is a teller.
func (j *job) enter(s State, waiting string) {
	j.update(func(v *Job) { v.Status, v.Waiting = cmp.Or(s, v.Status), waiting })
}

func (j *job) finish(err error, classify func(error) Kind) {
	j.err = err
	j.update(func(v *Job) {
		v.Finished, v.Waiting = time.Now(), ""
		if err != nil {
			v.Status, v.Kind, v.Reason = Failed, classify(err), err.Error()
			return
		}
		v.finish()
		v.Status = Done
	})
}

// Jobs returns the running jobs, then those that ended lately, newest first.
func (a *Agent) Jobs() []Job {
	a.mu.Lock()
	running := slices.Collect(maps.Values(a.jobs))
	ended := slices.Clone(a.recent)
	callers := make(map[*job]int, len(running))
	for _, j := range running {
		callers[j] = j.callers
	}
	a.mu.Unlock()

	slices.SortFunc(running, func(x, y *job) int { return x.serial - y.serial })
	slices.Reverse(ended)
	out := make([]Job, 0, len(running)+len(ended))
	for _, j := range append(running, ended...) {
		v, _ := j.look(a.remark)
		v.Callers = callers[j]
		out = append(out, v)
	}
	return out
}

// busy returns the ref of a running job on the repository, or "".
func (a *Agent) busy(repo pieces.Repo) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.jobs {
		if j.req.Ref.Repo == repo {
			return j.req.Ref.String()
		}
	}
	return ""
}
