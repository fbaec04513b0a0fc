// Package page shows an agent and its swarm to people: one embedded page, read
// only, that asks for nothing outside of its own listener.
//
// It knows none of the parts. Whoever wires an agent hands it a Source; it asks
// that once a second while somebody looks, whoever many look, and answers each
// viewer with what has changed since the viewer last asked. What a viewer sends
// is two values in a query, and both only choose among answers.
package page
