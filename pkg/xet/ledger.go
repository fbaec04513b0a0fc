package xet

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"

	"p2pagent/pkg/pieces"
)

// mostNoted bounds the chunks that a ledger remembers: about 20 MB, or 30 GB of
// files that this member itself reads. What comes beyond is checked by the digest
// of the whole file alone.
const mostNoted = 1 << 19

// run is consecutive chunks [first, end) of a xorb in consecutive bytes of a file.
type run struct {
	blob       pieces.Blob
	xorb       Hash
	first, end int
	off, size  int64
	host       string
}

// ledger remembers the chunks that were read for one snapshot, and checks every
// xorb and every file against its name as soon as all of it was read, whichever
// files and requests it came by.
type ledger struct {
	log *slog.Logger

	mu    sync.Mutex
	xorbs map[Hash]*xorbNotes
	files map[pieces.Blob]*fileNotes
	noted int
}

type xorbNotes struct {
	chunks []Node // by index; a zero hash is a chunk that was not read
	known  int
	count  int // how many there are; 0 while that is not known
	good   bool
	bad    int // how often it was found wrong
	runs   []run

	wrong     []Node // what was read before it was found wrong
	wrongRuns []run
}

type fileNotes struct {
	name Hash
	runs []run
	read int64
	good bool
	bad  int // how often it was found wrong
}

func newLedger(log *slog.Logger) *ledger {
	return &ledger{log: log, xorbs: make(map[Hash]*xorbNotes), files: make(map[pieces.Blob]*fileNotes)}
}

// verdict is what a ledger finds wrong.
type verdict struct {
	err   *ContentError
	spans []run // where in the files the bytes went
	times int   // that it was found wrong
}

// add notes a chunk that was read for a file, and returns what it made certain to
// be wrong.
func (l *ledger) add(b pieces.Blob, name Hash, c chunk) *verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	x, f := l.notes(b, name, c)
	if x == nil {
		return nil
	}
	piece := run{blob: b, xorb: c.xorb, first: c.index, end: c.index + 1, off: c.off, size: int64(c.size), host: c.host}
	x.add(c)
	x.runs = extend(x.runs, piece)
	f.runs = extend(f.runs, piece)
	f.read += piece.size
	if v := l.checkXorb(c, x); v != nil {
		return v
	}
	if c.last && f.read >= b.Size && !f.good {
		return l.checkFile(b, f)
	}
	return nil
}

// notes finds or makes the notes for a chunk; nil when there is no room for it.
func (l *ledger) notes(b pieces.Blob, name Hash, c chunk) (*xorbNotes, *fileNotes) {
	x, f := l.xorbs[c.xorb], l.files[b]
	if x == nil {
		x = &xorbNotes{}
		l.xorbs[c.xorb] = x
	}
	if more := c.index + 1 - len(x.chunks); more > 0 {
		if l.noted+more > mostNoted {
			return nil, nil
		}
		l.noted += more
		x.chunks = append(x.chunks, make([]Node, more)...)
	}
	if f == nil {
		f = &fileNotes{name: name}
		l.files[b] = f
	}
	return x, f
}

// extend appends a chunk to the run that it continues.
func extend(runs []run, c run) []run {
	for i := len(runs) - 1; i >= 0 && i >= len(runs)-8; i-- { // a few requests at once
		r := &runs[i]
		if r.blob == c.blob && r.xorb == c.xorb && r.end == c.first && r.off+r.size == c.off && r.host == c.host {
			r.end, r.size = c.end, r.size+c.size
			return runs
		}
	}
	return append(runs, c)
}

func (x *xorbNotes) add(c chunk) {
	n := &x.chunks[c.index]
	if n.Hash == (Hash{}) {
		x.known++
	} else if n.Hash != c.hash {
		x.good = false
	}
	*n = Node{c.hash, uint64(c.size)}
	if c.object != 0 && (c.object == c.end || c.object == c.end+FooterLength(c.index+1)) {
		x.count = c.index + 1 // nothing but a footer comes behind it
	}
}

