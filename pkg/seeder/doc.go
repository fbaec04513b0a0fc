// Package seeder brings extents from upstream into a store.
//
// It turns an extent into ranged requests: one for each run of consecutive
// pieces that are still needed. A request that breaks is replaced by one that
// starts at the first byte not yet read, so no byte is asked for twice; the
// unfinished piece stays in memory between the two. Each piece is cut, hashed
// and stated (pieces.Cutter) while it is read and handed to the Sink the moment
// it is whole, in the order of the blob.
//
// Waits are bounded. Between two attempts lies an exponential back-off of at
// most 30 s, or the time that upstream itself asked for; after Options.GiveUp
// attempts in a row that brought no byte Fetch returns ErrGaveUp. A connection on
// which bytes stop is the Source's to break (internal/stall), because only it
// sees the difference between a slow store and a silent upstream.
//
// Memory is bounded by Options.Memory whatever the size of a model: a request is
// not opened before there is room for the one piece that it has unfinished.
//
// How many extents to fetch at once is not decided here: that is plan.Pace, which is
// pure: the caller feeds it what it measures and starts Fetch accordingly.
package seeder
