package census

import (
	"iter"
	"strings"
)

// Total is a commit over all members that answered, and the one that looks.
type Total struct {
	Repo, Commit, Ref string
	Ready             int   // members that have it
	Partly            int   // that have a part of it, or try to
	Upstream          int64 // bytes that upstream sent all of them for it
	Size              int64 // as the member says that wants most of it
}

// Totals adds up what members say, by id. Those that have nothing of a commit and
// want nothing do not count.
func Totals(all iter.Seq[[]Row]) map[string]*Total {
	out := map[string]*Total{}
	for rows := range all {
		for _, r := range rows {
			id := ID(r.Repo, r.Commit)
			t := out[id]
			if t == nil {
				t = &Total{Repo: r.Repo, Commit: r.Commit, Ref: r.Ref}
				out[id] = t
			}
			if r.Ready {
				t.Ready++
			} else {
				t.Partly++
			}
			t.Upstream += r.Upstream
			t.Size = max(t.Size, r.Size)
		}
	}
	return out
}

// Covers brings the covers of one commit together, by member. Who does not know the
// commit holds nothing of it; who counts its pieces in another way than most
// members that answered is left out.
func Covers(own Cover, answers map[string][]byte) (dimension Cover, levels map[string]string) {
	heard, count := map[string]Cover{}, map[int]int{own.Pieces: 1}
	for id, raw := range answers {
		if c, err := DecodeCover(raw); err == nil {
			heard[id] = c
			count[c.Pieces]++
		}
	}
	delete(count, 0)
	for n, times := range count {
		if times > count[dimension.Pieces] || times == count[dimension.Pieces] && n < dimension.Pieces {
			dimension.Pieces = n
		}
	}
	dimension.Levels = strings.Repeat("0", min(dimension.Pieces, Cells))
	levels = map[string]string{}
	for id, c := range heard {
		switch c.Pieces {
		case dimension.Pieces:
			levels[id] = c.Levels
		case 0:
			levels[id] = dimension.Levels
		}
	}
	if own.Pieces == dimension.Pieces {
		dimension.Levels = own.Levels
	}
	return dimension, levels
}
