// Package pieces holds the words of p2pagent: what a model, a blob, a piece
// and a proof are.
//
// It imports nothing else of ours, starts no goroutine, reads no clock and does
// no I/O beyond the io.Reader it is handed. Every value that crosses a package
// border is a type of its own, comparable with == where that makes sense.
//
// The chain of belief, from the outside in:
//
//   - a Ref is what a user types; it resolves to a Commit;
//   - an Outline is what the Hub states about a commit: paths, sizes, digests;
//   - a Blob is the content of one file, named by the digest in the Outline;
//   - a piece is a fixed-size slice of a blob, named by an ID (its SHA-256);
//   - a Statement, signed by the member that cut the piece from upstream, says
//     "piece i of blob b has id c";
//   - Verified is bytes together with the Statement that proves them. Only
//     Cutter and Verify make one, so an unchecked byte has no type that a store
//     accepts.
//
// Everything that is encoded is canonical CBOR (RFC 8949, section 4.2.1), and
// decoding refuses anything that does not encode back to the same bytes: one
// meaning has one byte string, so a hash over it means something.
package pieces
