// Package metrics shows an agent to a monitoring system: its counters in the
// format of Prometheus, whether it lives, and whether it is ready.
//
// It knows none of the parts. Whoever wires an agent fills a Sample at each
// scrape out of what the parts count, so that they stay free of Prometheus. The
// table of families is all that is exported, and the documents are generated from
// it. No label has a value that a peer or a client could make up: repositories
// and commits are those of the last jobs, of which the agent keeps a few.
package metrics
