package hub

import (
	"strings"
	"testing"
	"time"
)

func TestContentRange(t *testing.T) {
	for _, tc := range []struct {
		in                 string
		first, last, total int64
		ok                 bool
	}{
		{"bytes 0-0/1", 0, 0, 1, true},
		{"bytes 5-9/10", 5, 9, 10, true},
		{"bytes 0-99/60000000000", 0, 99, 60000000000, true},
		{in: ""},
		{in: "bytes 0-0"},
		{in: "bytes 0-0/*"},
		{in: "bytes */10"},
		{in: "bytes 5-4/10"},
		{in: "bytes 0-10/10"},
		{in: "bytes -1-3/10"},
		{in: "bytes +1-3/10"},
		{in: "bytes  0-3/10"},
		{in: "Bytes 0-3/10"},
		{in: "bytes=0-3/10"},
		{in: "bytes 0-3/10, bytes 4-5/10"},
		{in: "bytes 0-3/99999999999999999999"},
		{in: "items 0-3/10"},
	} {
		first, last, total, err := contentRange(tc.in)
		if (err == nil) != tc.ok || first != tc.first || last != tc.last || total != tc.total {
			t.Errorf("%q: got %d-%d/%d, %v", tc.in, first, last, total, err)
		}
	}
}

func TestRateLimitHeader(t *testing.T) {
	for _, tc := range []struct {
		in     string
		bucket string
		wait   time.Duration
		ok     bool
	}{
		{`"api";r=0;t=55`, "api", 55 * time.Second, true},
		{` "resolvers" ; r=0 ; t=2 `, "resolvers", 2 * time.Second, true},
		{`"pages";t=0`, "pages", 0, true},
		{`"api";r=0;t=99999999999`, "api", maxWait, true},
		{`"api";r=0`, "", 0, false},
		{`api;t=5`, "", 0, false},
		{`"api`, "", 0, false},
		{`"`, "", 0, false},
		{`"a"b";t=5`, "", 0, false},
		{`"api";t=-5`, "", 0, false},
		{`"api";t=soon`, "", 0, false},
		{``, "", 0, false},
	} {
		bucket, wait, ok := rateLimit(tc.in)
		if bucket != tc.bucket || wait != tc.wait || ok != tc.ok {
			t.Errorf("%q: got %q, %v, %v", tc.in, bucket, wait, ok)
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"3":                             3 * time.Second,
		" 3 ":                           3 * time.Second,
		"0":                             0,
		"":                              0,
		"-1":                            0,
		"1.5":                           0,
		"99999999":                      maxWait,
		"99999999999999999999":          0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0, // past
		"Fri, 02 Jan 2036 03:00:00 GMT": maxWait,
		"tomorrow":                      0,
	} {
		if got := retryAfter(in, now); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}

func TestNextLink(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string
		ok   bool
	}{
		{nil, "", true},
		{[]string{`<https://h/a?cursor=b>; rel="next"`}, "https://h/a?cursor=b", true},
		{[]string{`<https://h/a?x=1,2;3>;rel=next`}, "https://h/a?x=1,2;3", true},
		{[]string{`<https://h/p>; rel="prev", <https://h/n>; title="a, b"; rel="last next"`}, "https://h/n", true},
		{[]string{`<https://h/p>; rel="prev"`, `<https://h/n>; REL="Next"`}, "https://h/n", true},
		{[]string{`<https://h/p>; rel="nextish"`}, "", true},
		{[]string{`<https://h/auth>; rel="xet-auth"`}, "", true},
		{[]string{`</relative>; rel="next"`}, "/relative", true},
		{[]string{`https://h/a; rel="next"`}, "", false},
		{[]string{`<https://h/a; rel="next"`}, "", false},
		{[]string{`<https://h/p>; rel="prev", junk`}, "", false},
	} {
		got, err := nextLink(tc.in)
		if got != tc.want || (err == nil) != tc.ok {
			t.Errorf("%q: got %q, %v", tc.in, got, err)
		}
	}
}

func TestETag(t *testing.T) {
	for in, want := range map[string]string{`"abc"`: "abc", `W/"abc"`: "abc", `abc`: "abc", `""`: "", ``: ""} {
		if got := etag(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// S29: a hundred failures in a row, or a server that asks for an hour.
//
// The pause doubles up to 30 s, less up to a quarter so that clients don't come
// back in step, and is never longer.
func TestS29PauseIsBounded(t *testing.T) {
	err := &ConnError{}
	for attempt := range 100 {
		want := min(firstPause<<min(attempt, 20), maxPause)
		if d := pause(attempt, err); d > want || d < want*3/4 {
			t.Errorf("attempt %d: %v, want at most %v and at least three quarters of it", attempt, d, want)
		}
	}
	for wait, want := range map[time.Duration]time.Duration{2 * time.Second: 2 * time.Second, time.Hour: maxPause} {
		if d := pause(0, &StatusError{Status: 503, wait: wait}); d != want {
			t.Errorf("Retry-After %v: %v, want %v", wait, d, want)
		}
	}
	if d := pause(0, &RateLimitError{Wait: time.Minute}); d > firstPause {
		t.Errorf("a rate limit is waited for at the gate, not twice: %v", d)
	}
}

func TestTidy(t *testing.T) {
	for in, want := range map[string]string{"a\nb\tc": "a b c", "\x1b[31mred\x00": "[31mred", strings.Repeat("é", 10): "éé…"} {
		if got := tidy(in, 5); got != want && got != tidy(want, 5) {
			t.Errorf("%q: got %q", in, got)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/10", "bytes */10", "bytes 0-3/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, err := contentRange(s)
		if err == nil && (first < 0 || last < first || total <= last) {
			t.Errorf("%q: %d-%d/%d", s, first, last, total)
		}
		if err != nil && first+last+total != 0 {
			t.Errorf("%q: values with an error", s)
		}
	})
}

func FuzzRateLimit(f *testing.F) {
	for _, s := range []string{`"api";r=0;t=55`, `"pages";t=0`, `x;t=1`, `"";t=18446744073709551615`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bucket, wait, ok := rateLimit(s)
		if wait < 0 || wait > maxWait || !ok && (bucket != "" || wait != 0) {
			t.Errorf("%q: %q %v %v", s, bucket, wait, ok)
		}
		if d := retryAfter(s, time.Unix(0, 0)); d < 0 || d > maxWait {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func FuzzNextLink(f *testing.F) {
	for _, s := range []string{`<https://h/a>; rel="next"`, `<a>; rel=prev, <b>; rel="x next"`, `<>,<`, `<a>;"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		target, err := nextLink([]string{s})
		if err != nil && target != "" || strings.Contains(target, ">") || !strings.Contains(s, target) {
			t.Errorf("%q: %q, %v", s, target, err)
		}
	})
}
