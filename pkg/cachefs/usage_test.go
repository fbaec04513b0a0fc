package cachefs

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUsage(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	half := newModel(repoA, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", map[string][]byte{"w": randomBytes(3, 9<<20)}, nil)
	b := half.blobs()[0]
	if err := c.Begin(t.Context(), repoA, half.blobs()); err != nil {
		t.Fatal(err)
	}
	if err := c.Put(t.Context(), cut(t, b, half.content[b])[1]); err != nil {
		t.Fatal(err)
	}
	want(t, c, Usage{Partial: b.PieceSize()})
	mustFetch(t, c, m, "main")
	want(t, c, Usage{Whole: m.outline.Size(), Partial: b.PieceSize()})
	for _, v := range cut(t, b, half.content[b]) {
		if err := c.Put(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Complete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	want(t, c, Usage{Whole: m.outline.Size() + b.Size})
}

func want(t *testing.T, c *Cache, want Usage) {
	t.Helper()
	if got, err := c.Usage(); err != nil || got != want {
		t.Errorf("usage %+v, %v, want %+v", got, err, want)
	}
}

// A state that is gone, as when its disk was unmounted, shows; and so that the
// test of it leaves nothing behind.
func TestWritable(t *testing.T) {
	r := newRig(t)
	c := r.open(t)
	if err := c.Writable(); err != nil {
		t.Fatal(err)
	}
	stage := filepath.Join(r.state, stageDir)
	if left, err := os.ReadDir(stage); err != nil || len(left) > 0 {
		t.Errorf("left in the stage: %v, %v", left, err)
	}
	if err := os.Rename(stage, stage+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := c.Writable(); err == nil {
		t.Error("writable without a folder to write to")
	}
	if err := os.Rename(stage+".gone", stage); err != nil {
		t.Fatal(err)
	}
}
