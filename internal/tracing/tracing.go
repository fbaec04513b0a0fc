package tracing

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is something that this member does for a while.
type Span struct{ span trace.Span }

// Start begins a span as a part of the one that ctx carries. What is begun with the
// context that it returns is a part of it. Attributes are names and values in turn.
func Start(ctx context.Context, name string, attributes ...any) (context.Context, Span) {
	ctx, span := tracer().Start(ctx, name, trace.WithAttributes(pairs(attributes)...))
	return ctx, Span{span}
}

// Join begins a span as a part of the one that ctx carries, linked to the one that
// caller carries: of several that wait for the same work one had it done.
func Join(ctx, caller context.Context, name string, attributes ...any) (context.Context, Span) {
	o := []trace.SpanStartOption{trace.WithAttributes(pairs(attributes)...)}
	if l := trace.LinkFromContext(caller); l.SpanContext.IsValid() {
		o = append(o, trace.WithLinks(l))
	}
	ctx, span := tracer().Start(ctx, name, o...)
	return ctx, Span{span}
}

// Within returns ctx as a part of what other carries: for work that belongs to a
// span and has another life.
func Within(ctx, other context.Context) context.Context {
	return trace.ContextWithSpan(ctx, trace.SpanFromContext(other))
}

// Do does a part of what ctx carries, in a span of its own.
func Do(ctx context.Context, name string, work func(context.Context) error) error {
	ctx, span := Start(ctx, name)
	err := work(ctx)
	span.End(err)
	return err
}

// Note records a span that is over already.
func Note(ctx context.Context, name string, from, to time.Time, attributes ...any) {
	_, span := tracer().Start(ctx, name, trace.WithTimestamp(from), trace.WithAttributes(pairs(attributes)...))
	span.End(trace.WithTimestamp(to))
}

func tracer() trace.Tracer { return otel.Tracer("p2pagent") }

// Set adds attributes.
func (s Span) Set(attributes ...any) {
	if s.span.IsRecording() {
		s.span.SetAttributes(pairs(attributes)...)
	}
}

// End ends the span; an error makes it a failed one.
func (s Span) End(err error) {
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// pairs makes attributes of names and values in turn.
func pairs(list []any) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		key := attribute.Key("p2pagent." + list[i].(string))
		switch v := list[i+1].(type) {
		case string:
			if v != "" {
				out = append(out, key.String(v))
			}
		case int:
			out = append(out, key.Int(v))
		case int64:
			out = append(out, key.Int64(v))
		default:
			out = append(out, key.String(fmt.Sprint(v)))
		}
	}
	return out
}
