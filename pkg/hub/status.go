package hub

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// check closes the answer and returns a typed error unless its status is one of
// the wanted.
func (c *Client) check(r request, a *answer, want ...int) error {
	for _, status := range want {
		if a.StatusCode == status {
			return nil
		}
	}
	defer a.Body.Close()
	if a.StatusCode == http.StatusTooManyRequests {
		return c.tooMany(r, a)
	}
	e := &StatusError{Op: r.op, Host: a.from.Host, Status: a.StatusCode,
		Code: tidy(a.Header.Get("X-Error-Code"), 60), RequestID: tidy(requestID(a.Header), 80),
		Message: message(a), wait: retryAfter(a.Header.Get("Retry-After"), time.Now())}
	if sameOrigin(a.from, c.endpoint) {
		e.kind = kindOf(e, r.missing)
		e.Hint = c.hint(e.kind, a.asked)
	}
	return e
}

// tooMany reads how long to wait. RateLimit's t is the end of the window and is
// more exact than Retry-After; one second more, because the two clocks differ.
func (c *Client) tooMany(r request, a *answer) error {
	bucket, wait, ok := rateLimit(a.Header.Get("RateLimit"))
	if ok {
		wait += time.Second
	} else {
		wait = retryAfter(a.Header.Get("Retry-After"), time.Now())
	}
	if bucket != BucketAPI && bucket != BucketResolvers {
		bucket = r.bucket // "pages", or none named: at least this kind of request waits
	}
	wait = max(wait, time.Second)
	c.limited(bucket, wait)
	if bucket != r.bucket {
		c.limited(r.bucket, wait)
	}
	return &RateLimitError{Op: r.op, Bucket: bucket, Wait: wait}
}

// kindOf reads the Hub's answer the way huggingface_hub does
// (utils/_http.py, hf_raise_for_status): the code first, then the status.
func kindOf(e *StatusError, missing error) error {
	switch {
	case e.Code == "RepoNotFound":
		return ErrRepoNotFound
	case e.Code == "GatedRepo":
		return ErrGated
	case e.Code == "RevisionNotFound":
		return ErrRevisionNotFound
	case e.Code == "EntryNotFound":
		return ErrEntryNotFound
	case strings.HasPrefix(e.Message, "Access to this resource is disabled"):
		return ErrDisabled
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return ErrUnauthorized
	case e.Status == http.StatusNotFound || e.Status == http.StatusGone:
		return missing
	}
	return nil
}

func (c *Client) hint(kind error, asked bool) string {
	switch {
	case kind == ErrRepoNotFound && asked:
		return "check the name; if it is private, the token in use may not read it"
	case kind == ErrRepoNotFound:
		return "check the name, or set HF_TOKEN if it is private"
	case kind == ErrGated && asked:
		return "accept its terms on its page at " + c.endpoint.String() + " with the account of the token in use"
	case kind == ErrGated:
		return "accept its terms on its page at " + c.endpoint.String() + " and set HF_TOKEN"
	case kind == ErrRevisionNotFound:
		return "check the branch, tag or commit"
	case kind == ErrUnauthorized && asked:
		return "the token in use was refused: check HF_TOKEN"
	case kind == ErrUnauthorized:
		return "set HF_TOKEN"
	}
	return ""
}

const (
	errorBody     = 4 << 10 // enough for a message
	errorBodyWait = 5 * time.Second
)

// message finds what the Hub says in words: a header, or JSON in the body.
func message(a *answer) string {
	if m := a.Header.Get("X-Error-Message"); m != "" {
		return tidy(m, 300)
	}
	if !strings.Contains(a.Header.Get("Content-Type"), "json") {
		return ""
	}
	timer := time.AfterFunc(errorBodyWait, func() { a.Body.Close() })
	defer timer.Stop()
	data, _ := io.ReadAll(io.LimitReader(a.Body, errorBody))
	var said struct {
		Error  any `json:"error"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(data, &said) != nil {
		return ""
	}
	if text, ok := said.Error.(string); ok {
		return tidy(text, 300)
	}
	if len(said.Errors) > 0 {
		return tidy(said.Errors[0].Message, 300)
	}
	return ""
}

// tidy makes text from the network fit for a log line and a terminal.
func tidy(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func requestID(h http.Header) string {
	for _, name := range []string{"X-Request-Id", "X-Amzn-Trace-Id", "X-Amz-Cf-Id"} {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}
