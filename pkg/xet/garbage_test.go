package xet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/xet"
)

// warped is a network that changes the answers of the store's own routes whose path
// has a part.
type warped struct {
	http.RoundTripper
	path string
	warp func(resp *http.Response)
}

func (w *warped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(req)
	if err == nil && strings.Contains(req.URL.Path, w.path) {
		w.warp(resp)
	}
	return resp, err
}

// body replaces the body, of a length that nobody says unless it is given.
func body(resp *http.Response, r io.Reader, length int64) {
	resp.Body = struct {
		io.Reader
		io.Closer
	}{r, resp.Body}
	resp.ContentLength = length
}

// edit changes the text of an answer.
func edit(pattern, by string) func(*http.Response) {
	return func(resp *http.Response) {
		raw, _ := io.ReadAll(resp.Body) // what is missing shows as bad JSON
		raw = regexp.MustCompile(pattern).ReplaceAll(raw, []byte(by))
		body(resp, bytes.NewReader(raw), int64(len(raw)))
	}
}

// says sets a header.
func says(name, pattern, by string) func(*http.Response) {
	return func(resp *http.Response) {
		resp.Header.Set(name, regexp.MustCompile(pattern).ReplaceAllString(resp.Header.Get(name), by))
	}
}

// bytesOf keeps the length that was promised and sends others.
func bytesOf(other func(real []byte) []byte) func(*http.Response) {
	return func(resp *http.Response) {
		raw, _ := io.ReadAll(resp.Body)
		body(resp, bytes.NewReader(other(raw)), resp.ContentLength)
	}
}

// repeat sends a text over and over, as fast as it is read or every second.
type repeat struct {
	text  string
	every time.Duration
	ctx   context.Context // of the request
}

func (r *repeat) Read(p []byte) (n int, err error) {
	time.Sleep(r.every)
	for err = context.Cause(r.ctx); err == nil && n < len(p); {
		if n += copy(p[n:], r.text); r.every > 0 {
			break
		}
	}
	return n, err
}

// endless replaces the body by one without end, and without a length that is said.
func endless(text string, every time.Duration) func(*http.Response) {
	return func(resp *http.Response) { body(resp, &repeat{text, every, resp.Request.Context()}, -1) }
}

const huge = "9223372036854775807"

// Whatever a store sends in place of what it should, no byte of it gets into a file
// and nobody waits for it: the file comes by plain HTTP and the log says so, or, where
// nothing may take the store's place, there is an error that names it.
func TestGarbage(t *testing.T) {
	const plans, xorbs = "/reconstructions/", "/xorbs/"
	for name, w := range map[string]warped{
		"plan: null":                  {path: plans, warp: edit(`(?s).*`, `null`)},
		"plan: nothing":               {path: plans, warp: edit(`(?s).*`, ``)},
		"plan: a list":                {path: plans, warp: edit(`(?s).*`, `[]`)},
		"plan: huge terms":            {path: plans, warp: edit(`"unpacked_length":\d+`, `"unpacked_length":`+huge)},
		"plan: huge ranges":           {path: plans, warp: edit(`"end":\d+`, `"end":`+huge)},
		"plan: no number for any":     {path: plans, warp: edit(`"end":\d+`, `"end":`+huge+`0`)},
		"plan: less than is asked":    {path: plans, warp: edit(`"terms":\[.*?\]`, `"terms":[]`)},
		"plan: deep":                  {path: plans, warp: edit(`(?s).*`, strings.Repeat("[", 1<<20))},
		"plan: without end":           {path: plans, warp: endless(`{"terms":[`, 0)},
		"plan: a trickle without end": {path: plans, warp: endless(" ", time.Second)},
		"plan: a redirect":            {path: plans, warp: func(r *http.Response) { r.StatusCode = 302; r.Header.Set("Location", "http://elsewhere.test/") }},

		"xorb: 200":                   {path: xorbs, warp: func(r *http.Response) { r.StatusCode = 200; r.Header.Del("Content-Range") }},
		"xorb: no Content-Range":      {path: xorbs, warp: func(r *http.Response) { r.Header.Del("Content-Range") }},
		"xorb: one byte later":        {path: xorbs, warp: says("Content-Range", `\d+-`, "1-")},
		"xorb: shorter than the part": {path: xorbs, warp: says("Content-Range", `/\d+`, "/1")},
		"xorb: no number for any":     {path: xorbs, warp: says("Content-Range", `/\d+`, "/"+huge+"0")},
		"xorb: of zeros":              {path: xorbs, warp: bytesOf(func(b []byte) []byte { return make([]byte, len(b)) })},
		"xorb: a page":                {path: xorbs, warp: bytesOf(func(b []byte) []byte { return bytes.Repeat([]byte("<html>"), len(b)/6+1)[:len(b)] })},
		"xorb: a record of 16 MiB": {path: xorbs, warp: bytesOf(func(b []byte) []byte {
			return append(xet.AppendHeader(nil, xet.LZ4, 1<<24-1, 1<<24-1), b[8:]...)
		})},
		"xorb: of another":              {path: xorbs, warp: bytesOf(func(b []byte) []byte { return append(bytes.Clone(b[len(b)/2:]), b[:len(b)/2]...) })},
		"xorb: a trickle without end":   {path: xorbs, warp: endless("\x00", time.Second)},
		"xorb: without end, as records": {path: xorbs, warp: endless("\x00\x01", 0)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, hubtest.Xet{Plain: true}, []hubtest.File{{Path: "a", Content: hubtest.Generated(1, mib)}}, func(t *testing.T, world *world) {
				w := w
				w.RoundTripper = world.http
				world.client = world.newClient(func(o *xet.Options) { o.Transport = &w })
				begin := time.Now()
				data, err := world.resume(world.source(nil), "a", 4)
				if err != nil || !bytes.Equal(data, world.want("a", 0, mib)) || time.Since(begin) > 75*time.Second {
					t.Errorf("%d bytes after %v, %v", len(data), time.Since(begin), err)
				}
				world.wantPlain(1)
				if world.log.count("falling back to plain HTTP") != 1 {
					t.Errorf("log: %s", world.log.text.String())
				}
				world.garbageOnly()
			})
		})
	}
}

// garbageOnly asks a store that sends garbage and has no substitute.
func (w *world) garbageOnly() {
	w.t.Helper()
	s, begin := w.source(func(o *xet.SourceOptions) { o.Only = true }), time.Now()
	for {
		data, err := w.read(s, "a", 0, mib)
		if err == nil || !tainted(err) && !bytes.HasPrefix(w.want("a", 0, mib), data) {
			w.t.Fatalf("%d bytes, %v", len(data), err)
		}
		if final, ok := errors.AsType[*xet.OnlyError](err); ok {
			if text := final.Error(); !strings.Contains(text, "cdn.test") || strings.Contains(text, "Signature") {
				w.t.Error(final)
			}
			return
		}
		if took := time.Since(begin); took > 3*time.Minute {
			w.t.Fatalf("after %v it is still asked: %v", took, err)
		}
		time.Sleep(20 * time.Second)
	}
}
