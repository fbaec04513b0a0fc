// Package gateway is a Hub for the clients of one node: HF_ENDPOINT points at it,
// and what they ask for is brought here by the swarm and ends in the cache.
//
// It answers what is read of a Hub, in the Hub's own forms: repository
// information, listings, refs, files. Everything about a commit comes from its
// outline, so a HEAD is answered before a byte of the file is here. Xet fields are
// not passed on: a client that saw one would fetch past the gateway.
//
// # Files that are still landing
//
// A GET is served from pieces as they are verified, in the order in which the
// client reads. What it waits for is brought first. The response headers wait up
// to HeaderWait for the first byte; when none comes the answer is 429 with
// Retry-After, which clients repeat, and nothing else that they would not. After
// that some bytes flow every StepWait as long as there are any: clients take ten
// silent seconds for a dead connection. So a body keeps some of what it could send
// back, and gives it out in small steps while it waits for more.
//
// The last byte comes only with the whole file, whose digest was compared. When
// the digest is wrong the connection is reset, which makes clients throw away what
// they have; after a mere closing they would go on behind it.
//
// Finished files leave by sendfile.
//
// # Who may read
//
// What the Hub shows to everybody is served to everybody on this node. For a
// gated or private repository the Hub is asked with the caller's own token whether
// it may read it, once in ten minutes; the token is kept as a keyed hash only. Where
// this node has no right of its own the caller's fetches what the caller asks for.
// The operator can list repositories that are open to every process of the node.
// Requests that a web page could cause are refused, by their Host header.
package gateway
