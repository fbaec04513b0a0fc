package agent

import (
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. Kinds cross the control API, so
// their values never change; a reader that meets an unknown one treats it as
// Other.
type Kind string

// The kinds of failure. Each has an exit code of its own in cmd/p2pagent.
const (
	Other       Kind = "other"
	Usage       Kind = "usage"       // the request makes no sense, or matches nothing
	Partial     Kind = "partial"     // some of it is here and the rest can't be had
	NotFound    Kind = "not_found"   // no such repository, revision or file
	Denied      Kind = "denied"      // gated, private, disabled, or not allowed here
	NoSpace     Kind = "no_space"    // the disk or its quota is full
	Integrity   Kind = "integrity"   // content is not what its digest says
	Stalled     Kind = "stalled"     // out of time, or nothing moved
	Unreachable Kind = "unreachable" // the Hub can't be reached
	NoAgent     Kind = "no_agent"    // the agent can't be reached, or it is stopping
	Left        Kind = "left"        // nobody wants it any more: a model that left the configuration
)

// Error is a failure with its Kind, as it crosses the control API.
type Error struct {
	Kind    Kind
	Message string
	Hint    string // what to do about it, or ""
	Err     error  // the cause, nil when the error came from another process
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an *Error of the given kind; %w keeps the cause.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), Err: errors.Unwrap(err)}
}

// errStopping ends jobs and requests when the agent goes down.
var errStopping = Errorf(NoAgent, "the agent is stopping")

// classify gives the kind of err: that of an *Error in its chain, else what the
// owner of the concrete types says.
func (a *Agent) classify(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if a.opt.Classify == nil {
		return Other
	}
	return a.opt.Classify(err)
}

// explain turns err into the form that crosses the control API.
func (a *Agent) explain(err error) *Error {
	out := &Error{Kind: a.classify(err), Message: err.Error(), Err: err}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Hint = e.Hint
	}
	if out.Hint == "" && a.opt.Hint != nil {
		out.Hint = a.opt.Hint(err)
	}
	return out
}
