package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Verdict is what a check comes to.
type Verdict string

// The verdicts.
const (
	OK      Verdict = "ok"
	Warn    Verdict = "warn"    // it works, and may bite
	Fail    Verdict = "fail"    // it does not work
	Skipped Verdict = "skipped" // nothing to check here
)

// Result is the outcome of one check.
type Result struct {
	Check   string  `json:"check"`
	Verdict Verdict `json:"verdict"`
	Seen    string  `json:"seen"`
	Do      string  `json:"do,omitempty"` // one sentence; none when it is ok or skipped
}

func ok(format string, args ...any) Result {
	return Result{Verdict: OK, Seen: fmt.Sprintf(format, args...)}
}

func skipped(format string, args ...any) Result {
	return Result{Verdict: Skipped, Seen: fmt.Sprintf(format, args...)}
}

func warn(do, format string, args ...any) Result {
	return Result{Verdict: Warn, Seen: fmt.Sprintf(format, args...), Do: do}
}

func fail(do, format string, args ...any) Result {
	return Result{Verdict: Fail, Seen: fmt.Sprintf(format, args...), Do: do}
}

// check is a row of the list: its names, and what finds one result for each.
type check struct {
	names []string
	run   func(ctx context.Context, e *Env) []Result
}

func one(name string, run func(ctx context.Context, e *Env) Result) check {
	return check{[]string{name}, func(ctx context.Context, e *Env) []Result { return []Result{run(ctx, e)} }}
}

// checks is in the order in which results are shown: what clients meet, the Hub,
// the disk, the swarm.
var checks = []check{
	one("agent", checkAgent),
	one("proxy", checkProxy),
	one("variables", checkVariables),
	{[]string{"hub", "clock", "token"}, checkHub},
	one("token file", checkTokenFile),
	one("cache", checkCache),
	one("locks", checkLocks),
	one("mount", checkMount),
	one("space", checkSpace),
	one("inodes", checkInodes),
	one("open files", checkOpenFiles),
	one("swarm key", checkKey),
	one("ports", checkPorts),
	one("members", checkMembers),
	one("join", checkJoin),
}

// Limit bounds every check.
const Limit = 5 * time.Second

// grace is what a check that is told to stop has to say what it had seen.
const grace = 500 * time.Millisecond

var errLate = errors.New("no answer within 5 s")

// Run runs all checks at once and returns their results in a fixed order, after
// Limit and a moment at the latest. A check that has not ended by then failed.
// Its goroutine may outlive Run: nothing interrupts a system call that waits for
// a file server that is gone, so the process should end soon.
func Run(ctx context.Context, e *Env) []Result { return run(ctx, e, checks) }

func run(ctx context.Context, e *Env, list []check) []Result {
	over, end := context.WithTimeout(context.WithoutCancel(ctx), Limit+grace)
	defer end()
	ctx, cancel := context.WithTimeoutCause(ctx, Limit, errLate)
	defer cancel()
	done := make([]chan []Result, len(list))
	for i, c := range list {
		done[i] = make(chan []Result, 1)
		go func() { done[i] <- c.run(ctx, e) }()
	}
	var out []Result
	for i, c := range list {
		out = append(out, c.await(over, done[i])...)
	}
	return out
}

// await returns the results with their names.
func (c check) await(over context.Context, done <-chan []Result) []Result {
	out := c.outcome(over, done)
	for i, name := range c.names {
		out[i].Check = name
	}
	return out
}

func (c check) outcome(over context.Context, done <-chan []Result) []Result {
	select {
	case out := <-done:
		return out
	case <-over.Done():
	}
	select {
	case out := <-done: // it ended while others were waited for
		return out
	default:
	}
	late := fail("look for a file server that is gone or a name server that is silent", "%v", errLate)
	return slices.Repeat([]Result{late}, len(c.names))
}
