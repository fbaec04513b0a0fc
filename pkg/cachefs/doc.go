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
// Nothing unfinished ever lies there. The second, the state, is ours alone:
//
//	lock                      held while open; holds the process id
//	tmp/                      what is being made; emptied at Open
//	partial/<digest>          data of a partial blob, at its full length
//	partial/<digest>.journal  which of its pieces are on disk for certain
//	proof/<digest>            where a whole blob lies, in which state its file was, and its statements
//	outline/<repo>/<commit>   the listing of a committed snapshot
//
// # What is believed
//
// A piece is held when it was written; it is believed after a restart when the
// journal names it, and the journal names it only after the data was synced
// (Run, every 64 MiB or two seconds). A blob is whole when its digest was right
// and its file was synced; only then it is renamed into blobs/. A restarted
// member offers it without hashing it again when a proof names the inode, length
// and modification time that the file still has. Any other file in blobs/ is
// hashed before it is used, and replaced, in one rename, when it is wrong.
//
// After a failed sync nothing is believed that it covered, nothing more is
// written, and Run returns the error: start the process again.
package cachefs
