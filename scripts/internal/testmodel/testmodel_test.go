package testmodel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"p2pagent/scripts/internal/testmodel"
)

func TestShardsAreSafetensors(t *testing.T) {
	dir := t.TempDir()
	o := testmodel.Options{Size: 40<<20 + 7, Shards: 3}
	files, err := testmodel.Write(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	weights := index(t, dir)
	var total int64
	for i := range o.Shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, o.Shards)
		for _, tensor := range checkShard(t, filepath.Join(dir, name)) {
			if weights[tensor] != name {
				t.Errorf("index says %s is in %q, it is in %s", tensor, weights[tensor], name)
			}
			delete(weights, tensor)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total != o.Size || len(weights) != 0 || len(files) != o.Shards+10 {
		t.Errorf("got %d bytes, %d tensors missing, %d files; want %d, 0, %d", total, len(weights), len(files), o.Size, o.Shards+10)
	}
}

// The twins are safetensors too, and share what they should.
func TestTwins(t *testing.T) {
	dir := t.TempDir()
	o := testmodel.Options{Size: 20 << 20, Shards: 2, Normal: true, Twins: true}
	files, err := testmodel.Write(dir, o)
	if err != nil || len(files) != o.Shards+12 {
		t.Fatal(len(files), err)
	}
	read := func(name string) []byte {
		checkShard(t, filepath.Join(dir, name))
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	first, last := read("model-00001-of-00002.safetensors"), read("model-00002-of-00002.safetensors")
	if twin := read("twin.safetensors"); bytes.Equal(twin, first) || !bytes.Equal(twin[len(twin)-9<<20:], first[len(first)-9<<20:]) {
		t.Error("the twin is no twin")
	}
	mixed := read("mixed.safetensors")
	for _, s := range [][]byte{first[2<<20 : 3<<20], last[6<<20 : 7<<20]} {
		if !bytes.Contains(mixed, s[:64<<10]) {
			t.Error("mixed does not have a run of a shard")
		}
	}
}

func index(t *testing.T, dir string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "model.safetensors.index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Weights map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v.Weights
}

// checkShard checks what the safetensors format demands: tensors that fill the
// file without gap or overlap, each with the bytes that its shape says.
func checkShard(t *testing.T, path string) (names []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	length := binary.LittleEndian.Uint64(content)
	var head map[string]struct {
		DType   string
		Shape   []int64
		Offsets [2]int64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(content[8:8+length], &head); err != nil {
		t.Fatal(err)
	}
	delete(head, "__metadata__")
	var covered int64
	for name, e := range head {
		n := int64(2)
		for _, d := range e.Shape {
			n *= d
		}
		if e.DType != "BF16" || n != e.Offsets[1]-e.Offsets[0] {
			t.Errorf("%s: %s of shape %v at %v", name, e.DType, e.Shape, e.Offsets)
		}
		covered += n
		names = append(names, name)
	}
	if want := int64(len(content)) - 8 - int64(length); covered != want {
		t.Errorf("%s: tensors cover %d of %d bytes", path, covered, want)
	}
	return names
}

func TestSameOptionsSameBytes(t *testing.T) {
	write := func(seed uint64) string {
		files, err := testmodel.Write(t.TempDir(), testmodel.Options{Size: 4 << 20, Shards: 2, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		return testmodel.Sums(files)
	}
	first := write(1)
	if again := write(1); again != first {
		t.Errorf("two models of one seed differ:\n%s\n%s", first, again)
	}
	if other := write(2); other == first {
		t.Error("two seeds made the same model")
	}
}

func TestRefusesImpossibleOptions(t *testing.T) {
	for _, o := range []testmodel.Options{{Size: 1 << 20}, {Size: 100, Shards: 1}, {Size: -1, Shards: 1}} {
		if _, err := testmodel.Write(t.TempDir(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
