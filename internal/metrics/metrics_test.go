package metrics

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/histogram"
)

// full has something in every family.
func full() Sample {
	return Sample{
		Version: "v1", Go: "go1", UpstreamBytes: 12, PeerIn: 3, PeerOut: 4, Copied: 6, Refused: 2, Settled: true,
		DesiredByPhase: map[string]int{"here": 2}, JobsByState: map[string]int{"fetching": 1}, EndedByOutcome: map[string]int64{"done": 5}, IdleSeconds: 1.5,
		UpstreamAnswers: [6]int64{1, 0, 200, 300, 4, 5}, GatewayAnswers: [6]int64{0, 0, 7}, PieceTimes: times(),
		Snapshots: []Snapshot{{Repo: "org/\"odd\\\nname", Commit: "c", Bytes: 10, Here: 5, Upstream: 7}, {Repo: "b", Commit: "c", Bytes: 1, Here: 1, Ready: true}},
	}
}

// times has a duration in the first bucket and one beyond the last.
func times() histogram.Counts {
	var d histogram.Durations
	d.Observe(time.Millisecond)
	d.Observe(2 * time.Hour)
	return d.Read()
}

func read(s Sample) Read { return func(context.Context) (Sample, error) { return s, nil } }

func TestWrite(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, read(full())); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`p2pagent_upstream_bytes_total 12`, `p2pagent_peer_bytes_total{direction="in"} 3`, `p2pagent_peer_bytes_total{direction="out"} 4`,
		`p2pagent_copied_bytes_total 6`,
		`p2pagent_pieces_total{result="refused"} 2`, `p2pagent_upstream_requests_total{code="none"} 1`, `p2pagent_upstream_requests_total{code="2xx"} 200`,
		`p2pagent_jobs{state="fetching"} 1`, `p2pagent_jobs_ended_total{outcome="done"} 5`, `p2pagent_job_idle_seconds 1.5`, `p2pagent_settled 1`,
		`p2pagent_snapshot_ready{commit="c",repo="b"} 1`, `p2pagent_snapshot_upstream_bytes_total{commit="c",repo="org/\"odd\\\nname"} 7`,
		`p2pagent_piece_fetch_duration_seconds_bucket{le="0.005"} 1`, `p2pagent_piece_fetch_duration_seconds_bucket{le="3600"} 1`,
		`p2pagent_piece_fetch_duration_seconds_bucket{le="+Inf"} 2`, `p2pagent_piece_fetch_duration_seconds_sum 7200.001`,
		`p2pagent_gateway_requests_total{code="2xx"} 7`, `p2pagent_gateway_first_byte_seconds_count 0`,
		`p2pagent_build_info{goversion="go1",version="v1"} 1`,
	} {
		if !slices.Contains(strings.Split(out.String(), "\n"), line) {
			t.Errorf("no line %s in\n%s", line, out.String())
		}
	}
	for _, f := range Families() {
		if !strings.Contains(out.String(), "# TYPE "+f.Name+" "+f.Type+"\n") {
			t.Errorf("no series of %s (%s)", f.Name, f.Type)
		}
	}
	lint(t, out.Bytes())
}

func lint(t *testing.T, text []byte) {
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("not linted: no promtool here (Debian: prometheus)")
	}
	cmd := exec.CommandContext(t.Context(), tool, "check", "metrics")
	cmd.Stdin = bytes.NewReader(text)
	if said, err := cmd.CombinedOutput(); err != nil || len(said) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, said)
	}
}

// get asks a server on a real port.
func get(t *testing.T, o Options, method, path string) (int, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- NewServer(o).Serve(ctx, l) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	fails := errors.New("the disk\nis gone")
	well := func(context.Context) error { return nil }
	ill := func(context.Context) error { return fails }
	o := Options{Read: read(full()), Alive: well, Ready: []Check{{"a", well}, {"b", well}}}
	paged := o
	paged.Page = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the page") })
	sick := Options{Read: func(context.Context) (Sample, error) { return Sample{}, fails }, Alive: ill, Ready: []Check{{"a", well}, {"b", ill}, {"c", well}}}
	for _, test := range []struct {
		o            Options
		method, path string
		code         int
		want         string
	}{
		{o, "GET", "/livez", 200, "ok alive\n"},
		{o, "GET", "/readyz", 200, "ok a\nok b\n"},
		{o, "GET", "/metrics", 200, "p2pagent_upstream_bytes_total 12\n"},
		{o, "POST", "/metrics", 405, ""},
		{o, "GET", "/", 404, ""},
		{paged, "GET", "/", 200, "the page"},
		{paged, "GET", "/page/state", 200, "the page"},
		{paged, "POST", "/page/state", 405, ""},
		{paged, "GET", "/other", 404, ""},
		{o, "GET", "/metrics/x", 404, ""},
		{sick, "GET", "/livez", 503, "failed alive: the disk; is gone\n"},
		{sick, "GET", "/readyz", 503, "ok a\nfailed b: the disk; is gone\nok c\n"},
		{sick, "GET", "/metrics", 500, "is gone"},
	} {
		if code, body := get(t, test.o, test.method, test.path); code != test.code || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %d\n%s\nwant %d with %q", test.method, test.path, code, body, test.code, test.want)
		}
	}
}

// A check that hangs is given up with its reason, and the probe is answered.
func TestProbeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }
		w, start := httptest.NewRecorder(), time.Now()
		probe([]Check{{"slow", hangs}}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
		if w.Code != 503 || w.Body.String() != "failed slow: no answer in 3 s\n" || time.Since(start) != probeWait {
			t.Errorf("%d %s after %v", w.Code, w.Body, time.Since(start))
		}
	})
}
