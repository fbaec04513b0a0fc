// Package minicas shows a file as the Hub's content-addressed store shows it, for
// clients that read nothing else: the reconstruction, the xorbs, and sealed
// grants to read them. It has no I/O and no clock.
//
// Nothing of the real store is needed for that. A client believes the
// reconstruction: hf_xet 1.8.0 compares lengths alone (xet-core
// xet_data/src/file_reconstruction), and no answer of the store has a hash of a
// chunk. So the file keeps the name that the Hub gave it, and its xorbs are made
// up: MaxPlain bytes of the file each, as chunks of ChunkSize that are stored as
// they are. A xorb's name says which part of which blob it is; it is no hash of
// its content, which is not here yet when the client asks.
//
// Forms: https://huggingface.co/docs/xet (api, xorb).
package minicas
