package evict

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func name(path string, inode uint64, bytes int64, links int) Name {
	return Name{Path: path, Inode: inode, Bytes: bytes, Links: links}
}

func TestFrees(t *testing.T) {
	// a and b are revisions of one repository that share w; c of another is a hard
	// link to it. own is a name of its own, kept has a link outside the cache.
	a := Snapshot{Key: "a", Names: []Name{name("r/w", 1, 100, 2), name("r/a", 2, 10, 1)}}
	b := Snapshot{Key: "b", Names: []Name{name("r/w", 1, 100, 2), name("r/kept", 3, 7, 2)}}
	c := Snapshot{Key: "c", Names: []Name{name("s/w", 1, 100, 2)}}
	// d has two names of one file.
	d := Snapshot{Key: "d", Names: []Name{name("t/x", 4, 5, 2), name("t/y", 4, 5, 2)}}
	for _, x := range []struct {
		order []string
		frees []int64
	}{
		{[]string{"a", "b", "c", "d"}, []int64{10, 0, 100, 5}},
		{[]string{"c", "b", "a"}, []int64{0, 0, 110}},
		{[]string{"b", "a", "c"}, []int64{0, 10, 100}},
	} {
		l := NewLedger([]Snapshot{a, b, c, d})
		for i, key := range x.order {
			if got := l.Frees(key); got != x.frees[i] {
				t.Errorf("%v: %s frees %d, want %d", x.order, key, got, x.frees[i])
			}
			l.Remove(key)
		}
	}
	if got := NewLedger(nil).Frees("none"); got != 0 {
		t.Errorf("what is not there frees %d", got)
	}
}

// In whatever order snapshots go, what they free adds up to the files that have no
// name any more.
func TestFreesAddUp(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		paths := map[uint64]map[string]bool{} // names by file
		bytes := map[uint64]int64{}
		at := map[string]uint64{}
		for i := range 20 {
			p, inode := fmt.Sprint("p", i), uint64(rng.IntN(8))
			if paths[inode] == nil {
				paths[inode], bytes[inode] = map[string]bool{}, int64(1+rng.IntN(100))
			}
			paths[inode][p], at[p] = true, inode
		}
		outside := map[uint64]bool{}
		var all []Snapshot
		var want int64
		for i := range 6 {
			s := Snapshot{Key: fmt.Sprint(i)}
			for p, inode := range at {
				if i == 0 || rng.IntN(3) == 0 { // the first has all: every name goes
					outside[inode] = inode%5 == 0
					links := len(paths[inode])
					if outside[inode] {
						links++
					}
					s.Names = append(s.Names, name(p, inode, bytes[inode], links))
				}
			}
			all = append(all, s)
		}
		for inode, n := range bytes {
			if !outside[inode] {
				want += n
			}
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		l, got := NewLedger(all), int64(0)
		for _, s := range all {
			got += l.Frees(s.Key)
			l.Remove(s.Key)
		}
		if got != want {
			t.Fatalf("seed %d: %d freed, want %d", seed, got, want)
		}
	}
}

func TestOrder(t *testing.T) {
	at := func(h int) time.Time { return time.Unix(int64(h)*3600, 0) }
	all := []Snapshot{
		{Key: "new", Used: at(3)},
		{Key: "small", Used: at(1), Names: []Name{name("a", 1, 1, 1)}},
		{Key: "large", Used: at(1), Names: []Name{name("b", 2, 2, 1)}},
		{Key: "old", Used: at(0)},
		{Key: "b", Used: at(2)}, {Key: "a", Used: at(2)},
	}
	Order(all)
	var got []string
	for _, s := range all {
		got = append(got, s.Key)
	}
	if want := []string{"old", "large", "small", "a", "b", "new"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