// checkXorb compares a xorb with its name once every chunk of it was read. Where
// nobody said how long it is, a match proves that it is whole, and no match
// nothing.
func (l *ledger) checkXorb(c chunk, x *xorbNotes) *verdict {
	if x.good || x.known != len(x.chunks) || x.count != len(x.chunks) && (x.count != 0 || !c.last) {
		return nil
	}
	if Root(x.chunks) == c.xorb {
		x.good = true
		x.blame(l.log, c.xorb)
		return nil
	}
	if x.count == 0 {
		return nil
	}
	v := &verdict{err: &ContentError{What: "xorb", Name: c.xorb, Hosts: hostsOf(x.runs)}, spans: x.runs, times: x.bad + 1}
	l.forget(c.xorb, x)
	return v
}

// forget drops what was read of a xorb, but for what tells later which chunks were
// wrong.
func (l *ledger) forget(name Hash, x *xorbNotes) {
	l.noted -= len(x.chunks)
	x.bad++
	x.wrong, x.wrongRuns = x.chunks, x.runs
	x.chunks, x.known, x.count, x.runs = nil, 0, 0, nil
	for _, f := range l.files {
		f.runs = slices.DeleteFunc(f.runs, func(r run) bool {
			if r.xorb == name {
				f.read -= r.size
			}
			return r.xorb == name
		})
		f.good = false
	}
}

// blame names the chunks that had come wrong, and who sent them, once the right
// ones are here.
func (x *xorbNotes) blame(log *slog.Logger, name Hash) {
	for i, was := range x.wrong {
		if i < len(x.chunks) && was != (Node{}) && was != x.chunks[i] {
			log.Warn("xet: chunk had come wrong", "xorb", name.String(), "chunk", i, "from", hostOf(x.wrongRuns, i))
		}
	}
	x.wrong, x.wrongRuns = nil, nil
}

func hostsOf(runs []run) (out []string) {
	for _, r := range runs {
		if !slices.Contains(out, r.host) {
			out = append(out, r.host)
		}
	}
	return out
}

func hostOf(runs []run, index int) string {
	for _, r := range slices.Backward(runs) {
		if r.first <= index && index < r.end {
			return r.host
		}
	}
	return ""
}

// checkFile compares a file with its name once every byte of it was read.
func (l *ledger) checkFile(b pieces.Blob, f *fileNotes) *verdict {
	chunks, ok := l.inOrder(b, f)
	if !ok {
		return nil
	}
	if f.good = FileHash(chunks) == f.name; f.good {
		return nil
	}
	f.bad++
	v := &verdict{err: &ContentError{What: "file", Name: f.name, Hosts: hostsOf(f.runs)}, times: f.bad}
	for _, r := range f.runs {
		if x := l.xorbs[r.xorb]; !x.good {
			v.spans = append(v.spans, r)
			x.suspect(r)
		}
	}
	if len(v.spans) == 0 { // every xorb is right: they are put together wrong
		v.spans, v.times = slices.Clone(f.runs), max(v.times, 2)
	}
	f.runs, f.read = nil, 0
	return v
}

// suspect sets the chunks of a run aside.
func (x *xorbNotes) suspect(r run) {
	if x.wrong == nil {
		x.wrong = make([]Node, len(x.chunks))
	}
	for i := r.first; i < min(r.end, len(x.wrong)); i++ {
		if x.chunks[i] != (Node{}) {
			x.known--
		}
		x.wrong[i], x.chunks[i] = x.chunks[i], Node{}
	}
	x.wrongRuns = append(x.wrongRuns, r)
	x.runs = slices.DeleteFunc(x.runs, func(o run) bool { return o == r })
}

// inOrder lists the chunks of a file, if they leave no gap.
func (l *ledger) inOrder(b pieces.Blob, f *fileNotes) (out []Node, whole bool) {
	slices.SortStableFunc(f.runs, func(a, b run) int { return cmp.Compare(a.off, b.off) })
	var at int64
	for _, r := range f.runs {
		off := r.off
		for i := r.first; i < r.end; i++ {
			n := l.xorbs[r.xorb].chunks[i]
			if off == at {
				out = append(out, n)
				at += int64(n.Size)
			}
			off += int64(n.Size)
		}
	}
	return out, at == b.Size
}
