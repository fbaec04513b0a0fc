package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"p2pagent/internal/stall"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
	"p2pagent/pkg/xet"
)

// exitSignal is what a signal's number is added to, as shells do.
const exitSignal = 128

// exitCodes is the contract with scripts: never (4, 5, 6, 7) or again (8, 9). A
// Hub that can't be reached is out of time: trying later may help.
var exitCodes = map[agent.Kind]int{
	agent.Other:       1,
	agent.Usage:       2,
	agent.Partial:     3,
	agent.NotFound:    4,
	agent.Denied:      5,
	agent.NoSpace:     6,
	agent.Integrity:   7,
	agent.Stalled:     8,
	agent.Unreachable: 8,
	agent.NoAgent:     9,
	agent.Left:        1,
}

// kinds says what sort of failure an error is; the first row that fits wins.
// Rows are in order of how much they say: a full disk explains a stall.
var kinds = []struct {
	kind agent.Kind
	is   func(error) bool
}{
	{agent.Denied, is(hub.ErrGated, hub.ErrUnauthorized, hub.ErrDisabled)},
	{agent.Denied, as[*hub.TokenError]},
	{agent.NotFound, is(hub.ErrRepoNotFound, hub.ErrRevisionNotFound, hub.ErrEntryNotFound, cachefs.ErrNotCached, swarm.ErrNoRecord)},
	{agent.NoSpace, as[*cachefs.NoSpaceError]},
	{agent.NoSpace, is(syscall.ENOSPC, syscall.EDQUOT)},
	{agent.Integrity, is(pieces.ErrDigest, pieces.ErrSignature, pieces.ErrBadOutline, pieces.ErrBadPath)},
	{agent.Integrity, as[*hub.DisagreeError]},
	{agent.Integrity, is(xet.ErrContent)},
	{agent.Stalled, as[*timeoutError]},
	{agent.Stalled, as[*hub.RateLimitError]},
	{agent.Unreachable, is(hub.ErrUnreachable)},
	{agent.Unreachable, serverError},
	{agent.Unreachable, as[*xet.Error]},
	{agent.Stalled, is(stall.ErrStalled, seeder.ErrGaveUp, context.DeadlineExceeded)},
}

func is(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
}

func as[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// serverError is a Hub that is there and can't answer.
func serverError(err error) bool {
	e, ok := errors.AsType[*hub.StatusError](err)
	return ok && e.Status >= http.StatusInternalServerError
}

// classify tells the kind of an error of any part.
func classify(err error) agent.Kind {
	if e, ok := errors.AsType[*agent.Error](err); ok {
		return e.Kind
	}
	for _, row := range kinds {
		if row.is(err) {
			return row.kind
		}
	}
	return agent.Other
}

// exitCode is what the process ends with.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := errors.AsType[*signalError](err); ok {
		return exitSignal + int(s.signal)
	}
	if code, ok := exitCodes[classify(err)]; ok {
		return code
	}
	return 1 // a kind that a newer agent has and this client does not know
}

// hints say what to do, in the user's words; the first row that fits wins.
var hints = []struct {
	is   func(error) bool
	text string
}{
	{is(hub.ErrGated), "accept the terms on the repository's page, then set HF_TOKEN or HF_TOKEN_PATH for the agent"},
	{is(hub.ErrUnauthorized), "check the token in HF_TOKEN or HF_TOKEN_PATH"},
	{as[*hub.TokenError], "check HF_TOKEN and HF_TOKEN_PATH, and that the agent's user can read the file"},
	{is(hub.ErrRepoNotFound), "check the name; a private repository needs HF_TOKEN or HF_TOKEN_PATH"},
	{is(cachefs.ErrNotCached), "`p2pagent ls` shows what is here, `p2pagent fetch` brings it"},
	{is(hub.ErrRevisionNotFound), "check the revision: a branch, a tag, refs/pr/N or a commit"},
	{as[*xet.OnlyError], "see whether this node reaches the store's host, or let plain HTTP take its place: --xet=auto"},
	{is(xet.ErrContent), "let plain HTTP take the store's place: --xet=auto"},
	{is(hub.ErrUnreachable), "check HF_ENDPOINT, the proxy variables and the network"},
	{as[*cachefs.BusyError], "an agent holds this cache: leave out --standalone to use it, or name another --hub-cache and --state-dir"},
	{is(cachefs.ErrCrossDevice), "set --state-dir to a folder outside the cache on the same filesystem; a cache that is itself a mount point needs HF_HUB_CACHE one folder deeper"},
	{is(cachefs.ErrInside), "set --state-dir to a folder outside the cache"},
	{as[*cachefs.NoSpaceError], "free some space, or point HF_HUB_CACHE and --state-dir at a larger disk"},
	{is(swarm.ErrBadKey), "make a key with `p2pagent keygen FILE`"},
	{as[*agent.RunningError], "stop it, or give this one its own --socket, --state-dir and --hub-cache"},
	{is(syscall.EADDRINUSE), "another process has the port: choose others with --gossip-port, --swarm-port and --gateway"},
}

// hint returns what a user can do about err, or "".
func hint(err error) string {
	if e, ok := errors.AsType[*agent.Error](err); ok && e.Hint != "" {
		return e.Hint
	}
	if e, ok := errors.AsType[*hub.StatusError](err); ok && e.Hint != "" {
		return e.Hint
	}
	for _, row := range hints {
		if row.is(err) {
			return row.text
		}
	}
	if classify(err) == agent.NoAgent && errors.Is(err, fs.ErrPermission) {
		return "the socket is for its owner and group: become a member of the group that the agent runs as"
	}
	if classify(err) == agent.NoAgent {
		return "start one with `p2pagent agent`, or name its --socket"
	}
	if errors.Is(err, fs.ErrPermission) {
		return "check who owns the file and which user runs p2pagent"
	}
	return ""
}

// signalError ends the process: the cause of the main context.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return "stopped by signal: " + e.signal.String() }

// waitedError is a command that ran out of time, and what for.
type waitedError struct {
	err  error
	what string
}

func (e *waitedError) Error() string { return e.err.Error() + ", waiting for " + e.what }
func (e *waitedError) Unwrap() error { return e.err }

// timeoutError is the cause of a context that --timeout ended.
type timeoutError struct{ limit time.Duration }

func (e *timeoutError) Error() string { return fmt.Sprintf("out of time: --timeout %v", e.limit) }

// usageError is a command line or configuration that makes no sense.
func usagef(format string, args ...any) error { return agent.Errorf(agent.Usage, format, args...) }
