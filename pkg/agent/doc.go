// Package agent does the job "this snapshot is on this node".
//
// Ensure is that job, from what a user types to the path of a snapshot folder:
//
//  1. resolving: the revision becomes a commit. A commit needs nobody; a branch
//     is asked of the Hub by one member for the whole swarm. When the Hub does not
//     know the name, or can't be reached, a name that was seeded in the swarm is
//     taken, then the ref in the cache, and the result says so;
//  2. listing: the outline of the commit, from this node, another member or the
//     Hub, in this order; include and exclude patterns choose from it;
//  3. checking space, adopting: the cache makes sure that everything fits before
//     a byte moves, and takes over what is already on the disk;
//  4. fetching: the swarm brings the missing pieces, from members and, where this
//     member holds a seat, from upstream;
//  5. committing: links, trees/ and refs/ appear, and only then Ensure returns.
//
// One job runs for all callers that ask for the same ref with the same patterns.
// A caller that goes away leaves the job running, so that a repeated command
// finds it further on; a one-shot member asks for the opposite (Request.Tied).
//
// The package knows no flag, no file format and no concrete upstream: what it
// needs it declares as interfaces of a few methods. Errors are told apart by the
// Kind that Options.Classify gives them, because the types that know better
// belong to packages which this one must not import.
//
// # Control API
//
// Server speaks HTTP and JSON, Client is its other end; the two meet on a unix
// socket (Listen, Dial). The version is in the path, /v1/…; every answer carries
// "schema_version"; fields are only ever added.
//
//	GET    /v1/status               what this agent is and how it is
//	GET    /v1/jobs                 jobs that run, and the last that ended
//	GET    /v1/peers                the other members
//	GET    /v1/snapshots            what is in the cache
//	GET    /v1/snapshot?ref=R       one of them with its files
//	GET    /v1/inside/NAME          metrics, config, log, goroutines: as text, without secrets
//	POST   /v1/fetch                run Ensure; a stream
//	POST   /v1/seed                 hold and offer; a stream
//	POST   /v1/verify               hash a snapshot again; a stream
//	POST   /v1/remove               take a snapshot out of the cache
//	POST   /v1/prune                evict what may go; a stream
//	POST   /v1/pin, /v1/unpin       keep what a ref means from being evicted, or not any more
//	POST   /v1/reload               read the configuration again
//	POST   /v1/rollout              ask members to hold a snapshot; a stream
//
// A stream is lines of JSON, each with "type": "progress" at every change and at
// least every 2 s, and last one "result" or "error". A body that ends without
// either was cut off. An error has a kind, a message and perhaps a hint.
//
// Who may connect is decided by the socket's mode (0660). Removing, pruning,
// unpinning, reloading, rollouts and looking inside need more: the caller's uid must
// be the agent's own or root.
package agent
