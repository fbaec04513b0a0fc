// Package hubtest is a Hugging Face Hub in a box: for tests, in a synctest bubble
// or on loopback, and for stand-alone demonstrations and labs.
//
// A Server answers what the Hub answers when somebody reads: repository
// information, paged listings, refs, files. Files above a size are LFS files: a
// HEAD or GET of them is redirected to a second host, the CDN, by a signed URL
// that expires. What it serves comes from bytes, from a generator that needs no
// memory (a 60 GB model costs nothing), or from files on disk.
//
// It counts: calls by route, and body bytes by byte range of each file, so that
// a test can say "every byte of this model left the Hub once" (Stats.Copies,
// Stats.MaxCoverage) and mean it.
//
// It fails on request: a Fault stalls, cuts, resets, lies, slows down or refuses
// the n-th request of a kind.
//
// Misuse (a repository name that can't be, a file without content) panics: a
// fixture that is wrong has no caller that could handle it.
package hubtest
