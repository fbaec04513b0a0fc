package layout

import (
	"context"
	"io"
	"maps"
	"slices"

	"p2pagent/pkg/pieces"
)

// Old is a file that is here.
type Old struct {
	Layout
	Name pieces.Digest // in the store
	// Raw reads it as it lies there: for looking where chunks end.
	Raw io.ReaderAt
	// Sound reads bytes that were compared with what is known of the file. An error
	// with a method Spoiled() (off, n int64) says that these bytes alone are not
	// what they should be; after any other nothing more is read.
	Sound io.ReaderAt
	// Has tells whether bytes of it are here; nil when all are.
	Has func(off, n int64) bool
}

// Cut returns the length of the chunk at the start of data, which holds MaxChunk
// bytes or reaches to the end of the file.
type Cut func(data []byte) int

// Compare returns what of a new file the old ones have. Bytes are matched by the
// store's names of chunks. Where in an old file a chunk lies its layout says for
// the first and the last of a term; what lies between is known from the sizes of
// the new file's terms or, where these leave it open, by cutting the old file
// there by one of the rules that writers have. A cut is believed when it ends where
// the layouts say.
func Compare(ctx context.Context, now Layout, olds []Old, rules []Cut) (*Delta, error) {
	return CompareIn(ctx, now, Span{0, now.Size}, olds, rules)
}

// CompareIn is Compare for the terms that have bytes of a span.
func CompareIn(ctx context.Context, now Layout, in Span, olds []Old, rules []Cut) (*Delta, error) {
	m := &matcher{now: now, in: in, byXorb: make(map[Xorb][]*slab)}
	d := &Delta{}
	for i, o := range olds {
		m.add(i, o)
		d.olds, d.names = append(d.olds, o.Sound), append(d.names, o.Name)
	}
	m.pair()
	for _, s := range m.slabs {
		if err := s.locate(ctx, rules); err != nil {
			return nil, err
		}
	}
	d.runs, d.joints = m.runs()
	return d, nil
}

// slab is a term of an old file.
type slab struct {
	Term
	old   int
	file  Old
	off   int64         // in the old file
	at    map[int]int64 // where in the old file chunks begin, by index; those that are of interest
	sizes []Term        // terms of the new file that lie in it wholly
}

// pairing is what a term of the new file takes from slabs: its beginning of one,
// and its end of another one, if the first does not reach to it.
type pairing struct{ head, tail *slab }

// mostSlabs bounds the terms on one xorb that every term of a new file is held
// against.
const mostSlabs = 256

type matcher struct {
	now    Layout
	in     Span // of it
	byXorb map[Xorb][]*slab
	slabs  []*slab // that something is taken from
	pairs  []pairing
}

func (m *matcher) add(old int, o Old) {
	var off int64
	for _, t := range o.Terms {
		if list := m.byXorb[t.Xorb]; len(list) < mostSlabs && (o.Has == nil || o.Has(off, t.Size)) {
			m.byXorb[t.Xorb] = append(list, &slab{Term: t, old: old, file: o, off: off})
		}
		off += t.Size
	}
}

// pair chooses for each term of the new file what to take it from.
func (m *matcher) pair() {
	var off int64
	for _, t := range m.now.Terms {
		var p pairing
		if off += t.Size; off <= m.in.Off || off-t.Size >= m.in.Off+m.in.N {
			m.pairs = append(m.pairs, p)
			continue
		}
		for _, s := range m.byXorb[t.Xorb] {
			if s.First <= t.First && t.First < s.End && (p.head == nil || s.End > p.head.End) {
				p.head = s
			}
			if s.First < t.End && t.End <= s.End && (p.tail == nil || s.First < p.tail.First) {
				p.tail = s
			}
		}
		if p.head != nil && p.head.End >= t.End {
			p.tail = nil
		}
		if p.tail != nil && p.tail.First <= t.First {
			p.head, p.tail = p.tail, nil
		}
		m.need(p.head, t)
		m.need(p.tail, t)
		m.pairs = append(m.pairs, p)
	}
}

// need notes which borders of chunks have to be found in a slab.
func (m *matcher) need(s *slab, t Term) {
	if s == nil {
		return
	}
	if s.at == nil {
		s.at = map[int]int64{}
		m.slabs = append(m.slabs, s)
	}
	for _, i := range []int{max(t.First, s.First), min(t.End, s.End)} {
		s.at[i] = unknown
	}
	if s.First <= t.First && t.End <= s.End {
		s.sizes = append(s.sizes, t)
	}
}

const unknown = -1

