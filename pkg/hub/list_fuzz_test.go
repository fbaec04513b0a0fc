package hub

import (
	"encoding/json"
	"errors"
	"testing"

	"p2pagent/pkg/pieces"
)

func FuzzTree(f *testing.F) {
	f.Add([]byte(`[{"type":"directory","oid":"","size":0,"path":"a"},{"type":"file","oid":"0123456789abcdef0123456789abcdef01234567","size":3,"path":"a/b"}]`))
	f.Add([]byte(`[{"type":"file","oid":"0123456789abcdef0123456789abcdef01234567","size":3,"path":"w","lfs":{"oid":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":3,"pointerSize":132}}]`))
	f.Add([]byte(`[{"path":"../x"},{"size":-1},null,3,"x",{}]`))
	f.Add([]byte(`[{"type":"file","oid":null,"size":1e3,"path":"p","lfs":null}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var rows []json.RawMessage
		if json.Unmarshal(data, &rows) != nil {
			return
		}
		l := &listing{op: "list", seen: make(map[string]int), outline: &pieces.Outline{Repo: pieces.Repo{Name: "o/r"}, Commit: someCommit}}
		if err := l.add(rows); err != nil {
			var row *RowError
			if !errors.As(err, &row) || row.Row < 1 || row.Row > len(rows) || !errors.Is(err, pieces.ErrBadOutline) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		l.outline.Sort()
		if err := l.outline.Validate(); err != nil && !errors.Is(err, pieces.ErrBadPath) && !errors.Is(err, pieces.ErrBadOutline) {
			t.Fatalf("%q: %v", data, err)
		}
		for _, file := range l.outline.Files {
			if pieces.CheckPath(file.Path) != nil || file.Blob.Size < 0 || file.Blob.Digest.IsZero() {
				t.Fatalf("%q: %v", data, file)
			}
		}
	})
}
