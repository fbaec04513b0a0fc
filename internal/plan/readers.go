package plan

import (
	"slices"

	"p2pagent/pkg/pieces"
)

// Ahead is how many pieces behind the one that a reader waits for are hurried
// too: as many small ones as Swap asks for at once, so that a reader that has got
// its piece finds the next ones under way.
const Ahead = 8

// Readers are the places where somebody reads in blobs that are not whole yet. Swap and
// Seats turn to these first; what either may do is decided by its own rules, so
// that readers on many members, who all read in the same order, don't make one
// seat send everything.
type Readers struct {
	at map[pieces.Blob][]int // index of the piece that is waited for, one for each reader, ascending
}

// NewReaders returns an empty set.
func NewReaders() *Readers { return &Readers{at: map[pieces.Blob][]int{}} }

// Add notes a reader that waits for a piece.
func (r *Readers) Add(p Piece) {
	list := r.at[p.Blob]
	i, _ := slices.BinarySearch(list, p.Index)
	r.at[p.Blob] = slices.Insert(list, i, p.Index)
}

// Remove forgets one reader that was added with this piece.
func (r *Readers) Remove(p Piece) {
	list := r.at[p.Blob]
	i, found := slices.BinarySearch(list, p.Index)
	if !found {
		return
	}
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(r.at, p.Blob)
		return
	}
	r.at[p.Blob] = list
}

// calm is the lead of what no reader will need soon.
const calm = int(^uint(0) >> 1)

// lead tells how many pieces come before this one until a reader needs it: 0 for
// the piece that is waited for, calm when there is no reader or it is far off.
func (r *Readers) lead(p Piece) int {
	if len(r.at) == 0 {
		return calm
	}
	list := r.at[p.Blob]
	i, found := slices.BinarySearch(list, p.Index)
	switch {
	case found:
		return 0
	case i == 0 || p.Index-list[i-1] > Ahead:
		return calm
	}
	return p.Index - list[i-1]
}

// Lead is the lead of the first piece of an extent that a reader needs, and Calm
// tells that none does soon.
func (r *Readers) Lead(e pieces.Extent) (lead int, soon bool) {
	lead = calm
	for _, s := range e.Spans {
		for _, at := range r.at[s.Blob] {
			if at < s.First+s.Count {
				lead = min(lead, r.lead(Piece{s.Blob, max(at, s.First)}))
			}
		}
	}
	return lead, lead != calm
}

// From returns the extent with the pieces that readers wait for at the front: a span
// with a reader inside it is split there, for upstream is asked for spans in
// their order.
func (r *Readers) From(e pieces.Extent) pieces.Extent {
	var front, back []pieces.Span
	for _, s := range e.Spans {
		at := slices.IndexFunc(r.at[s.Blob], func(i int) bool { return i >= s.First && i < s.First+s.Count })
		if at < 0 {
			back = append(back, s)
			continue
		}
		cut := r.at[s.Blob][at]
		front = append(front, pieces.Span{Blob: s.Blob, First: cut, Count: s.First + s.Count - cut})
		if cut > s.First {
			back = append(back, pieces.Span{Blob: s.Blob, First: s.First, Count: cut - s.First})
		}
	}
	return pieces.Extent{Spans: append(front, back...)}
}
