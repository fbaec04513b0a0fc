package xet_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"p2pagent/pkg/pieces"
	"p2pagent/pkg/xet"
)

// noPlain is for sources that must do without.
type noPlain struct{}

func (noPlain) Open(context.Context, pieces.Blob, int64, int64) (io.ReadCloser, error) {
	return nil, errors.New("there is no plain HTTP here")
}

// TestAgainstAStore reads files that the official client uploaded to a store which
// is not ours; scripts/xet/run starts both.
func TestAgainstAStore(t *testing.T) {
	url := os.Getenv("P2PAGENT_XET_CAS")
	if url == "" {
		t.Skip("P2PAGENT_XET_CAS names no store: run scripts/xet/run")
	}
	raw, err := os.ReadFile(os.Getenv("P2PAGENT_XET_FILES"))
	if err != nil {
		t.Fatal(err)
	}
	var files []struct {
		Path, Xet string
		Size      int64
	}
	if err := json.Unmarshal(raw, &files); err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	transport := &http.Transport{DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := xet.New(xet.Options{Transport: transport, Insecure: true,
		Grant: func(context.Context, pieces.Repo, pieces.Commit) (xet.Grant, error) {
			return xet.Grant{Token: os.Getenv("P2PAGENT_XET_TOKEN"), CAS: url, Life: time.Hour}, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	outline := &pieces.Outline{}
	contents := make([][]byte, len(files))
	for i, f := range files {
		if contents[i], err = os.ReadFile(f.Path); err != nil {
			t.Fatal(err)
		}
		name, err := pieces.ParseDigest(f.Xet)
		if err != nil {
			t.Fatal(err)
		}
		blob := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(contents[i])), Size: f.Size}
		outline.Files = append(outline.Files, pieces.File{Path: filepath.Base(f.Path), Blob: blob, Xet: name})
	}
	source := func() *xet.Source {
		return c.NewSource(xet.SourceOptions{Outline: outline, Plain: noPlain{}, Only: true})
	}
	shared := source()
	for i, f := range outline.Files {
		read := func(t *testing.T, s *xet.Source, off, n int64) {
			rc, err := s.Open(t.Context(), f.Blob, off, n)
			if err != nil {
				t.Errorf("%d+%d: %v", off, n, err)
				return
			}
			defer rc.Close()
			if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, contents[i][off:off+n]) {
				t.Errorf("%d+%d: %d bytes, %v", off, n, len(got), err)
			}
		}
		size := f.Blob.Size
		t.Run(f.Path+" whole", func(t *testing.T) { read(t, shared, 0, size) })
		t.Run(f.Path+" in ranges", func(t *testing.T) {
			s, r := source(), rand.New(rand.NewPCG(1, 1))
			for range 20 {
				off := r.Int64N(size)
				read(t, s, off, 1+r.Int64N(min(size-off, 5<<20)))
			}
		})
		t.Run(f.Path+" by eight at once", func(t *testing.T) {
			var wg sync.WaitGroup
			s, part := source(), (size+7)/8
			for off := int64(0); off < size; off += part {
				wg.Go(func() { read(t, s, off, min(part, size-off)) })
			}
			wg.Wait()
		})
	}
}
