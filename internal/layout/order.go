package layout

import (
	"cmp"
	"slices"

	"p2pagent/pkg/pieces"
)

// Limits on what is compared of files that come together. What lies beyond is
// fetched for each.
const (
	mostCompared = 1 << 18 // terms
	mostSites    = 1 << 13 // terms that share a chunk with another one
)

// Order says of files that are to come together which has the chunks first that
// several have: the others can take them from there. The files with the longest
// terms come first, for any part of a long one can be cut out; of those alike, the
// ones given first. Within a file earlier bytes come first. So of two places at most
// one is behind the other.
type Order struct {
	rank   map[pieces.Blob]int
	sites  []site
	ofXorb map[Xorb][]int // indexes of sites
	ofBlob map[pieces.Blob][]int
}

// site is a term, and where it is.
type site struct {
	Place
	first, end int
	xorb       Xorb
}

// Place is bytes of a blob.
type Place struct {
	Blob pieces.Blob
	Span
}

// NewOrder compares distinct files; nil when they have nothing in common.
func NewOrder(files []Entry) *Order {
	rank := make(map[pieces.Blob]int, len(files))
	for i, f := range files {
		rank[f.Blob] = i
	}
	sites := common(sitesOf(files), rank)
	if len(sites) == 0 {
		return nil
	}
	longest := make(map[pieces.Blob]int64)
	for _, s := range sites {
		longest[s.Blob] = max(longest[s.Blob], s.N)
	}
	order := slices.Clone(files)
	slices.SortStableFunc(order, func(a, b Entry) int { return cmp.Compare(longest[b.Blob], longest[a.Blob]) })
	for i, f := range order {
		rank[f.Blob] = i
	}
	slices.SortFunc(sites, func(a, b site) int { return cmp.Or(cmp.Compare(rank[a.Blob], rank[b.Blob]), cmp.Compare(a.Off, b.Off)) })
	o := &Order{rank: rank, sites: sites, ofXorb: make(map[Xorb][]int), ofBlob: make(map[pieces.Blob][]int)}
	for i, s := range sites {
		o.ofXorb[s.xorb] = append(o.ofXorb[s.xorb], i)
		o.ofBlob[s.Blob] = append(o.ofBlob[s.Blob], i)
	}
	return o
}

func sitesOf(files []Entry) (out []site) {
	for _, f := range files {
		if len(out)+len(f.Terms) > mostCompared {
			continue
		}
		var off int64
		for _, t := range f.Terms {
			out = append(out, site{Place{f.Blob, Span{off, t.Size}}, t.First, t.End, t.Xorb})
			off += t.Size
		}
	}
	return out
}

// common keeps the sites that share a chunk with another one; of too many, the
// largest.
func common(sites []site, rank map[pieces.Blob]int) (out []site) {
	slices.SortFunc(sites, func(a, b site) int {
		return cmp.Or(slices.Compare(a.xorb[:], b.xorb[:]), cmp.Compare(a.first, b.first), cmp.Compare(rank[a.Blob], rank[b.Blob]), cmp.Compare(a.Off, b.Off))
	})
	shared := make([]bool, len(sites))
	last := 0 // of the sites so far of this xorb, the one that ends last
	for i := 1; i < len(sites); i++ {
		if sites[last].xorb == sites[i].xorb && sites[i].first < sites[last].end {
			shared[last], shared[i] = true, true
		}
		if sites[last].xorb != sites[i].xorb || sites[i].end > sites[last].end {
			last = i
		}
	}
	for i, s := range sites {
		if shared[i] {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b site) int { return cmp.Compare(b.N, a.N) })
	return out[:min(len(out), mostSites)]
}

// Behind returns the places that have chunks of bytes of a blob and come before all
// of them, as few as will do.
func (o *Order) Behind(at Place) (out []Place) {
	if o == nil {
		return nil
	}
	for _, i := range o.ofBlob[at.Blob] {
		t := &o.sites[i]
		if t.Off >= at.Off+at.N || t.Off+t.N <= at.Off {
			continue
		}
		lacks := []chunks{{t.first, t.end}}
		for _, k := range o.ofXorb[t.xorb] {
			s := &o.sites[k]
			if len(lacks) == 0 {
				break
			}
			if !o.before(s, at) {
				continue
			}
			if rest, some := without(lacks, chunks{s.first, s.end}); some {
				lacks = rest
				out = append(out, s.Place)
			}
		}
	}
	return out
}

func (o *Order) before(s *site, at Place) bool {
	if s.Blob != at.Blob {
		return o.rank[s.Blob] < o.rank[at.Blob]
	}
	return s.Off+s.N <= at.Off
}

// chunks are those [first, end) of a xorb.
type chunks struct{ first, end int }

// without takes chunks out of ranges, and tells whether any were in them.
func without(in []chunks, c chunks) (out []chunks, some bool) {
	for _, r := range in {
		if r.end <= c.first || c.end <= r.first {
			out = append(out, r)
			continue
		}
		some = true
		if r.first < c.first {
			out = append(out, chunks{r.first, c.first})
		}
		if c.end < r.end {
			out = append(out, chunks{c.end, r.end})
		}
	}
	return out, some
}
