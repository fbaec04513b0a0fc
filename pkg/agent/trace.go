package agent

import (
	"context"
	"time"

	"p2pagent/internal/tracing"
)

// traceEnd ends the span of a job.
func (j *job) traceEnd(err error) {
	v := j.read(time.Now())
	j.span.Set("commit", v.Commit, "files", v.Files, "bytes", v.Total, "here", v.Here, "upstream", v.Upstream, "peers", v.FromPeers())
	j.span.End(err)
}

// takings are what members send for a job, by member: too many pieces for a span
// each.
type takings map[string]*taking

type taking struct {
	bytes       int64
	first, last time.Time
}

// note takes in a progress report.
func (t takings) note(peers map[string]int64, before, now time.Time) {
	for name, bytes := range peers {
		k := t[name]
		if k == nil {
			k = &taking{first: before}
			t[name] = k
		}
		if bytes > k.bytes {
			k.bytes, k.last = bytes, now
		}
	}
}

// trace makes a span for each member.
func (t takings) trace(ctx context.Context) {
	for name, k := range t {
		if k.bytes > 0 {
			tracing.Note(ctx, "pieces", k.first, k.last, "member", name, "bytes", k.bytes)
		}
	}
}
