// Package layout knows which chunks of which xorbs a file of the Hub's
// content-addressed store is made of, and what of a new file other files that are
// here have therefore already.
//
// A Layout is what the store says of a file. Two files that name the same chunk of
// the same xorb have the same bytes there; a Delta says where. An Index remembers
// the layouts of files that are here, so that a new one can be asked which of them
// have something of it: of the same repository or of any other.
//
// A layout is a hint, whoever gave it. What is copied by it is compared with what
// was known of the older file, and the file that is made with the digest that the
// Hub published.
package layout