// locate finds the borders that are of interest.
func (s *slab) locate(ctx context.Context, rules []Cut) error {
	s.at[s.First], s.at[s.End] = s.off, s.off+s.Size
	s.spread()
	indexes := slices.Sorted(maps.Keys(s.at))
	for i := 0; i+1 < len(indexes); {
		k := i + 1
		for s.at[indexes[k]] == unknown {
			k++
		}
		if k > i+1 {
			if err := s.cutBetween(ctx, indexes[i:k+1], rules); err != nil {
				return err
			}
		}
		i = k
	}
	return nil
}

// spread finds borders by what the new file's terms say of their sizes.
func (s *slab) spread() {
	for again := true; again; {
		again = false
		for _, t := range s.sizes {
			a, b := s.at[t.First], s.at[t.End]
			switch {
			case a != unknown && b == unknown && a+t.Size <= s.off+s.Size:
				s.at[t.End], again = a+t.Size, true
			case b != unknown && a == unknown && b-t.Size >= s.off:
				s.at[t.First], again = b-t.Size, true
			}
		}
	}
}

// cutBetween finds borders between two known ones: from each to the next by a
// term's size, else by cutting. They stay unknown when the last does not come out
// by any rule.
func (s *slab) cutBetween(ctx context.Context, indexes []int, rules []Cut) error {
	sizes := make(map[[2]int]int64, len(s.sizes))
	for _, t := range s.sizes {
		sizes[[2]int{t.First, t.End}] = t.Size
	}
	last := len(indexes) - 1
	for _, rule := range rules {
		found, at := make([]int64, 0, last), s.at[indexes[0]]
		for i := range last {
			n, ok := sizes[[2]int{indexes[i], indexes[i+1]}]
			if !ok {
				if context.Cause(ctx) != nil {
					return context.Cause(ctx)
				}
				n = s.cut(at, indexes[i+1]-indexes[i], s.at[indexes[last]], rule)
			}
			at += n
			found = append(found, at)
		}
		if found[last-1] != s.at[indexes[last]] {
			continue
		}
		for i, at := range found {
			s.at[indexes[i+1]] = at
		}
		return nil
	}
	return nil
}

// cut returns how long n chunks from off on are. It stops at end, and where the
// file can't be read: the sum will be wrong then.
func (s *slab) cut(off int64, n int, end int64, rule Cut) (sum int64) {
	buf := make([]byte, MaxChunk)
	for ; n > 0 && off+sum < end; n-- {
		data := buf[:min(MaxChunk, s.file.Size-off-sum)]
		if k, _ := s.file.Raw.ReadAt(data, off+sum); k < len(data) {
			return 0
		}
		sum += int64(rule(data))
	}
	return sum
}

// runs lists what is to be copied, without overlaps, and where within a term that
// begins or ends.
func (m *matcher) runs() (out []run, joints []Joint) {
	var off int64
	for i, t := range m.now.Terms {
		p := m.pairs[i]
		if s := p.head; s != nil {
			end := min(t.End, s.End)
			from, to := s.at[t.First], s.at[end]
			out = put(out, s, off, from, to, t.Size)
			joints = joint(joints, t, off, end, off+to-from)
		}
		if s := p.tail; s != nil {
			first := max(t.First, s.First)
			from, to := s.at[first], s.at[t.End]
			out = put(out, s, off+t.Size-(to-from), from, to, t.Size)
			joints = joint(joints, t, off, first, off+t.Size-(to-from))
		}
		off += t.Size
	}
	return out, joints
}

// joint notes that a chunk of a term begins at a place, if that can be and is not
// the term's own border.
func joint(list []Joint, t Term, off int64, index int, at int64) []Joint {
	inside := t.First < index && index < t.End && off < at && at < off+t.Size
	if n := len(list); !inside || n > 0 && list[n-1].Off >= at {
		return list
	}
	return append(list, Joint{Off: at, Xorb: t.Xorb, Index: index})
}

// put appends the bytes [from, to) of an old file that lie at off in the new one,
// as a part of a term of so many bytes.
func put(runs []run, s *slab, off, from, to, size int64) []run {
	if from == unknown || to == unknown || to <= from || to-from > size {
		return runs
	}
	r := run{off: off, size: to - from, old: s.old, from: from}
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if over := last.off + last.size - r.off; over > 0 { // a head and a tail that overlap
			if over >= r.size {
				return runs
			}
			r.off, r.from, r.size = r.off+over, r.from+over, r.size-over
		}
		if last.old == r.old && last.off+last.size == r.off && last.from+last.size == r.from {
			last.size += r.size
			return runs
		}
	}
	return append(runs, r)
}
