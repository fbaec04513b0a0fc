package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"
)

// flushWait bounds what ending waits for a collector.
const flushWait = 2 * time.Second

// On tells whether the variables name a collector: only OTLP over HTTP is there.
func On(get func(string) string) bool {
	named := get("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	return named && get("OTEL_SDK_DISABLED") != "true" && get("OTEL_TRACES_EXPORTER") != "none"
}

// Export sends spans to a collector.
type Export struct {
	provider *trace.TracerProvider
	before   api.TracerProvider
	log      *slog.Logger
}

// Begin has spans exported from now on, as the OTEL_… variables of the process say:
// endpoint, headers, sampler, batch. node and version say who this is. What can't be
// sent is dropped, with a line in the log. Run must follow.
func Begin(ctx context.Context, node, version string, log *slog.Logger) (*Export, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	who, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "p2pagent"), attribute.String("service.version", version), attribute.String("service.instance.id", node)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("export traces: %w", err)
	}
	e := &Export{log: log, before: otel.GetTracerProvider()}
	e.provider = trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(who))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("export traces", "err", err) }))
	otel.SetTracerProvider(e.provider)
	return e, nil
}

// Run ends the export when ctx ends, with what is not sent yet.
func (e *Export) Run(ctx context.Context) error {
	<-ctx.Done()
	otel.SetTracerProvider(e.before)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWait)
	defer cancel()
	if err := e.provider.Shutdown(end); err != nil {
		e.log.Warn("export the last traces", "err", err)
	}
	return nil
}
