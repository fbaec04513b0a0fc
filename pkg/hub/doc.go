// Package hub reads models and datasets from the Hugging Face Hub over HTTP.
//
// A Client resolves a revision to a commit, lists a commit, and opens byte
// ranges of its files. It stores nothing, verifies no digest (pieces does) and
// starts no goroutine that outlives a call.
//
// What it promises:
//
//   - Every wait has a bound: dial, TLS, response headers, a whole API call, and,
//     through a stall.Reader, every pause within a body.
//   - API calls are retried here, with a bounded back-off. Bodies are not: the
//     reader gets the error and resumes with another Open at the first byte it
//     lacks. The one exception is a signed URL that has expired: Open resolves
//     it anew once.
//   - The token goes to the configured scheme, host and port alone. Redirects are
//     followed by hand, because net/http keeps the Authorization header for
//     another port of the same name and for sub-domains.
//   - A host on the Internet can't send this client to a private address.
//   - What a response says must agree with the listing before a byte is read.
//   - Every error answers Permanent() bool through errors.As, and RetryAfter()
//     where the Hub said so. No message holds a token or a query string: the
//     query is where a signed URL carries its secret.
//
// Requests use HTTP/1.1: a range has a TCP connection of its own, so that
// closing a stalled one frees it and hurts no other.
package hub
