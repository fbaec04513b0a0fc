package tracing

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receiver is a collector: it takes OTLP over HTTP and keeps the spans by name.
type receiver struct {
	t        *testing.T
	mu       sync.Mutex
	spans    map[string]*traces.Span
	resource map[string]string
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			c.t.Error(err)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	var q collector.ExportTraceServiceRequest
	if err := errors.Join(err, proto.Unmarshal(raw, &q)); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("X-Who") != "me" {
		c.t.Errorf("%s %v: %v", r.URL, r.Header, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rs := range q.ResourceSpans {
		for _, a := range rs.Resource.Attributes {
			c.resource[a.Key] = a.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.spans[s.Name] = s
			}
		}
	}
}

// Spans reach a collector over OTLP: what is a part of what, what is linked, what
// failed, when it was.
func TestRun(t *testing.T) {
	c := &receiver{t: t, spans: map[string]*traces.Span{}, resource: map[string]string{}}
	server := httptest.NewServer(c)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-who=me")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "rack=12")
	before := otel.GetTracerProvider()
	ctx, stop := context.WithCancel(t.Context())
	e, err := Begin(ctx, "node1", "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()

	caller, asked := Start(t.Context(), "gateway file")
	job, fetch := Join(t.Context(), caller, "fetch", "ref", "org/name@main", "files", 3, "bytes", int64(1)<<40)
	failed := errors.New("no space")
	if err := Do(job, "commit", func(context.Context) error { return failed }); err != failed {
		t.Error(err)
	}
	from := time.Now().Add(-time.Minute)
	Note(Within(t.Context(), job), "pieces", from, from.Add(time.Second), "member", "node2")
	fetch.Set("upstream", 7)
	fetch.End(nil)
	asked.End(nil)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	f, commit, took, gate := c.spans["fetch"], c.spans["commit"], c.spans["pieces"], c.spans["gateway file"]
	if f == nil || commit == nil || took == nil || gate == nil {
		t.Fatalf("spans %v", c.spans)
	}
	if string(commit.ParentSpanId) != string(f.SpanId) || string(took.ParentSpanId) != string(f.SpanId) || len(f.ParentSpanId) != 0 {
		t.Errorf("parts: %v", c.spans)
	}
	if len(f.Links) != 1 || string(f.Links[0].SpanId) != string(gate.SpanId) || string(f.TraceId) == string(gate.TraceId) {
		t.Errorf("links %v", f.Links)
	}
	if commit.Status.Code != traces.Status_STATUS_CODE_ERROR || commit.Status.Message != "no space" || f.Status.Code == traces.Status_STATUS_CODE_ERROR {
		t.Errorf("status %v, %v", commit.Status, f.Status)
	}
	if took.EndTimeUnixNano-took.StartTimeUnixNano != uint64(time.Second) || took.StartTimeUnixNano != uint64(from.UnixNano()) {
		t.Errorf("pieces %v", took)
	}
	got := map[string]any{}
	for _, a := range f.Attributes {
		got[a.Key] = a.Value.GetStringValue()
		if n := a.Value.GetIntValue(); n != 0 {
			got[a.Key] = n
		}
	}
	for key, want := range map[string]any{"p2pagent.ref": "org/name@main", "p2pagent.files": int64(3), "p2pagent.bytes": int64(1) << 40, "p2pagent.upstream": int64(7)} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	for key, want := range map[string]string{"service.name": "p2pagent", "service.instance.id": "node1", "service.version": "v1", "rack": "12"} {
		if c.resource[key] != want {
			t.Errorf("%s is %q, want %q", key, c.resource[key], want)
		}
	}
	if otel.GetTracerProvider() != before {
		t.Error("it is still on")
	}
}

func TestOn(t *testing.T) {
	const at = "http://127.0.0.1:4318"
	for _, c := range []struct {
		on  bool
		env map[string]string
	}{
		{false, nil},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": at}},
		{true, map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": at, "OTEL_TRACES_EXPORTER": "otlp"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": at}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": at, "OTEL_SDK_DISABLED": "true"}},
		{false, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": at, "OTEL_TRACES_EXPORTER": "none"}},
	} {
		if on := On(func(name string) string { return c.env[name] }); on != c.on {
			t.Errorf("%v: %v", c.env, on)
		}
	}
}

// Off costs a few allocations, whatever there is to say.
func BenchmarkOff(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, s := Start(context.Background(), "extent", "bytes", int64(1)<<26)
		s.End(nil)
	}
}
