package agent_test

import (
	"slices"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"p2pagent/pkg/agent"
)

// A job is one span; what it does is within, an extent each, and a span for each
// member that sent pieces, however many those were.
func TestAJobIsTraced(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(spans)))
	defer otel.SetTracerProvider(before)
	inRoom(t, 2, func(t *testing.T, r *room) {
		commit := r.model("org/m")
		for i, want := range [][]string{{"adopt", "commit", "extent", "list", "resolve"}, {"adopt", "commit", "list", "pieces", "resolve"}} {
			spans.Reset()
			_, err := r.units[i].fetch("org/m", func(*agent.Request) {})
			r.must(err)
			checkTrace(t, spans.GetSpans(), string(commit), want)
		}
		spans.Reset()
		_, err := r.units[0].fetch("org/none", nil)
		job := find(spans.GetSpans(), "fetch")
		if err == nil || len(job) != 1 || job[0].Status.Description != err.Error() {
			t.Errorf("%v is told as %+v", err, job)
		}
	})
}

func find(all tracetest.SpanStubs, name string) tracetest.SpanStubs {
	return slices.DeleteFunc(slices.Clone(all), func(s tracetest.SpanStub) bool { return s.Name != name })
}

func checkTrace(t *testing.T, all tracetest.SpanStubs, commit string, want []string) {
	t.Helper()
	job := find(all, "fetch")
	if len(job) != 1 {
		t.Fatalf("%d jobs in %v", len(job), all)
	}
	said := map[string]any{}
	for _, a := range job[0].Attributes {
		said[string(a.Key)] = a.Value.AsInterface()
	}
	if said["p2pagent.commit"] != commit || said["p2pagent.bytes"] != int64(modelSize) || said["p2pagent.upstream"].(int64)+said["p2pagent.peers"].(int64) != modelSize {
		t.Errorf("the job says %v", said)
	}
	var parts []string
	for _, s := range all {
		if s.Parent.SpanID() == job[0].SpanContext.SpanID() {
			parts = append(parts, s.Name)
		}
	}
	slices.Sort(parts)
	if parts = slices.Compact(parts); !slices.Equal(parts, want) {
		t.Errorf("parts %v, want %v", parts, want)
	}
}
