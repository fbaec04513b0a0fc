package layout_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"p2pagent/internal/layout"
	"p2pagent/pkg/pieces"
)

// cut is a rule of its own: a chunk ends behind the first byte below limit that is
// not among its first 512, and after 4 KiB.
func cut(limit byte) layout.Cut {
	return func(data []byte) int {
		data = data[:min(len(data), 4<<10)]
		for i := 512; i < len(data); i++ {
			if data[i] < limit {
				return i + 1
			}
		}
		return len(data)
	}
}

var rules = []layout.Cut{cut(2), cut(1)}

// store is a writer: it knows every chunk that it ever saw, and puts new ones into
// the xorb of the file at hand.
type store struct {
	seen map[string][2]int // xorb and index
	n    int
}

func (s *store) write(rule layout.Cut, data []byte) layout.Layout {
	if s.seen == nil {
		s.seen = map[string][2]int{}
	}
	s.n++
	l, fresh := layout.Layout{Size: int64(len(data))}, 0
	for len(data) > 0 {
		k := rule(data)
		at, ok := s.seen[string(data[:k])]
		if !ok {
			at = [2]int{s.n, fresh}
			s.seen[string(data[:k])] = at
			fresh++
		}
		last := len(l.Terms) - 1
		if x := (layout.Xorb{byte(at[0])}); last >= 0 && l.Terms[last].Xorb == x && l.Terms[last].End == at[1] {
			l.Terms[last].End++
			l.Terms[last].Size += int64(k)
		} else {
			l.Terms = append(l.Terms, layout.Term{Xorb: x, First: at[1], End: at[1] + 1, Size: int64(k)})
		}
		data = data[k:]
	}
	return l
}

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// edited is base with some bytes replaced here and there, and some inserted.
func edited(base []byte, seed uint64, edits int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := bytes.Clone(base)
	for i := range edits {
		at := r.IntN(len(out) - 100)
		if i%3 == 0 {
			out = slices.Insert(out, at, random(byte(seed), 1+r.IntN(50))...)
			continue
		}
		copy(out[at:], random(byte(i), 1+r.IntN(90)))
	}
	return out
}

