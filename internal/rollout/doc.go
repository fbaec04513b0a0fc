// Package rollout has members of a swarm hold a model at one commit, and gathers how
// far each is.
//
// Run is the member that asks: it asks each member that the selector means once, over a
// stream of its own, and hears reports on that stream; members that come while it
// waits are asked too, those that went are missing, and are asked again when they are
// back. A Fleet joins that to a member of the swarm, and is the other end too: it has a
// Keeper hold what another member asks for, and reports on it.
//
// Asking again is harmless, and who asked may go: the members go on.
package rollout
