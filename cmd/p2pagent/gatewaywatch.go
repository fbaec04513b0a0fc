package main

import (
	"context"
	"net/http"
	"sync/atomic"

	"p2pagent/internal/histogram"
	"p2pagent/internal/metrics"
	"p2pagent/internal/tracing"
	"p2pagent/pkg/gateway"
)

// gatewayWatch counts the gateway's requests.
type gatewayWatch struct {
	first   histogram.Durations // until the first byte of files
	answers [6]atomic.Int64     // by the first digit of the status; 0: none
	bytes   atomic.Int64
}

// begin is a gateway.Watch.
func (g *gatewayWatch) begin(r *http.Request, what string) (context.Context, func(gateway.Served)) {
	ctx, span := tracing.Start(r.Context(), "gateway "+what, "method", r.Method) // not its path: some hold a grant
	file := what == "resolve" && r.Method == http.MethodGet
	return ctx, func(s gateway.Served) {
		span.Set("status", s.Status, "bytes", s.Bytes)
		span.End(nil)
		g.answers[min(s.Status/100, len(g.answers)-1)].Add(1)
		g.bytes.Add(s.Bytes)
		if file && s.Status/100 == 2 {
			g.first.Observe(s.First)
		}
	}
}

func (g *gatewayWatch) sample(s *metrics.Sample) {
	s.GatewayTimes, s.GatewayBytes = g.first.Read(), g.bytes.Load()
	for i := range g.answers {
		s.GatewayAnswers[i] = g.answers[i].Load()
	}
}
