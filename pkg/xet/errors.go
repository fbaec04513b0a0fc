package xet

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Why a read failed, for errors.Is.
var (
	// ErrNoFile: the CAS does not know the file.
	ErrNoFile = errors.New("the store does not know the file")
	// ErrAnswer: the CAS or the CDN gave an answer that contradicts itself or the
	// request; nothing of it was used.
	ErrAnswer = errors.New("answer refused")
	// ErrRefused: a signed URL was refused again after it was asked for anew.
	ErrRefused = errors.New("signed URL refused")
	// ErrContent: a xorb or a file is complete and is not what its name says.
	ErrContent = errors.New("content does not match its name")
)

// Error is a read that failed. Its text holds no token and no URL.
type Error struct {
	Op     string // such as "reconstruct <file>"
	Host   string // that was asked
	Status int    // of its answer, when that is the fault
	Err    error

	wait time.Duration
}

// Error implements error.
func (e *Error) Error() string {
	if e.Status != 0 {
		return fmt.Sprintf("%s: %s answered %d %s: %v", e.Op, e.Host, e.Status, http.StatusText(e.Status), e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", e.Op, e.Host, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Permanent tells that the same request will get the same answer.
func (e *Error) Permanent() bool { return errors.Is(e.Err, ErrNoFile) }

// Tainted reports whether the bytes that came before in the same body are as good as
// what this error is about: where something is no chunk, they may be none either.
func (e *Error) Tainted() bool { return errors.Is(e.Err, ErrRecord) || errors.Is(e.Err, ErrAnswer) }

// RetryAfter returns how long the server asked to wait; 0 when it did not.
func (e *Error) RetryAfter() time.Duration { return e.wait }

// ContentError tells which xorb or file is wrong, and who sent it. It wraps
// ErrContent. What was read of the piece at hand may be wrong too: Tainted.
type ContentError struct {
	What  string // "xorb" or "file"
	Name  Hash
	Hosts []string // that its bytes came from
	Final bool     // it came wrong so often that another copy is not asked for
}

// Error implements error.
func (e *ContentError) Error() string {
	return fmt.Sprintf("%s %s from %v: %v", e.What, e.Name, e.Hosts, ErrContent)
}

// Unwrap returns ErrContent.
func (e *ContentError) Unwrap() error { return ErrContent }

// Permanent reports whether no further copy is asked for: as a rule one is, and may
// be right.
func (e *ContentError) Permanent() bool { return e.Final }

// Tainted reports true: bytes that were read before this error are not to be used.
func (e *ContentError) Tainted() bool { return true }

// OnlyError ends the use of a store that has not worked for a while where nothing
// may take its place.
type OnlyError struct {
	For time.Duration // how long it has not worked
	Err error         // the last failure
}

// Error implements error.
func (e *OnlyError) Error() string {
	return fmt.Sprintf("the content-addressed store has not worked for %v, and nothing may take its place: %v", e.For.Round(time.Second), e.Err)
}

// Unwrap returns the last failure.
func (e *OnlyError) Unwrap() error { return e.Err }

// Permanent reports true.
func (e *OnlyError) Permanent() bool { return true }

// errStatus stands for an answer whose status says it all.
var errStatus = errors.New("unexpected status")

func status(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}
