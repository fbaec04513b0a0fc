package xet

import (
	"slices"
	"testing"
)

func ends(r Rule, data []byte) (out []int) {
	for at := 0; at < len(data); {
		at += r.Cut(data[at:])
		out = append(out, at)
	}
	return out
}

// The numbers are those of xet-core's tests.
func TestCut(t *testing.T) {
	constant := make([]byte, 1_000_000)
	for i := range constant {
		constant[i] = 59
	}
	for _, test := range []struct {
		name string
		data []byte
		want []int
	}{
		{"splitmix64", splitmix64(0, 1_000_000), []int{84493, 134421, 144853, 243318, 271793, 336457, 467529, 494581, 582000, 596735, 616815, 653164,
			678202, 724510, 815591, 827760, 958832, 991092, 1000000}},
		{"one byte over and over", constant, []int{131072, 262144, 393216, 524288, 655360, 786432, 917504, 1000000}},
		{"short", constant[:100], []int{100}},
		{"nothing", nil, nil},
	} {
		if got := ends(Current, test.data); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// A chunk ends where the plain rule says: hash every byte from the chunk's start.
func TestCutIsTheRule(t *testing.T) {
	data := append(splitmix64(3, 300_000), bfloats(4, 300_000)...)
	for at := 0; at < len(data); {
		var h uint64
		n := 0
		for _, b := range data[at:] {
			h = h<<1 + gear[b]
			if n++; n >= minChunk && h>>48 == 0 || n == MaxChunk {
				break
			}
		}
		if got := Current.Cut(data[at:]); got != n {
			t.Fatalf("at %d: cut after %d, want %d", at, got, n)
		}
		at += n
	}
}

func TestRulesDiffer(t *testing.T) {
	short := 0
	for _, end := range ends(Legacy, splitmix64(9, 8<<20)) {
		_ = end
		short++
	}
	if current := len(ends(Current, splitmix64(9, 8<<20))); short <= current {
		t.Errorf("legacy %d chunks, current %d: the older rule cuts earlier", short, current)
	}
}
