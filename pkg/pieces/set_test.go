package pieces

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"
)

// naive is the obvious set.
type naive map[int]bool

func (n naive) sorted() []int {
	out := []int{}
	for i := range n {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

func collect(seq func(func(int) bool)) []int {
	out := []int{}
	for i := range seq {
		out = append(out, i)
	}
	return out
}

// Random operations give what the obvious set gives, and the encoding keeps it.
func TestSetAgainstNaive(t *testing.T) {
	check := func(seed uint64, length uint16) bool {
		r, n := rand.New(rand.NewPCG(seed, 1)), int(length%700)
		s, want := NewSet(n), naive{}
		for range r.IntN(2 * (n + 1)) {
			if n == 0 {
				break
			}
			i := r.IntN(n)
			if r.IntN(3) > 0 {
				if s.Add(i) == want[i] {
					return false
				}
				want[i] = true
			} else {
				if s.Remove(i) != want[i] {
					return false
				}
				delete(want, i)
			}
		}
		return sameSet(t, s, n, want) && sameSet(t, s.Clone(), n, want) && sameSet(t, reparsed(t, s), n, want)
	}
	if err := quick.Check(check, &quick.Config{MaxCount: 400}); err != nil {
		t.Error(err)
	}
}

func sameSet(t *testing.T, s *Set, n int, want naive) bool {
	missing := naive{}
	for i := range n {
		if s.Has(i) != want[i] {
			t.Errorf("Has(%d) = %v", i, s.Has(i))
			return false
		}
		if !want[i] {
			missing[i] = true
		}
	}
	return s.Len() == n && s.Count() == len(want) && s.Full() == (len(want) == n) && !s.Has(-1) && !s.Has(n) &&
		slices.Equal(collect(s.All()), want.sorted()) && slices.Equal(collect(s.Missing()), missing.sorted())
}

func reparsed(t *testing.T, s *Set) *Set {
	b, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseSet(s.Len(), b)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func TestSetCloneIsIndependent(t *testing.T) {
	s := NewSet(100)
	c := s.Clone()
	s.Add(1)
	c.Add(99)
	if c.Has(1) || s.Has(99) || s.Count() != 1 || c.Count() != 1 {
		t.Error("a clone shares its words")
	}
}

func TestSetIteratorsStop(t *testing.T) {
	s := FullSet(200)
	for i := range s.All() {
		if i == 3 {
			break
		}
	}
	s.Remove(5)
	s.Remove(9)
	for i := range s.Missing() {
		if i != 5 {
			t.Errorf("first missing is %d", i)
		}
		break
	}
}

func TestSetRefusesIndexesOutOfRange(t *testing.T) {
	s := NewSet(10)
	if s.Remove(10) || s.Remove(-1) || s.Remove(1<<40) {
		t.Error("removed what can't be in")
	}
	for _, i := range []int{-1, 10, 63, 64, 1 << 40} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Add(%d) to a set of 10", i)
				}
			}()
			s.Add(i)
		}()
	}
}

func TestSetEncoding(t *testing.T) {
	for _, test := range []struct {
		n    int
		in   []int
		want string
	}{
		{0, nil, ""},
		{10, nil, ""},
		{1, []int{0}, "0001"},
		{10, []int{9}, "0901"},
		{10, []int{0, 1, 2}, "0003"},
		{10, []int{0, 2, 3, 9}, "000101020501"},
		{1000, []int{300, 301}, "ac0202"},
	} {
		s := NewSet(test.n)
		for _, i := range test.in {
			s.Add(i)
		}
		if b, err := s.MarshalBinary(); err != nil || hex.EncodeToString(b) != test.want {
			t.Errorf("%v of %d is %x, %v, want %s", test.in, test.n, b, err, test.want)
		}
	}
}

func TestParseSetRefuses(t *testing.T) {
	for _, test := range []struct {
		why string
		n   int
		in  string
	}{
		{"nothing present at the end", 10, "03"},
		{"an empty first run alone", 10, "00"},
		{"the same in a set of none", 0, "00"},
		{"two empty runs", 10, "0000"},
		{"an empty run in the middle", 10, "010100010101"},
		{"an empty last run", 10, "010100"},
		{"absent indexes at the end", 10, "000109"},
		{"a run over the end", 10, "000b"},
		{"a start behind the end", 10, "0b01"},
		{"a varint that is cut", 10, "00ff"},
		{"a long spelling", 10, "008100"},
		{"a long spelling of nothing", 10, "80000a"},
		{"a number over 64 bits", 10, "00ffffffffffffffffff7f"},
		{"a number of 64 bits", 10, "00ffffffffffffffffff01"},
	} {
		b, err := hex.DecodeString(test.in)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := ParseSet(test.n, b); err == nil {
			t.Errorf("%s: %s of %d gives %v", test.why, test.in, test.n, collect(s.All()))
		}
	}
}

// A summary has to fit in gossip: 30 GB of which half came in long runs.
func TestSetEncodingIsSmallForRuns(t *testing.T) {
	s := NewSet(7500)
	for i := range 7500 {
		if i/16%2 == 0 {
			s.Add(i)
		}
	}
	b, _ := s.MarshalBinary()
	if len(b) > 512 {
		t.Errorf("%d bytes for runs of 16 pieces", len(b))
	}
	if full, _ := FullSet(1 << 20).MarshalBinary(); !bytes.Equal(full, []byte{0, 0x80, 0x80, 0x40}) {
		t.Errorf("a full set is %x", full)
	}
}
