package hub

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxWait bounds what a header can make us wait: the Hub's windows are five
// minutes long, so more than twice that is a mistake or malice.
const maxWait = 10 * time.Minute

// contentRange reads "bytes first-last/total" strictly: this is the one header
// that says where in the file a body belongs.
func contentRange(s string) (first, last, total int64, err error) {
	fail := func() (int64, int64, int64, error) {
		return 0, 0, 0, fmt.Errorf("Content-Range %.60q: want \"bytes FIRST-LAST/TOTAL\"", s)
	}
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return fail()
	}
	for _, f := range []struct {
		text string
		n    *int64
	}{{from, &first}, {to, &last}, {size, &total}} {
		if *f.n, err = digits(f.text); err != nil {
			return fail()
		}
	}
	if first > last || last >= total {
		return fail()
	}
	return first, last, total, nil
}

// digits is strconv.ParseInt without signs, which have no place in a header.
func digits(s string) (int64, error) {
	if s == "" || strings.TrimLeft(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}

// rateLimit reads the header RateLimit of a 429, such as `"api";r=0;t=55`
// (draft-ietf-httpapi-ratelimit-headers), where t is the seconds until the
// window is over.
func rateLimit(s string) (bucket string, wait time.Duration, ok bool) {
	parts := strings.Split(strings.TrimSpace(s), ";")
	bucket, quoted := strings.CutPrefix(strings.TrimSpace(parts[0]), `"`)
	bucket, closed := strings.CutSuffix(bucket, `"`)
	if !quoted || !closed || strings.Contains(bucket, `"`) {
		return "", 0, false
	}
	for _, p := range parts[1:] {
		if t, found := strings.CutPrefix(strings.TrimSpace(p), "t="); found {
			n, err := digits(t)
			if err != nil {
				return "", 0, false
			}
			return bucket, seconds(n), true
		}
	}
	return "", 0, false
}

func seconds(n int64) time.Duration {
	return time.Duration(min(n, int64(maxWait/time.Second))) * time.Second
}

// retryAfter reads both forms of Retry-After: seconds and a date.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := digits(strings.TrimSpace(s)); err == nil {
		return seconds(n)
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(at.Sub(now), 0), maxWait)
	}
	return 0
}

// nextLink finds the target of rel="next" among the values of Link (RFC 8288).
func nextLink(values []string) (string, error) {
	for _, v := range values {
		for v = strings.TrimSpace(v); v != ""; {
			target, params, rest, err := cutLink(v)
			if err != nil {
				return "", err
			}
			if relNext(params) {
				return target, nil
			}
			v = rest
		}
	}
	return "", nil
}

// cutLink takes the first `<target>;params` off a list that commas separate.
func cutLink(v string) (target, params, rest string, err error) {
	inner, ok := strings.CutPrefix(v, "<")
	target, after, closed := strings.Cut(inner, ">")
	if !ok || !closed {
		return "", "", "", fmt.Errorf("header Link %.60q: want \"<url>; rel=...\"", v)
	}
	end, quoted := len(after), false
	for i, c := range after {
		if c == '"' {
			quoted = !quoted
		}
		if c == ',' && !quoted {
			end = i
			break
		}
	}
	return target, after[:end], strings.TrimLeft(after[end:], ", \t"), nil
}

func relNext(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
	}
	return false
}

// etag drops the quotes and the weakness mark.
func etag(s string) string {
	return strings.Trim(strings.TrimPrefix(strings.TrimSpace(s), "W/"), `"`)
}
