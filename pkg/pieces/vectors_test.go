package pieces

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"
)

// vectors reads testdata/vectors.txt, which testdata/vectors.py computed without
// any of this code: "name value" lines.
func vectors(t testing.TB) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for line := range strings.Lines(string(raw)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			t.Fatalf("vectors.txt: %q", line)
		}
		out[name] = value
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testSigner has the seed 00 01 … 1f.
func testSigner() Signer {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	return NewSigner(ed25519.NewKeyFromSeed(seed))
}

// golden is the snapshot of vectors.py: a git file and one of three pieces.
type golden struct {
	config, weights []byte
	files           []File
	outline         Outline
	statements      []Statement // on the weights
	manifest        Manifest
}

func newGolden(t testing.TB) golden {
	g := golden{config: []byte("{\"a\": 1}\n"), weights: make([]byte, 2*smallPiece+5)}
	for i := range g.weights {
		g.weights[i] = byte(i % 251 * 7 % 251)
	}
	config := Blob{Digest: gitDigest(g.config), Size: int64(len(g.config))}
	weights := Blob{Digest: SHA256Digest(sha256.Sum256(g.weights)), Size: int64(len(g.weights))}
	repo, err := ParseRepo("org/name")
	if err != nil {
		t.Fatal(err)
	}
	g.files = []File{
		{Path: "config.json", Blob: config, OID: config.Digest},
		{Path: "weights/model.safetensors", Blob: weights, OID: gitDigest([]byte("a pointer\n"))},
	}
	g.outline = Outline{Repo: repo, Commit: "0123456789abcdef0123456789abcdef01234567", Files: g.files}
	g.statements = cutAll(t, weights, g.weights)
	g.manifest = Manifest{Outline: g.outline, Proofs: []Proofs{
		{Blob: config, Statements: cutAll(t, config, g.config)},
		{Blob: weights, Statements: []Statement{g.statements[0], g.statements[2]}},
	}}
	return g
}

func gitDigest(content []byte) Digest {
	h := Blob{Digest: Digest{size: 20}, Size: int64(len(content))}.NewHash()
	h.Write(content)
	d, err := digestOf(h.Sum(nil))
	if err != nil {
		panic(err)
	}
	return d
}

func cutAll(t testing.TB, b Blob, content []byte) []Statement {
	var out []Statement
	c, r := NewCutter(testSigner(), b, 0, b.Pieces(), nil), bytes.NewReader(content)
	for range b.Pieces() {
		v, err := c.Next(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v.Statement())
	}
	return out
}

func TestVectorsOfNames(t *testing.T) {
	v, g := vectors(t), newGolden(t)
	maker := testSigner().Maker()
	for name, got := range map[string]string{
		"maker":          hex.EncodeToString(maker[:]),
		"cid-empty":      IDOf(nil).String(),
		"cid-hello":      IDOf([]byte("hello world")).String(),
		"cid-piece":      g.statements[0].ID.String(),
		"git-digest":     gitDigest([]byte("hello world\n")).String(),
		"weights-digest": g.files[1].Blob.String(),
		"extent-run":     keyOf(Span{g.files[1].Blob, 0, 2}),
		"extent-bundle": keyOf(Span{g.files[0].Blob, 0, 1},
			Span{Blob{SHA256Digest(sha256.Sum256([]byte("x"))), 1}, 0, 1}),
	} {
		if got != v[name] {
			t.Errorf("%s is %s, want %s", name, got, v[name])
		}
	}
}

func keyOf(spans ...Span) string {
	k := Extent{Spans: spans}.Key()
	return hex.EncodeToString(k[:])
}

func TestVectorOfOutline(t *testing.T) {
	want, g := unhex(t, vectors(t)["outline"]), newGolden(t)
	got, err := g.outline.Marshal()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("outline is\n%x, %v, want\n%x", got, err, want)
	}
	back, err := ParseOutline(want)
	if err != nil || !reflect.DeepEqual(*back, g.outline) {
		t.Errorf("parsed to %+v, %v", back, err)
	}
}

func TestVectorOfStatements(t *testing.T) {
	want, g := unhex(t, vectors(t)["statements"]), newGolden(t)
	got, err := MarshalStatements(g.statements)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("statements are\n%x, %v, want\n%x", got, err, want)
	}
	back, err := ParseStatements(g.files[1].Blob, want)
	if err != nil || !reflect.DeepEqual(back, g.statements) {
		t.Errorf("parsed to %+v, %v", back, err)
	}
}

func TestVectorOfManifest(t *testing.T) {
	v, g := vectors(t), newGolden(t)
	want := unhex(t, v["manifest"])
	got, err := g.manifest.Marshal()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("manifest is\n%x, %v, want\n%x", got, err, want)
	}
	if got := ManifestCID(want).String(); got != v["manifest-cid"] {
		t.Errorf("its CID is %s, want %s", got, v["manifest-cid"])
	}
	back, err := ParseManifest(want)
	if err != nil || !reflect.DeepEqual(*back, g.manifest) {
		t.Errorf("parsed to %+v, %v", back, err)
	}
	if back.Full() {
		t.Error("full without piece 1 of the weights")
	}
	back.Proofs[1].Statements = g.statements
	if !back.Full() {
		t.Error("not full with every statement")
	}
}
