// Package xet reads files from the Hub's content-addressed store.
//
// There a file is a list of terms; a term is a run of chunks of one xorb; a xorb
// is an immutable object of up to 64 MiB of chunk records, named by the Merkle
// root of its chunks. A reader asks the Hub for a token, the store (the CAS) for
// the reconstruction of a byte range of the file, and a CDN for the ranges of
// xorbs that the reconstruction signs. Three hosts, three credentials: a token is
// sent to the CAS alone, a signed URL is followed without any, and neither stands
// in a message or a log.
//
// The format is Hugging Face's; the specification is part of the Hub's public
// documentation (docs/xet).
//
// The official client compares lengths only. This one also compares
//
//   - every xorb with its name, as soon as all its chunks were read, over all
//     files of a snapshot (ledger);
//   - every file with its Xet hash, as soon as all its chunks were read;
//
// and what it hands out is compared with the SHA-256 of the Hub's listing by
// whoever stores it. Nothing here is believed before.
package xet
