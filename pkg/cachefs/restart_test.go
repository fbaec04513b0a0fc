package cachefs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p2pagent/pkg/pieces"
)

// bigBlob is a blob of five pieces.
func bigBlob() (pieces.File, []byte) {
	data := randomBytes(5, 17<<20+123)
	return lfsFile("model.safetensors", data), data
}

func putAll(t testing.TB, c *Cache, ps []pieces.Verified, indexes ...int) {
	t.Helper()
	for _, i := range indexes {
		if err := c.Put(t.Context(), ps[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func mustBegin(t testing.TB, c *Cache, repo pieces.Repo, blobs ...pieces.Blob) {
	t.Helper()
	if err := c.Begin(t.Context(), repo, blobs); err != nil {
		t.Fatal(err)
	}
}

func mustComplete(t testing.TB, c *Cache, b pieces.Blob) {
	t.Helper()
	if err := c.Complete(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func mustClose(t testing.TB, c *Cache) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func heldIn(c *Cache, b pieces.Blob) []int {
	set := c.Held(b)
	if set == nil {
		return nil
	}
	return slices.Collect(set.All())
}

func TestRestartKeepsJournalledPieces(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 0, 1, 3)
	mustClose(t, c) // journals

	c = r.open(t)
	if got := heldIn(c, f.Blob); !slices.Equal(got, []int{0, 1, 3}) {
		t.Fatalf("held after a restart: %v", got)
	}
	if got := c.Unfinished(); len(got) != 1 || got[f.Blob].IsZero() {
		t.Errorf("unfinished: %v", got)
	}
	if err := c.Complete(t.Context(), f.Blob); !errors.Is(err, ErrIncomplete) {
		t.Errorf("complete: %v", err)
	}
	list := c.Statements(f.Blob)
	if len(list) != 3 || list[2] != ps[3].Statement() {
		t.Errorf("statements: %v", list)
	}
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 2, 4)
	mustComplete(t, c, f.Blob)
	sameContent(t, filepath.Join(r.hub, blobName(repoA.Folder(), f.Blob.Digest)), data)
}

// kill ends a cache as kill -9 does: what was not written down is lost.
func kill(t testing.TB, c *Cache) {
	t.Helper()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	if err := c.release(); err != nil {
		t.Fatal(err)
	}
}

func TestKillLosesOnlyWhatWasNotJournalled(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 4, 0)
	if err := c.flushAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	putAll(t, c, ps, 1, 2)
	if got := heldIn(c, f.Blob); len(got) != 4 {
		t.Errorf("held at once: %v", got)
	}
	kill(t, c)
	if got := heldIn(r.open(t), f.Blob); !slices.Equal(got, []int{0, 4}) {
		t.Errorf("held after a kill: %v", got)
	}
}

func TestDamagedJournal(t *testing.T) {
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	const states = 1 // the record of the running digest
	for name, tc := range map[string]struct {
		damage func(path string) error
		want   []int
	}{
		"second record": {func(p string) error { rot(t, p, headerSize+recordSize+50); return nil }, []int{0}},
		"header":        {func(p string) error { rot(t, p, 20); return nil }, nil},
		"torn":          {func(p string) error { return os.Truncate(p, headerSize+2*recordSize+70) }, []int{0, 1}},
		"empty":         {func(p string) error { return os.Truncate(p, 0) }, nil},
		"garbage after": {func(p string) error { return appendTo(p, make([]byte, 500)) }, []int{0, 1, 2}},
		"removed":       {os.Remove, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			putAll(t, c, ps, 0, 1, 2)
			mustClose(t, c)
			journal := onlyFile(t, filepath.Join(r.state, partialDir, "*"+journalSuffix))
			if info, err := os.Stat(journal); err != nil || info.Size() != headerSize+(3+states)*recordSize {
				t.Fatalf("journal of %d bytes, %v", info.Size(), err)
			}
			if err := tc.damage(journal); err != nil {
				t.Fatal(err)
			}
			c = r.open(t)
			if got := heldIn(c, f.Blob); !slices.Equal(got, tc.want) {
				t.Errorf("held %v, want %v", got, tc.want)
			}
			mustBegin(t, c, repoA, f.Blob)
			putAll(t, c, ps, 0, 1, 2, 3)
			mustClose(t, c)
			c = r.open(t) // the journal goes on behind what was good
			if got := heldIn(c, f.Blob); !slices.Equal(got, []int{0, 1, 2, 3}) {
				t.Errorf("held %v after going on", got)
			}
			mustBegin(t, c, repoA, f.Blob)
			putAll(t, c, ps, 4)
			mustComplete(t, c, f.Blob)
		})
	}
}

func appendTo(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// The data file may be gone or be another length; the journal alone proves nothing.
func TestJournalWithoutItsData(t *testing.T) {
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	for name, damage := range map[string]func(path string) error{
		"removed": os.Remove, "cut": func(p string) error { return os.Truncate(p, 100) },
		"a link": func(p string) error { return errors.Join(os.Remove(p), os.Symlink("/dev/zero", p)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.open(t)
			mustBegin(t, c, repoA, f.Blob)
			putAll(t, c, ps, 0)
			mustClose(t, c)
			if err := damage(onlyFile(t, filepath.Join(r.state, partialDir, "*.????????????????"))); err != nil {
				t.Fatal(err)
			}
			if got := heldIn(r.open(t), f.Blob); got != nil {
				t.Errorf("held %v", got)
			}
			if left, _ := os.ReadDir(filepath.Join(r.state, partialDir)); len(left) > 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

// The running digest goes on after a restart where the journal has it: here the
// data on disk is spoilt behind our back, and only a digest that is not computed
// anew can still be right. (What is on disk is then wrong, which is the point: it
// was not read again.)
func TestRestartGoesOnWithTheRunningDigest(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 0, 1, 2)
	mustClose(t, c)
	rot(t, onlyFile(t, filepath.Join(r.state, partialDir, "*.????????????????")), 100)
	c = r.open(t)
	if p := c.partial(f.Blob); p.hashed != 3 {
		t.Fatalf("hashed %d pieces, want 3", p.hashed)
	}
	mustBegin(t, c, repoA, f.Blob)
	putAll(t, c, ps, 3, 4)
	mustComplete(t, c, f.Blob)
}

// A kept digest that can't be read, or that covers pieces that are not held, costs
// hashing them again and nothing else.
func TestUselessKeptDigest(t *testing.T) {
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	h := f.Blob.NewHash()
	h.Write(data[:8<<20])
	state, err := h.(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		hashed int
		state  []byte
		want   int
	}{
		"good": {2, state, 2}, "too far": {3, state, 0}, "garbage": {2, []byte("garbage"), 0}, "empty": {2, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPartial(f.Blob, 1)
			for _, v := range ps[:2] {
				p.held.Add(v.Index())
			}
			p.resumeHash(tc.hashed, tc.state)
			if p.hashed != tc.want {
				t.Errorf("hashed %d, want %d", p.hashed, tc.want)
			}
			p.sum.Write(data[p.hashed*4<<20:])
			if err := f.Blob.Check(p.sum); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRestartOffersWithoutHashing(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	before := map[pieces.Blob][]pieces.Statement{}
	for _, b := range m.blobs() {
		before[b] = c.Statements(b)
	}
	mustClose(t, c)
	c = r.open(t)
	c.onHash = func(name string, _, _ int64) { t.Errorf("%s was hashed again", name) }
	mustBegin(t, c, repoA, m.blobs()...)
	for _, b := range m.blobs() {
		if !c.Has(repoA, b) || !slices.Equal(c.Statements(b), before[b]) {
			t.Errorf("%s lost", b)
		}
	}
	checkHeld(t, c, m)
	checkSnapshot(t, mustFetch(t, c, m, "main"), m)
}

func TestDamagedProofIsNotBelieved(t *testing.T) {
	r, m := newRig(t), smallModel()
	c := r.open(t)
	mustFetch(t, c, m, "main")
	mustClose(t, c)
	for _, b := range m.blobs() {
		rot(t, filepath.Join(r.state, proofName(b.Digest)), 70)
	}
	c = r.open(t)
	for _, b := range m.blobs() {
		if c.Has(repoA, b) || c.Held(b) != nil {
			t.Errorf("%s offered on a damaged proof", b)
		}
	}
	mustBegin(t, c, repoA, m.blobs()...) // hashed, not fetched
	for _, b := range m.blobs() {
		if !c.Has(repoA, b) {
			t.Errorf("%s not adopted again", b)
		}
	}
}