// counting counts what is read.
type counting struct {
	io.ReaderAt
	n int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.n += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// check compares what a delta gives with the file, and returns how much it has.
func check(t *testing.T, d *layout.Delta, now []byte) (have int64) {
	t.Helper()
	gaps := d.Gaps(0, int64(len(now)))
	have = int64(len(now))
	var at int64
	for _, g := range append(gaps, layout.Span{Off: int64(len(now))}) {
		part := make([]byte, g.Off-at)
		if _, err := d.ReadAt(part, at); err != nil || !bytes.Equal(part, now[at:g.Off]) {
			t.Fatalf("bytes %d to %d: %v, or not those of the file", at, g.Off, err)
		}
		if g.N > 0 {
			if _, err := d.ReadAt(make([]byte, 1), g.Off); !errors.Is(err, layout.ErrNotHere) {
				t.Fatalf("the gap at %d: %v", g.Off, err)
			}
		}
		at, have = g.Off+g.N, have-g.N
	}
	if d.Size() != have {
		t.Errorf("size %d, without its gaps %d", d.Size(), have)
	}
	return have
}

func old(l layout.Layout, data []byte) (layout.Old, *counting) {
	raw := &counting{ReaderAt: bytes.NewReader(data)}
	return layout.Old{Layout: l, Raw: raw, Sound: bytes.NewReader(data)}, raw
}

// Whatever was edited, all but the chunks with an edit is found, and only around
// the edits the old file is looked at.
func TestCompare(t *testing.T) {
	base := random(1, 1<<20)
	for name, rule := range map[string]layout.Cut{"present rule": rules[0], "older rule": rules[1]} {
		t.Run(name, func(t *testing.T) {
			for edits := range 40 {
				var s store
				o, raw := old(s.write(rule, base), base)
				now := edited(base, uint64(edits), edits)
				d, err := layout.Compare(t.Context(), s.write(rule, now), []layout.Old{o}, rules)
				if err != nil {
					t.Fatal(err)
				}
				have := check(t, d, now)
				if least := len(now) - edits*3*4096; have < int64(least) || edits == 0 && raw.n > 0 {
					t.Errorf("%d edits: %d bytes of %d, %d read", edits, have, len(now), raw.n)
				}
			}
		})
	}
}

// The other way round: the older revision comes after the newer one, which has gaps
// in the middle of what was one run of chunks.
func TestCompareBackwards(t *testing.T) {
	base := random(1, 1<<20)
	var s store
	before := s.write(rules[0], base)
	now := bytes.Clone(base)
	copy(now[300_000:], random(2, 50))
	copy(now[700_000:], random(3, 50))
	o, _ := old(s.write(rules[0], now), now)
	d, err := layout.Compare(t.Context(), before, []layout.Old{o}, rules)
	if err != nil {
		t.Fatal(err)
	}
	// What lies between two edits has no known place in what was one run; its
	// beginning and its end have.
	if have := check(t, d, base); have < 600_000 {
		t.Errorf("%d bytes", have)
	}
	if j := d.Joints(0, 1<<20); len(j) == 0 || len(d.Joints(j[0].Off, 1)) != 0 || len(d.Joints(j[0].Off-1, 2)) != 1 {
		t.Errorf("joints %v", j)
	}
}

// Several files each have a part.
func TestCompareWithSeveral(t *testing.T) {
	a, b := random(1, 300_000), random(2, 300_000)
	var s store
	oa, _ := old(s.write(rules[0], a), a)
	ob, _ := old(s.write(rules[0], b), b)
	now := slices.Concat(random(3, 5000), b[:200_000], random(4, 5000), a)
	d, err := layout.Compare(t.Context(), s.write(rules[0], now), []layout.Old{oa, ob}, rules)
	if err != nil {
		t.Fatal(err)
	}
	if have := check(t, d, now); have < 470_000 {
		t.Errorf("%d bytes", have)
	}
}

// An old file that is not what its layout says gives nothing wrong away: where a
// border has to be looked for and does not come out, there is none.
func TestCompareWithSpoiled(t *testing.T) {
	base := random(1, 1<<20)
	var s store
	l := s.write(rules[0], base)
	now := edited(base, 3, 30)
	after := s.write(rules[0], now)
	o, _ := old(l, base)
	o.Raw = bytes.NewReader(random(9, len(base)))
	d, err := layout.Compare(t.Context(), after, []layout.Old{o}, rules)
	if err != nil {
		t.Fatal(err)
	}
	check(t, d, now)
	o.Raw = bytes.NewReader(base[:1000])
	if d, err = layout.Compare(t.Context(), after, []layout.Old{o}, rules); err != nil {
		t.Fatal(err)
	}
	check(t, d, now)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, err = layout.Compare(ctx, after, []layout.Old{o}, rules); err == nil || err.Error() != "enough" {
		t.Errorf("cancelled: %v", err)
	}
}

// spoiledAt fails where a block is not sound.
type spoiledAt struct {
	io.ReaderAt
	off, n int64
	all    bool
}

func (s *spoiledAt) Spoiled() (off, n int64) { return s.off, s.n }
func (s *spoiledAt) Error() string           { return "spoiled" }

func (s *spoiledAt) ReadAt(p []byte, off int64) (int, error) {
	switch {
	case s.all:
		return 0, errors.New("gone")
	case off < s.off+s.n && off+int64(len(p)) > s.off:
		return 0, s
	}
	return s.ReaderAt.ReadAt(p, off)
}

// What is not sound becomes a gap, and no more than that; a file that is gone is one
// gap.
func TestDeltaLoses(t *testing.T) {
	base := random(1, 1<<20)
	var s store
	l := s.write(rules[0], base)
	now := slices.Insert(bytes.Clone(base), 1000, random(2, 3000)...)
	o, _ := old(l, base)
	sound := &spoiledAt{ReaderAt: bytes.NewReader(base), off: 500_000, n: 1000}
	o.Sound = sound
	d, err := layout.Compare(t.Context(), s.write(rules[0], now), []layout.Old{o}, rules)
	if err != nil {
		t.Fatal(err)
	}
	was := d.Size()
	if _, err := d.ReadAt(make([]byte, 10_000), 500_000); !errors.Is(err, layout.ErrNotHere) {
		t.Errorf("read over it: %v", err)
	}
	if lost := was - d.Size(); lost != 1000 {
		t.Errorf("%d bytes lost", lost)
	}
	check(t, d, now)
	sound.all = true
	if _, err := d.ReadAt(make([]byte, 10), 800_000); !errors.Is(err, layout.ErrNotHere) || d.Size() != 0 {
		t.Errorf("gone: %v, %d bytes left", err, d.Size())
	}
	var none *layout.Delta
	if g := none.Gaps(5, 7); !slices.Equal(g, []layout.Span{{Off: 5, N: 7}}) {
		t.Errorf("no delta: gaps %v", g)
	}
}

func TestCodec(t *testing.T) {
	var s store
	base := random(1, 100_000)
	for _, l := range []layout.Layout{{}, s.write(rules[0], base), s.write(rules[0], edited(base, 1, 9))} {
		got, err := layout.Parse(l.Marshal())
		if err != nil || got.Size != l.Size || !slices.Equal(got.Terms, l.Terms) {
			t.Errorf("%v: %v, %v", l, got, err)
		}
	}
	good := layout.Term{End: 2, Size: 100}
	for name, l := range map[string]layout.Layout{
		"sum":         {Size: 99, Terms: []layout.Term{good}},
		"more":        {Size: 101, Terms: []layout.Term{good}},
		"no chunks":   {Size: 100, Terms: []layout.Term{{Size: 100}}},
		"negative":    {Size: 100, Terms: []layout.Term{{First: -1, End: 2, Size: 100}}},
		"long chunks": {Size: 1 << 20, Terms: []layout.Term{{End: 2, Size: 1 << 20}}},
		"no bytes":    {Size: 100, Terms: []layout.Term{good, {End: 1}}},
		"too many":    {Size: 1 << 40, Terms: make([]layout.Term, layout.MaxTerms+1)},
	} {
		if err := l.Validate(); !errors.Is(err, layout.ErrBad) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	var s store
	f.Add(s.write(rules[0], random(1, 50_000)).Marshal())
	f.Add(layout.Layout{}.Marshal())
	f.Fuzz(func(t *testing.T, in []byte) {
		l, err := layout.Parse(in)
		if err == nil && !bytes.Equal(l.Marshal(), in) {
			if again, err := layout.Parse(l.Marshal()); err != nil || !slices.Equal(again.Terms, l.Terms) {
				t.Errorf("%v is read back as %v, %v", l, again, err)
			}
		}
	})
}

func digest(i byte) pieces.Digest { return pieces.SHA256Digest([32]byte{i, 1}) }

func entry(i byte, xorbs ...byte) layout.Entry {
	e := layout.Entry{Name: digest(i)}
	for _, x := range xorbs {
		e.Terms = append(e.Terms, layout.Term{Xorb: layout.Xorb{x}, End: 10, Size: 1000})
		e.Size += 1000
	}
	e.Blob = pieces.Blob{Digest: pieces.SHA256Digest([32]byte{i, 2}), Size: e.Size}
	return e
}

// An index says who has most of a layout, also after a restart, and drops what it
// can't read.
func TestIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layouts")
	x, err := layout.OpenIndex(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !x.Empty() {
		t.Error("not empty")
	}
	for _, e := range []layout.Entry{entry(1, 1, 2, 3), entry(2, 3, 4), entry(3, 9), entry(4, 1, 2, 3, 4)} {
		if err := x.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	bad := entry(5, 1)
	bad.Blob.Size++
	if err := x.Put(bad); !errors.Is(err, layout.ErrBad) {
		t.Errorf("bad entry: %v", err)
	}
	look := func() {
		t.Helper()
		got := x.Sharing(entry(4, 1, 2, 3, 4).Layout, digest(4), 5)
		if !slices.Equal(got, []pieces.Digest{digest(1), digest(2)}) {
			t.Errorf("sharing: %v", got)
		}
		if got := x.Sharing(entry(4, 1, 2, 3, 4).Layout, digest(4), 1); len(got) != 1 {
			t.Errorf("one of them: %v", got)
		}
		e, ok := x.Get(digest(2))
		if want := entry(2, 3, 4); !ok || e.Blob != want.Blob || !slices.Equal(e.Terms, want.Terms) {
			t.Errorf("got %v, %v", e, ok)
		}
	}
	look()
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(dir, digest(3).String())
	if err := os.Truncate(torn, 40); err != nil {
		t.Fatal(err)
	}
	if x, err = layout.OpenIndex(dir, nil); err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	look()
	if _, ok := x.Get(digest(3)); ok {
		t.Error("a torn entry is known")
	}
	if _, err := os.Stat(torn); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the torn file: %v", err)
	}
	x.Forget(digest(2))
	x.Forget(digest(9))
	if _, ok := x.Get(digest(2)); ok {
		t.Error("a forgotten entry is known")
	}
	if err := os.WriteFile(filepath.Join(dir, digest(1).String()), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Get(digest(1)); ok {
		t.Error("an entry that was changed is known")
	}
	if got := x.Sharing(entry(4, 1).Layout, digest(4), 5); len(got) != 0 {
		t.Errorf("sharing with what is gone: %v", got)
	}
}
