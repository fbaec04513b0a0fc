package cachefs

import (
	"path"
	"strings"

	"p2pagent/pkg/pieces"
)

// Names in the Hub's cache, relative to its root.

const (
	tagName      = "CACHEDIR.TAG"
	blobsDir     = "blobs"
	snapshotsDir = "snapshots"
	refsDir      = "refs"
	treesDir     = "trees"
	noExistDir   = ".no_exist"
)

// tagContent is what huggingface_hub writes (since 1.9.0), byte for byte: two
// programs that share the cache must not take turns in rewriting it.
const tagContent = "Signature: 8a477f597d28d172789f06886806bc55\n" +
	"# This file is a cache directory tag created by huggingface_hub.\n" +
	"# For information about cache directory tags, see:\n" +
	"#\thttps://bford.info/cachedir/\n"

func blobsOf(folder string) string { return path.Join(folder, blobsDir) }

func blobName(folder string, d pieces.Digest) string {
	return path.Join(folder, blobsDir, d.String())
}

func snapshotName(folder string, commit pieces.Commit) string {
	return path.Join(folder, snapshotsDir, string(commit))
}

func treeName(folder string, commit pieces.Commit) string {
	return path.Join(folder, treesDir, string(commit)+".json")
}

func refName(folder, revision string) string { return path.Join(folder, refsDir, revision) }

// linkTarget returns what the link of a file in a snapshot holds: relative, so
// that the cache may be mounted elsewhere, and one ".." for each folder between
// the link and the repository: its own depth and snapshots/<commit>.
func linkTarget(file string, d pieces.Digest) string {
	return strings.Repeat("../", strings.Count(file, "/")+2) + path.Join(blobsDir, d.String())
}
