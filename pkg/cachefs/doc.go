// Package cachefs is the disk of a member: pieces come in, whole blobs appear in
// the Hub's own cache layout, and nothing is believed that can't be proved.
//
// It works in two folders on one mount. Hub clients read the first, the cache
// (HF_HUB_CACHE); its layout is theirs, byte for byte:
//
//	CACHEDIR.TAG
//	models--org--name/
//	  blobs/<digest>
//	  snapshots/<commit>/dir/file -> ../../../../blobs/<digest>
//	  trees/<commit>.json          only of full snapshots
//	  refs/main                    40 digits, no newline
//
// Where links don't work the files of a snapshot are the blobs themselves and blobs/
// is empty, as clients do it (plain.go). Nothing unfinished ever lies there. The second, the state, is ours alone:
//
//	lock                        held while open; holds the process id
//	tmp/                        what is being made; emptied at Open
//	partial/<digest>.<nonce>    data of a partial blob, preallocated to its full length
//	partial/<digest>.journal    which of its pieces are on disk for certain; names the nonce
//	proof/<digest>              where a whole blob lies, in which state its file was, its statements
//	outline/<repo>/<commit>     the listing of a committed snapshot
//	removal/<repo>@<commit>     that this snapshot is being removed, and its blobs
//
// journal.go, proof.go and removal.go have the formats.
//
// # What is believed
//
// A piece is held when it was written; it is believed after a restart when the
// journal names it, and the journal names it only after the data was synced (Run:
// every 64 MiB or two seconds). A blob of one piece has no journal. A blob is
// whole when its digest, which runs along as pieces come in and is kept in the
// journal too, was right and its file was synced; only then it is renamed into
// blobs/. A restarted member offers it without hashing it again when a proof names
// the inode, length and modification time that the file still has. Any other file
// in blobs/ is hashed before it is used, and replaced, in one rename, when it is
// wrong. What rots on disk after it was hashed is found by Verify, or by the
// member that gets the piece.
//
// After a failed sync nothing is believed that it covered, nothing more is
// written, and Run returns the error: start the process again. A full disk is
// another matter: *NoSpaceError, and everything goes on when there is room.
//
// # Who else is there
//
// One agent uses a cache: it locks the folder, and the state's lock file. Hub
// clients may read and write it at any time; their .locks are neither taken nor
// waited for (InUse looks at them before something is removed), since correctness comes from unique names and renames, theirs as
// ours. Their temporary files are never read and never removed. Nothing from a
// listing reaches the disk before pieces.CheckPath passed it, all paths go through
// an os.Root, and no folder on the way to an entry may be a link.
package cachefs
