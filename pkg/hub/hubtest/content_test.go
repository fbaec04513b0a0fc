package hubtest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestGenerated(t *testing.T) {
	const size = 3<<20 + 5
	g := Generated(7, size)
	if got := sha256Of(g); got != "5c62d6c6235917e3f83ab75172a1f7bf354491d956fa09b87c79e3c02fbc7042" {
		t.Errorf("digest %s: generated content has changed", got)
	}
	whole, err := io.ReadAll(io.NewSectionReader(g, 0, size))
	if err != nil || len(whole) != size {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	for _, r := range [][2]int64{{0, 1}, {period - 1, 3}, {size - 1, 1}, {5, 2 * period}} {
		var out bytes.Buffer
		if n, err := writeRange(&out, g, r[0], r[1]); n != r[1] || err != nil || !bytes.Equal(out.Bytes(), whole[r[0]:r[0]+r[1]]) {
			t.Errorf("range %v: %d bytes, %v, or other bytes", r, n, err)
		}
	}
	if bytes.Equal(whole[:1<<20], whole[1<<20:2<<20]) {
		t.Error("two pieces are alike")
	}
}

func TestHugeContentCostsNothing(t *testing.T) {
	const size = 60 << 30
	g := Generated(1, size)
	tail := make([]byte, 100)
	if n, err := g.ReadAt(tail, size-100); n != 100 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := g.ReadAt(tail, size-50); n != 50 || err != io.EOF {
		t.Errorf("past the end: %d bytes, %v", n, err)
	}
}

func TestFromDir(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "sub"), 0o755)
	os.WriteFile(filepath.Join(dir, "blob"), []byte("content"), 0o644)
	os.Symlink("../blob", filepath.Join(dir, "sub", "link"))
	files, err := FromDir(dir)
	if err != nil || len(files) != 2 || files[0].Path != "blob" || files[1].Path != "sub/link" {
		t.Fatalf("%v, %v", files, err)
	}
	var out bytes.Buffer
	if n, err := writeRange(&out, files[1].Content, 3, 4); n != 4 || err != nil || out.String() != "tent" {
		t.Errorf("%d %q %v", n, out.String(), err)
	}
	if _, err := FromDir(filepath.Join(dir, "missing")); err == nil {
		t.Error("no error for a missing directory")
	}
}
