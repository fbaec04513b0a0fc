package cachefs

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
)

var repoA = pieces.Repo{Kind: pieces.Model, Name: "org/name"}

const commitA = pieces.Commit("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

func signer(seed byte) pieces.Signer {
	return pieces.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
}

func randomBytes(seed uint64, n int) []byte {
	out := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(out)
	return out
}

func lfsFile(path string, data []byte) pieces.File {
	b := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(data)), Size: int64(len(data))}
	return pieces.File{Path: path, Blob: b, OID: pointerDigest(b)}
}

func gitFile(path string, data []byte) pieces.File {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(data)), data...))
	d, err := pieces.ParseDigest(hex.EncodeToString(sum[:]))
	if err != nil {
		panic(err)
	}
	return pieces.File{Path: path, Blob: pieces.Blob{Digest: d, Size: int64(len(data))}, OID: d}
}

// model is a snapshot whose content is known.
type model struct {
	outline *pieces.Outline
	content map[pieces.Blob][]byte
}

func newModel(repo pieces.Repo, commit pieces.Commit, lfs, git map[string][]byte) model {
	m := model{outline: &pieces.Outline{Repo: repo, Commit: commit}, content: map[pieces.Blob][]byte{}}
	for path, data := range lfs {
		m.add(lfsFile(path, data), data)
	}
	for path, data := range git {
		m.add(gitFile(path, data), data)
	}
	m.outline.Sort()
	return m
}

func (m model) add(f pieces.File, data []byte) {
	m.outline.Files = append(m.outline.Files, f)
	m.content[f.Blob] = data
}

func (m model) blobs() []pieces.Blob { return pieces.Blobs(m.outline.Files) }

// cut returns a blob's pieces as upstream would give them.
func cut(t testing.TB, b pieces.Blob, data []byte) []pieces.Verified {
	t.Helper()
	c := pieces.NewCutter(signer(1), b, 0, b.Pieces(), nil)
	r := bytes.NewReader(data)
	var out []pieces.Verified
	for {
		v, err := c.Next(r)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
}

// rig is a cache in folders of its own.
type rig struct {
	hub, state string
	sys        system
	log        *slog.Logger
}

// newRig puts them where syncs cost nothing; newDiskRig on a real filesystem.
func newRig(t testing.TB) *rig {
	leaktest.Check(t)
	return rigIn(t, memoryDir(t))
}

func newDiskRig(t testing.TB) *rig { return rigIn(t, t.TempDir()) }

func rigIn(t testing.TB, dir string) *rig {
	r := &rig{hub: filepath.Join(dir, "hub"), state: filepath.Join(dir, "state"), sys: system{flock: flock, free: freeBytes}}
	if _, bench := t.(*testing.B); !bench {
		r.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	return r
}

func (r *rig) open(t testing.TB) *Cache {
	t.Helper()
	c, err := open(Options{Hub: r.hub, State: r.state, Signer: signer(2), Logger: r.log}, r.sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// fetch does what a job does: begin, put what is missing, complete, commit.
func fetch(ctx context.Context, t testing.TB, c *Cache, m model, revision string) (string, error) {
	t.Helper()
	if err := c.Begin(ctx, m.outline.Repo, m.blobs()); err != nil {
		return "", err
	}
	for _, b := range m.blobs() {
		if c.Has(m.outline.Repo, b) {
			continue
		}
		for _, v := range cut(t, b, m.content[b]) {
			if err := c.Put(ctx, v); err != nil {
				return "", err
			}
		}
		if err := c.Complete(ctx, b); err != nil {
			return "", err
		}
	}
	return c.Commit(ctx, m.outline, m.outline.Files, revision)
}

func mustFetch(t testing.TB, c *Cache, m model, revision string) string {
	t.Helper()
	dir, err := fetch(t.Context(), t, c, m, revision)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func smallModel() model {
	return newModel(repoA, commitA,
		map[string][]byte{"model.safetensors": randomBytes(1, 9<<20), "sub/dir/deep/w.bin": randomBytes(2, 100)},
		map[string][]byte{"config.json": []byte("{}"), "sub/empty": {}, "sub/readme.md": []byte("hello")})
}

func checkSnapshot(t testing.TB, dir string, m model) {
	t.Helper()
	for _, f := range m.outline.Files {
		got, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, m.content[f.Blob]) {
			t.Errorf("%s: wrong content", f.Path)
		}
	}
}

func TestFetch(t *testing.T) {
	r, m := newDiskRig(t), smallModel()
	c := r.open(t)
	dir := mustFetch(t, c, m, "main")
	checkSnapshot(t, dir, m)
	for _, b := range m.blobs() {
		if !c.Has(repoA, b) || !c.Held(b).Full() || len(c.Statements(b)) != b.Pieces() {
			t.Errorf("%s is not whole", b)
		}
	}
	s, err := c.Snapshot(pieces.Ref{Repo: repoA, Revision: "main"})
	if err != nil || !s.Complete || s.Path != dir || s.Commit != commitA {
		t.Errorf("snapshot %+v, %v", s, err)
	}
	problems, err := c.Verify(t.Context(), pieces.Ref{Repo: repoA, Revision: "main"}, nil)
	if err != nil || len(problems) > 0 {
		t.Errorf("verify: %v, %v", problems, err)
	}
	freed, err := c.Remove(pieces.Ref{Repo: repoA, Revision: "main"}, nil)
	if err != nil || freed < 9<<20 {
		t.Errorf("freed %d, %v", freed, err)
	}
	left, _ := os.ReadDir(r.hub)
	if len(left) != 1 {
		t.Errorf("left after remove: %v", left)
	}
}
