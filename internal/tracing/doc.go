// Package tracing records what this member does as OpenTelemetry spans. It is off,
// and costs next to nothing, unless the standard OTEL_… variables name a collector.
//
// Nothing else touches OpenTelemetry. Values are names of repositories, commits,
// files and members, and counts; errors are the texts that a user sees. None of
// them holds a token or a signed URL.
package tracing
