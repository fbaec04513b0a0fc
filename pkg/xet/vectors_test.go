package xet

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// vector reads a file of the published vectors. They have several owners and are
// not part of this repository: without the folder the test is skipped.
func vector(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv("P2PAGENT_XET_VECTORS")
	if dir == "" {
		t.Skip("P2PAGENT_XET_VECTORS names no folder with the published vectors")
	}
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func jsonVector[T any](t *testing.T, name string) (v T) {
	t.Helper()
	if err := json.Unmarshal(vector(t, name), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorGear(t *testing.T) {
	v := jsonVector[struct{ Table []string }](t, "gearhash_table.json")
	if len(v.Table) != len(gear) {
		t.Fatalf("%d numbers", len(v.Table))
	}
	for i, s := range v.Table {
		if got := fmt.Sprintf("%016x", gear[i]); got != s {
			t.Errorf("%d: %s, want %s", i, got, s)
		}
	}
}

func TestVectorMerkle(t *testing.T) {
	v := jsonVector[struct {
		Cases []struct {
			Leaves [][2]any
			Xorb   string      `json:"xorb_hash"`
			Files  [][2]string `json:"salt_filehash"`
		}
	}](t, "merkle.json")
	if len(v.Cases) < 18 {
		t.Fatalf("%d cases", len(v.Cases))
	}
	for i, c := range v.Cases {
		var leaves []Node
		for _, l := range c.Leaves {
			leaves = append(leaves, Node{parsed(t, l[0].(string)), uint64(l[1].(float64))})
		}
		root := Root(leaves)
		if root.String() != c.Xorb {
			t.Errorf("case %d of %d leaves: %s, want %s", i, len(leaves), root, c.Xorb)
		}
		for _, f := range c.Files {
			got := Hash{}
			if len(leaves) > 0 {
				got = newKeyed(parsed(t, f[0])).sum(root[:])
			}
			if got.String() != f[1] {
				t.Errorf("case %d salt %s: %s, want %s", i, f[0], got, f[1])
			}
			if f[0] == (Hash{}).String() && FileHash(leaves).String() != f[1] {
				t.Errorf("case %d: file %s, want %s", i, FileHash(leaves), f[1])
			}
		}
	}
}

func TestVectorHashes(t *testing.T) {
	v := jsonVector[struct {
		Keys  map[string]string
		Chunk []struct {
			ASCII string
			XET   string
			List  []string `json:"xet_list"`
		} `json:"chunk_hash"`
		Verification []struct {
			Raw []string `json:"chunks_raw"`
			Xet []string `json:"chunks_xet"`
			XET string
		}
		HMAC []struct {
			Hash string `json:"hash_xet"`
			Key  string `json:"key_xet"`
			XET  string
		}
		BG4 []struct{ In, Grouped string }
	}](t, "hashes.json")
	if raw(t, v.Keys["DATA_KEY"]) != Hash(dataKey) || raw(t, v.Keys["INTERNAL_NODE_KEY"]) != Hash(nodeKey) {
		t.Error("keys differ")
	}
	for _, c := range v.Chunk {
		if c.ASCII != "" && ChunkHash([]byte(c.ASCII)).String() != c.XET {
			t.Errorf("chunk %q", c.ASCII)
		}
		if c.List == nil {
			continue
		}
		var got []string
		for _, n := range chunksOf(Current, splitmix64(0, 1_000_000)) {
			got = append(got, n.Hash.String())
		}
		if !slices.Equal(got, c.List) {
			t.Error("chunks of splitmix64 differ")
		}
	}
	for _, c := range v.Verification {
		var all []byte
		for _, s := range c.Raw {
			h := raw(t, s)
			all = append(all, h[:]...)
		}
		for _, s := range c.Xet {
			h := parsed(t, s)
			all = append(all, h[:]...)
		}
		if got := newKeyed(raw(t, v.Keys["VERIFICATION_KEY"])).sum(all).String(); got != c.XET {
			t.Errorf("verification %s, want %s", got, c.XET)
		}
	}
	for _, c := range v.HMAC {
		h := parsed(t, c.Hash)
		if got := newKeyed(parsed(t, c.Key)).sum(h[:]).String(); got != c.XET {
			t.Errorf("keyed chunk hash %s, want %s", got, c.XET)
		}
	}
	for _, c := range v.BG4 {
		in, _ := hex.DecodeString(c.In)
		grouped := make([]byte, len(in))
		if Regroup(grouped, in); hex.EncodeToString(grouped) != c.Grouped {
			t.Errorf("%s: grouped %x", c.In, grouped)
		}
	}
}

func TestVectorCuts(t *testing.T) {
	v := jsonVector[struct {
		Cases []struct {
			Name         string
			Ends, Legacy []int
		}
		Triggering struct {
			N       int
			Pattern []int
			Ends    [][]int
			Legacy  map[int][]int `json:"legacy_ends_that_differ"`
		}
	}](t, "chunk_boundaries.json")
	check := func(name string, data []byte, current, legacy []int) {
		t.Helper()
		if got := ends(Current, data); !slices.Equal(got, current) {
			t.Errorf("%s: %v, want %v", name, got, current)
		}
		if got := ends(Legacy, data); legacy != nil && !slices.Equal(got, legacy) {
			t.Errorf("%s, legacy: %v, want %v", name, got, legacy)
		}
	}
	for i, data := range [][]byte{splitmix64(0, 1_000_000), bytes.Repeat([]byte{59}, 1_000_000)} {
		check(v.Cases[i].Name, data, v.Cases[i].Ends, v.Cases[i].Legacy)
	}
	var pattern []byte
	for _, b := range v.Triggering.Pattern {
		pattern = append(pattern, byte(b))
	}
	for padding, want := range v.Triggering.Ends {
		data := append(bytes.Clone(pattern), make([]byte, padding)...)
		for n := v.Triggering.N; len(data) < n; {
			data = append(data, data[:min(n-len(data), len(data))]...)
		}
		check(fmt.Sprintf("padding %d", padding), data, want, legacyOf(v.Triggering.Legacy, padding, want))
	}
}

func legacyOf(differs map[int][]int, padding int, same []int) []int {
	if ends, ok := differs[padding]; ok {
		return ends
	}
	return same
}

// The reference file of the specification: 63,527,244 bytes, here as its list of
// chunks and the first ten records of its one xorb.
func TestVectorReferenceFile(t *testing.T) {
	var chunks []Node
	lines := bufio.NewScanner(bytes.NewReader(vector(t, "ev-population.csv.chunks")))
	for lines.Scan() {
		var text string
		var n uint64
		if _, err := fmt.Sscan(lines.Text(), &text, &n); err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, Node{parsed(t, text), n})
	}
	if got := Root(chunks).String(); len(chunks) != 796 || got != "eea25d6ee393ccae385820daed127b96ef0ea034dfb7cf6da3a950ce334b7632" {
		t.Errorf("%d chunks, xorb %s", len(chunks), got)
	}
	if got := FileHash(chunks).String(); got != "118a53328412787fee04011dcf82fdc4acf3a4a1eddec341c910d30a306aaf97" {
		t.Errorf("file %s", got)
	}
	if got := FooterLength(len(chunks)); got != 14769749-14737813 {
		t.Errorf("footer of %d bytes", got)
	}
	d := NewRecords()
	d.Reset(bytes.NewReader(vector(t, "ev-population.xorb.first-10-chunks")))
	for i := range 10 {
		plain, hash, err := d.Next()
		if err != nil || hash != chunks[i].Hash || uint64(len(plain)) != chunks[i].Size {
			t.Errorf("record %d: %s of %d bytes, %v", i, hash, len(plain), err)
		}
		if i == 1 && d.Stored() != 50469 {
			t.Errorf("two records of %d bytes", d.Stored())
		}
	}
	if _, _, err := d.Next(); err != io.EOF {
		t.Errorf("behind them: %v", err)
	}
}

// Records that huggingface.js encoded.
func TestVectorForeignEncoder(t *testing.T) {
	v := jsonVector[struct {
		Input   struct{ SHA256 string }
		Records []struct {
			Hash string `json:"chunk_hash"`
		}
	}](t, "js-encoder-records.json")
	d := NewRecords()
	d.Reset(bytes.NewReader(vector(t, "js-encoder-records.bin")))
	var file []byte
	for i, r := range v.Records {
		plain, hash, err := d.Next()
		if err != nil || hash.String() != r.Hash {
			t.Fatalf("record %d: %s, %v", i, hash, err)
		}
		if i%2 == 1 {
			file = append(file, plain...)
		}
	}
	if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != v.Input.SHA256 {
		t.Error("other content")
	}
}
