package layout

import (
	"errors"
	"io"
	"sort"
	"sync"

	"p2pagent/pkg/pieces"
)

// Delta is what of a new file can be copied out of old ones. It is safe for
// concurrent use.
type Delta struct {
	olds   []io.ReaderAt
	names  []pieces.Digest // of these
	joints []Joint         // by Off

	mu   sync.Mutex
	runs []run // by off, without overlaps
}

// run is bytes of the new file that an old one has.
type run struct {
	off, size int64 // in the new file
	old       int
	from      int64 // in the old one
}

// Span is bytes [Off, Off+N) of the new file.
type Span struct{ Off, N int64 }

// Joint is a place within a term of the new file where what is here begins or ends:
// the chunk Index of its xorb begins at Off.
type Joint struct {
	Off   int64
	Xorb  Xorb
	Index int
}

// Joints returns those within the bytes [off, off+n), in their order.
func (d *Delta) Joints(off, n int64) []Joint {
	first := sort.Search(len(d.joints), func(i int) bool { return d.joints[i].Off > off })
	end := sort.Search(len(d.joints), func(i int) bool { return d.joints[i].Off >= off+n })
	return d.joints[first:max(first, end)]
}

// ErrNotHere tells that bytes can't be copied, or not any more.
var ErrNotHere = errors.New("not in a file that is here")

// Size returns how many bytes can be copied.
func (d *Delta) Size() (n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.runs {
		n += r.size
	}
	return n
}

// Gaps returns which of the bytes [off, off+n) can't be copied, in their order:
// none when all can. A nil Delta has nothing.
func (d *Delta) Gaps(off, n int64) (out []Span) {
	end := off + n
	if d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i := d.find(off); i < len(d.runs) && d.runs[i].off < end; i++ {
			r := d.runs[i]
			if r.off > off {
				out = append(out, Span{off, r.off - off})
			}
			off = r.off + r.size
		}
	}
	if off < end {
		out = append(out, Span{off, end - off})
	}
	return out
}

// find returns the first run that ends behind off: runs don't overlap, so their
// ends ascend too.
func (d *Delta) find(off int64) int {
	return sort.Search(len(d.runs), func(i int) bool { return d.runs[i].off+d.runs[i].size > off })
}

// at returns the part of a run that begins at off.
func (d *Delta) at(off int64) (run, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := d.find(off)
	if i == len(d.runs) || d.runs[i].off > off {
		return run{}, false
	}
	r := d.runs[i]
	skip := off - r.off
	return run{off: off, size: r.size - skip, old: r.old, from: r.from + skip}, true
}

// ReadAt copies bytes of the new file, which Gaps said are here. What turns out not
// to be sound is a gap from then on, and the error wraps ErrNotHere.
func (d *Delta) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		r, ok := d.at(off + int64(n))
		if !ok {
			return n, ErrNotHere
		}
		part := p[n:min(int64(len(p)), int64(n)+r.size)]
		k, err := d.olds[r.old].ReadAt(part, r.from)
		if k < len(part) {
			d.lose(r.old, err)
			return n, errors.Join(ErrNotHere, err)
		}
		n += k
	}
	return n, nil
}

// lose drops what an old file does not have any more.
func (d *Delta) lose(old int, err error) {
	if spoiled, ok := errors.AsType[interface {
		error
		Spoiled() (off, n int64)
	}](err); ok {
		off, n := spoiled.Spoiled()
		d.drop(func(r run) bool { return r.old == old }, off, n)
		return
	}
	d.drop(func(r run) bool { return r.old == old }, 0, 1<<62)
}

// drop takes the bytes [off, off+n) of old files out of those runs.
func (d *Delta) drop(of func(run) bool, off, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := make([]run, 0, len(d.runs)+1)
	for _, r := range d.runs {
		end := r.from + r.size
		if !of(r) || end <= off || r.from >= off+n {
			kept = append(kept, r)
			continue
		}
		if head := off - r.from; head > 0 {
			kept = append(kept, run{r.off, head, r.old, r.from})
		}
		if tail := end - off - n; tail > 0 {
			kept = append(kept, run{r.off + r.size - tail, tail, r.old, end - tail})
		}
	}
	d.runs = kept
}

// Clear drops everything, because what was made of it was wrong, and returns the
// names of the files by whose layouts that was.
func (d *Delta) Clear() []pieces.Digest {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.runs = nil
	return d.names
}
