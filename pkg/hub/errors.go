package hub

import (
	"fmt"
	"net/http"
	"time"
)

// sentinel is an error that answers a question of the caller, by errors.Is, and
// whether trying again can help, by errors.As.
type sentinel struct {
	text      string
	permanent bool
}

func (s *sentinel) Error() string   { return s.text }
func (s *sentinel) Permanent() bool { return s.permanent }

// What the Hub can say about a request, for errors.Is. All but ErrUnreachable
// are permanent: the same request gets the same answer.
var (
	// ErrRepoNotFound: no such repository, or a private one that the token (or
	// its absence) may not see: the Hub does not tell these apart.
	ErrRepoNotFound error = &sentinel{"repository not found", true}
	// ErrGated: the repository exists and wants its terms accepted first.
	ErrGated error = &sentinel{"access to the repository is gated", true}
	// ErrRevisionNotFound: the repository has no such branch, tag or commit.
	ErrRevisionNotFound error = &sentinel{"revision not found", true}
	// ErrEntryNotFound: the commit has no such file.
	ErrEntryNotFound error = &sentinel{"file not found", true}
	// ErrDisabled: the Hub has taken the repository down.
	ErrDisabled error = &sentinel{"repository is disabled", true}
	// ErrUnauthorized: the token is not valid, or may not do this.
	ErrUnauthorized error = &sentinel{"not authorized", true}
	// ErrUnreachable: no connection to the Hub could be made.
	ErrUnreachable error = &sentinel{"cannot reach the hub", false}
)

// StatusError is an answer with a status that the request can't live with. It
// wraps the sentinel that fits, if one does.
type StatusError struct {
	Op        string // such as "list org/name at 0123…"
	Host      string // that answered
	Status    int
	Code      string // X-Error-Code, such as "RepoNotFound"
	Message   string // what the Hub says about it, shortened
	RequestID string // for a report to the Hub's makers
	Hint      string // what the user can do about it

	wait time.Duration
	kind error
}

// Error implements error.
func (e *StatusError) Error() string {
	what := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.kind != nil {
		what = e.kind.Error()
	}
	text := fmt.Sprintf("%s: %s (%s answered %d", e.Op, what, e.Host, e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.RequestID != "" {
		text += ", request " + e.RequestID
	}
	text += ")"
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap returns the sentinel, or nil.
func (e *StatusError) Unwrap() error { return e.kind }

// Permanent tells that the same request will get the same answer.
func (e *StatusError) Permanent() bool { return !temporary(e.Status) }

// RetryAfter returns how long the Hub asked to wait; 0 when it did not.
func (e *StatusError) RetryAfter() time.Duration { return e.wait }

func temporary(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500
}

// RateLimitError is a 429: this address or token has used up its requests.
type RateLimitError struct {
	Op     string
	Bucket string        // BucketAPI, BucketResolvers, BucketCDN
	Wait   time.Duration // how long the Hub asked to wait, within reason
}

// Error implements error.
func (e *RateLimitError) Error() string {
	return fmt.Sprintf("%s: rate limit of %q reached, wait %v", e.Op, e.Bucket, e.Wait)
}

// Permanent reports false.
func (e *RateLimitError) Permanent() bool { return false }

// RetryAfter returns Wait.
func (e *RateLimitError) RetryAfter() time.Duration { return e.Wait }

// ProtocolError is an answer that contradicts the request or itself: no byte of
// it was used. Another try, or another source, may get a sound one.
type ProtocolError struct {
	Op     string
	Host   string
	Reason string
}

// Error implements error.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s: answer of %s refused: %s", e.Op, e.Host, e.Reason)
}

// Permanent reports false.
func (e *ProtocolError) Permanent() bool { return false }

// DisagreeError tells that the Hub's answer about a file is not what its own
// listing of the commit says. Asking again does not help.
type DisagreeError struct {
	Op     string
	Header string // the header that disagrees
	Listed string
	Got    string
}

// Error implements error.
func (e *DisagreeError) Error() string {
	return fmt.Sprintf("%s: the listing says %s, %s says %s", e.Op, e.Listed, e.Header, e.Got)
}

// Permanent reports true.
func (e *DisagreeError) Permanent() bool { return true }

// RedirectError is a redirect that was not followed: to a private address, from
// https to http, to another scheme, or one too many.
type RedirectError struct {
	Op     string
	Target string // scheme and host alone
	Reason string
}

// Error implements error.
func (e *RedirectError) Error() string {
	return fmt.Sprintf("%s: redirect to %s refused: %s", e.Op, e.Target, e.Reason)
}

// Permanent reports true.
func (e *RedirectError) Permanent() bool { return true }

// DeadlineError is a call that did not end within its bound: the cause of the
// context that it ran in.
type DeadlineError struct {
	What  string // such as "no response headers"
	Limit time.Duration
	cause error // stall.ErrStalled
}

// Error implements error.
func (e *DeadlineError) Error() string { return fmt.Sprintf("stalled: %s for %v", e.What, e.Limit) }

// Unwrap returns stall.ErrStalled.
func (e *DeadlineError) Unwrap() error { return e.cause }

// Permanent reports false.
func (e *DeadlineError) Permanent() bool { return false }

// BodyError is a body that broke or ended before its last byte.
type BodyError struct {
	Op     string
	Host   string
	Offset int64 // in the file, of the first byte that did not come
	Err    error
}

// Error implements error.
func (e *BodyError) Error() string {
	return fmt.Sprintf("%s: body from %s broke at byte %d: %v", e.Op, e.Host, e.Offset, e.Err)
}

// Unwrap returns the cause, such as io.ErrUnexpectedEOF or a *stall.Error.
func (e *BodyError) Unwrap() error { return e.Err }

// Permanent reports false.
func (e *BodyError) Permanent() bool { return false }

// ConnError is a connection that broke before the response headers were in.
type ConnError struct {
	Op   string
	Host string
	Err  error
}

// Error implements error.
func (e *ConnError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Op, e.Host, e.Err) }

// Unwrap returns the transport's error.
func (e *ConnError) Unwrap() error { return e.Err }

// Permanent reports false.
func (e *ConnError) Permanent() bool { return false }
