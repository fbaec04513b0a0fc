package xet

// The footer of a stored xorb, version 1: fixed bytes, a hash and two offsets for
// each chunk, and its length behind all. Readers of a file never get it; it is why a
// xorb is longer than its records.
const (
	footerFixed = 92
	footerChunk = 32 + 4 + 4
	footerTail  = 4
)

// footerIdent begins it.
var footerIdent = []byte("XETBLOB")

// FooterLength returns how long the footer of a xorb of n chunks is, in bytes,
// with the four that hold its length.
func FooterLength(n int) int64 { return footerFixed + footerTail + footerChunk*int64(n) }
