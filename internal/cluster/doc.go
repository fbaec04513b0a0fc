// Package cluster is a machine room for tests: members with real libp2p hosts
// and real memberlist, on a network that exists in memory only.
//
// It is meant for testing/synctest bubbles: nothing in it waits on anything but
// channels and timers, so a minute of swarm life costs a fraction of a second.
// Connections are those of production but for the socket: TLS 1.3, yamux, the
// gater and the resource manager are all there. The network knows latency,
// bandwidth, links that go silent and heal, and machines that die.
//
// The package builds parts; the test wires them.
package cluster
