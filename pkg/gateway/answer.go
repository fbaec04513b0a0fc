package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// Code is what the Hub calls a failure in X-Error-Code; clients tell failures
// apart by it.
type Code string

// The codes, and Busy, which is ours: come again.
const (
	RepoNotFound     Code = "RepoNotFound" // or private
	RevisionNotFound Code = "RevisionNotFound"
	EntryNotFound    Code = "EntryNotFound"
	GatedRepo        Code = "GatedRepo"
	Forbidden        Code = "Forbidden"
	RouteNotFound    Code = "RouteNotFound"
	Unauthorized     Code = "Unauthorized"
	NoSpace          Code = "NoSpace"
	BadRequest       Code = "BadRequest"
	Failed           Code = "Failed"
	Busy             Code = "Busy"
	Expired          Code = "Expired" // an address: clients ask for another
	Spoiled          Code = "Spoiled" // begin anew
	InvalidRange     Code = "InvalidRange"
	TooMuch          Code = "TooMuch"
)

// statuses are those that the Hub gives with the code.
var statuses = map[Code]int{
	RepoNotFound: http.StatusUnauthorized, RevisionNotFound: http.StatusNotFound, EntryNotFound: http.StatusNotFound,
	GatedRepo: http.StatusForbidden, Forbidden: http.StatusForbidden, RouteNotFound: http.StatusNotFound,
	Unauthorized: http.StatusUnauthorized, NoSpace: http.StatusInsufficientStorage, BadRequest: http.StatusBadRequest, Failed: http.StatusInternalServerError,
	Busy: http.StatusTooManyRequests, Expired: http.StatusForbidden, Spoiled: http.StatusGone,
	InvalidRange: http.StatusRequestedRangeNotSatisfiable, TooMuch: http.StatusBadRequest,
}

// Refusal is an answer that is no success.
type Refusal struct {
	Code    Code
	Message string
	After   time.Duration // of Busy: when to come again
}

func (r *Refusal) Error() string { return r.Message }

// refusalOf gives every error the form of an answer. Out of time is Busy: clients
// repeat a 429, but neither a 5xx nor a connection that broke.
func refusalOf(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Refusal{Code: Busy, Message: "not ready yet, come again", After: 5 * time.Second}
	}
	return &Refusal{Code: Failed, Message: err.Error()}
}

// refuse answers with an error. Headers that speak of a file are taken back.
func refuse(w http.ResponseWriter, err error) {
	r := refusalOf(err)
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Range", "Content-Type", "ETag", "Accept-Ranges"} {
		h.Del(name)
	}
	h.Set("X-Error-Code", string(r.Code))
	h.Set("X-Error-Message", oneLine(r.Message))
	if r.Code == Busy {
		h.Set("Retry-After", strconv.Itoa(int(max(r.After, time.Second).Round(time.Second)/time.Second)))
	}
	writeJSON(w, statuses[r.Code], map[string]string{"error": r.Message})
}

// oneLine makes text fit for a header.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, s[:min(len(s), 500)])
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"not representable"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	w.Write(data) // a client that went away needs no answer
}

func entryNotFound(o *pieces.Outline, path string) error {
	return &Refusal{Code: EntryNotFound, Message: "Entry not found: " + path + " is not in " + o.Repo.String() + " at " + string(o.Commit)}
}
