package cachefs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"p2pagent/pkg/pieces"
)

// encodeTree writes the listing as huggingface_hub's write_tree_cache does, byte
// for byte: json.dump(indent=1), keys sorted, ASCII only. It leaves out xet_hash,
// which alone would send a client to Xet storage without a way back.
//
// files are in the outline's order, which is that of the bytes of the paths; of
// valid UTF-8 it is the same as that of the code points, by which Python sorts.
func encodeTree(files []pieces.File) []byte {
	if len(files) == 0 {
		return []byte("{\n \"format_version\": 1,\n \"files\": {}\n}")
	}
	var out bytes.Buffer
	out.WriteString("{\n \"format_version\": 1,\n \"files\": {")
	for i, f := range files {
		if i > 0 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "\n  %s: {\n   \"size\": %d,\n   \"blob_id\": \"%s\"", quoteASCII(f.Path), f.Blob.Size, f.OID)
		if f.LFS() {
			fmt.Fprintf(&out, ",\n   \"lfs_sha256\": \"%s\",\n   \"lfs_size\": %d", f.Blob.Digest, f.Blob.Size)
		}
		out.WriteString("\n  }")
	}
	out.WriteString("\n }\n}")
	return out.Bytes()
}

// quoteASCII is Python's json.dumps of a string: everything outside printable
// ASCII as \uXXXX, astral characters as two of them.
func quoteASCII(s string) string {
	out := []byte{'"'}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r >= 0x20 && r < 0x7f:
			out = append(out, byte(r))
		case r >= 0x10000:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return string(append(out, '"'))
}

// maxTreeBytes bounds a listing in the cache: JSON with escaped names takes some
// times what our own encoding does.
const maxTreeBytes = 4 * pieces.MaxOutlineBytes

var errTree = errors.New("not a tree listing")

type treeEntry struct {
	Size      int64  `json:"size"`
	BlobID    string `json:"blob_id"`
	LFSSHA256 string `json:"lfs_sha256"`
	LFSSize   int64  `json:"lfs_size"`
}

// parseTree reads a listing that a Hub client or encodeTree wrote.
func parseTree(raw []byte, repo pieces.Repo, commit pieces.Commit) (*pieces.Outline, error) {
	if !utf8.Valid(raw) {
		return nil, errTree
	}
	var tree struct {
		Version int                  `json:"format_version"`
		Files   map[string]treeEntry `json:"files"`
	}
	if err := json.Unmarshal(raw, &tree); err != nil {
		return nil, fmt.Errorf("%w: %w", errTree, err)
	}
	if tree.Version != 1 {
		return nil, fmt.Errorf("version %d: %w", tree.Version, errTree)
	}
	o := &pieces.Outline{Repo: repo, Commit: commit}
	for path, e := range tree.Files {
		f, err := e.file(path)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", strconv.Quote(path), err)
		}
		o.Files = append(o.Files, f)
	}
	o.Sort()
	return o, o.Validate()
}

func (e treeEntry) file(path string) (pieces.File, error) {
	oid, err := pieces.ParseDigest(e.BlobID)
	if err != nil {
		return pieces.File{}, err
	}
	f := pieces.File{Path: path, OID: oid, Blob: pieces.Blob{Digest: oid, Size: e.Size}}
	if e.LFSSHA256 == "" {
		return f, nil
	}
	sum, err := pieces.ParseDigest(e.LFSSHA256)
	f.Blob = pieces.Blob{Digest: sum, Size: e.LFSSize}
	return f, err
}
