package hub_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"time"

	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// model is the repository of most tests: LFS and git files, folders, odd names.
func model() hubtest.RepoSpec {
	return hubtest.RepoSpec{ID: "org/model", Files: []hubtest.File{
		{Path: "config.json", Content: hubtest.Bytes([]byte(`{"architectures":["Tiny"]}`))},
		{Path: "empty.txt", Content: hubtest.Bytes(nil)},
		{Path: "one", Content: hubtest.Bytes([]byte{1})},
		{Path: "sub/dir/tok+x #1 é.json", Content: hubtest.Bytes([]byte("odd name"))},
		{Path: "model-00001-of-00002.safetensors", Content: hubtest.Generated(1, 5<<20)},
		{Path: "model-00002-of-00002.safetensors", Content: hubtest.Generated(2, 1<<20+3)},
	}}
}

func ref(s string) pieces.Ref {
	r, err := pieces.ParseRef(s)
	if err != nil {
		panic(err)
	}
	return r
}

func newClient(t *testing.T, o hub.Options) *hub.Client {
	t.Helper()
	c, err := hub.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// readAll opens a section and reads it to its end.
func readAll(t *testing.T, c *hub.Client, o *pieces.Outline, f pieces.File, off, n int64) ([]byte, error) {
	t.Helper()
	rc, err := c.Open(t.Context(), o.Repo, o.Commit, f, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func contextWithCause(t *testing.T, d time.Duration, why error) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(t.Context(), d, why)
}

func file(t *testing.T, o *pieces.Outline, path string) pieces.File {
	t.Helper()
	for _, f := range o.Files {
		if f.Path == path {
			return f
		}
	}
	t.Fatalf("no file %q in %v", path, o.Files)
	return pieces.File{}
}

func TestWholeModel(t *testing.T) {
	s := hubtest.New(hubtest.Options{PageSize: 2})
	want := s.AddRepo(model())
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	commit, _, err := c.Resolve(t.Context(), ref("org/model"))
	if err != nil || commit != want {
		t.Fatalf("got %s, %v, want %s", commit, err, want)
	}
	o, err := c.List(t.Context(), ref("org/model").Repo, commit)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Files) != 6 {
		t.Fatalf("got %d files, want 6: %v", len(o.Files), o.Files)
	}
	for _, f := range o.Files {
		data, err := readAll(t, c, o, f, 0, f.Blob.Size)
		h := f.Blob.NewHash()
		h.Write(data)
		if err == nil {
			err = f.Blob.Check(h)
		}
		if err != nil {
			t.Errorf("%s: %v", f.Path, err)
		}
	}
	st := s.Stats()
	if st.Copies != 1 || st.MaxCoverage != 1 || st.TokensAtCDN != 0 {
		t.Errorf("copies %v, max coverage %d, tokens at CDN %d", st.Copies, st.MaxCoverage, st.TokensAtCDN)
	}
	if st.Calls[hubtest.Info] != 1 || st.Calls[hubtest.Tree] != 4 || st.Calls[hubtest.Head] != 2 || st.Calls[hubtest.CDN] != 2 {
		t.Errorf("calls %v", st.Calls)
	}
}

func TestRanges(t *testing.T) {
	s := hubtest.New(hubtest.Options{})
	commit := s.AddRepo(model())
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	o := s.Outline("org/model", commit)
	for path, content := range map[string]hubtest.Content{
		"model-00001-of-00002.safetensors": hubtest.Generated(1, 5<<20),
		"config.json":                      hubtest.Bytes([]byte(`{"architectures":["Tiny"]}`)),
	} {
		f := file(t, o, path)
		for _, r := range [][2]int64{{0, 1}, {0, f.Blob.Size}, {f.Blob.Size - 1, 1}, {7, 11}, {f.Blob.Size / 2, f.Blob.Size / 3}, {3, 0}} {
			want := make([]byte, r[1])
			content.ReadAt(want, r[0])
			got, err := readAll(t, c, o, f, r[0], r[1])
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s %v: %d bytes, %v", path, r, len(got), err)
			}
		}
		for _, r := range [][2]int64{{-1, 1}, {0, f.Blob.Size + 1}, {f.Blob.Size, 1}, {0, -1}} {
			if _, err := readAll(t, c, o, f, r[0], r[1]); err == nil {
				t.Errorf("%s %v: no error", path, r)
			}
		}
	}
}
