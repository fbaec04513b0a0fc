package xet

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"p2pagent/pkg/pieces"
)

// NewFile names a file of an outline; it must have a Xet name.
func NewFile(repo pieces.Repo, commit pieces.Commit, f pieces.File) (File, error) {
	name, err := ParseHash(f.Xet.String())
	return File{Repo: repo, Commit: commit, Name: name, Size: f.Blob.Size}, err
}

// Local is a file that is here, of an earlier revision or another repository.
type Local struct {
	File
	Content io.ReaderAt
}

// copied is a chunk of a new file that an old one has.
type copied struct {
	off, size int64 // in the new file
	from      int64 // in the old one
	hash      Hash
}

// Delta is what of a new file can be copied out of an old one that is here: the
// chunks that their reconstructions have in common. Its bytes are compared with
// their chunks' hashes while they are read.
type Delta struct {
	content io.ReaderAt
	chunks  []copied // by off
}

// Delta compares two files. The chunks of the old one are cut anew and believed
// when they give its name; when they don't, by none of the rules that writers had,
// nothing can be copied and the error wraps ErrContent. It costs two questions to the
// CAS, and one pass over the old file when there is something in common.
func (c *Client) Delta(ctx context.Context, f File, old Local) (*Delta, error) {
	d := &Delta{content: old.Content}
	now, err := c.reconstruct(ctx, f, 0, f.Size, false)
	if err != nil {
		return nil, err
	}
	then, err := c.reconstruct(ctx, old.File, 0, old.Size, false)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(now.terms, then.touches) {
		return d, nil
	}
	chunks, err := old.chunks(ctx)
	if err != nil {
		return nil, err
	}
	have, err := then.locate(chunks)
	if err != nil {
		return nil, err
	}
	d.chunks = have.of(now)
	return d, nil
}

func (p *plan) touches(t term) bool {
	return slices.ContainsFunc(p.terms, func(o term) bool { return o.xorb == t.xorb && o.first < t.end && t.first < o.end })
}

// chunks cuts the file by either rule and returns those that give its name.
func (l Local) chunks(ctx context.Context) ([]Node, error) {
	for _, rule := range []Rule{Current, Legacy} {
		list, err := cutAll(ctx, l.Content, l.Size, rule)
		if err != nil {
			return nil, fmt.Errorf("cut %s: %w", l.Name, err)
		}
		if FileHash(list) == l.Name {
			return list, nil
		}
	}
	return nil, fmt.Errorf("cut %s: %w", l.Name, ErrContent)
}

// cutAll reads a file from its start to its end, a mebibyte at a time.
func cutAll(ctx context.Context, r io.ReaderAt, size int64, rule Rule) (list []Node, err error) {
	buf, k := make([]byte, 1<<20), newKeyed(dataKey)
	for off := int64(0); off < size; {
		data := buf[:min(int64(len(buf)), size-off)]
		if n, err := r.ReadAt(data, off); n < len(data) {
			return nil, cmp.Or(err, io.ErrUnexpectedEOF)
		}
		last := off+int64(len(data)) == size
		for len(data) >= MaxChunk || last && len(data) > 0 {
			n := rule.Cut(data)
			list = append(list, Node{k.sum(data[:n]), uint64(n)})
			data, off = data[n:], off+int64(n)
		}
		if context.Cause(ctx) != nil {
			return nil, context.Cause(ctx)
		}
		if len(list) > mostNoted {
			return nil, fmt.Errorf("more than %d chunks", mostNoted)
		}
	}
	return list, nil
}

// located is which chunks of which xorbs a file here has, and where.
type located struct {
	chunks []Node
	offs   []int64 // of each in the file
	terms  map[Hash][]held
}

// held is chunks [first, end) of a xorb: those from at on in the list.
type held struct{ first, end, at int }

// locate matches the terms of a file with its chunks.
func (p *plan) locate(chunks []Node) (*located, error) {
	l := &located{chunks: chunks, offs: make([]int64, len(chunks)), terms: make(map[Hash][]held)}
	var off int64
	for i, c := range chunks {
		l.offs[i] = off
		off += int64(c.Size)
	}
	at := 0
	for _, t := range p.terms {
		var size int64
		for i := at; i < min(at+t.end-t.first, len(chunks)); i++ {
			size += int64(chunks[i].Size)
		}
		if size != t.size {
			return nil, fmt.Errorf("%w: a term of %d bytes has chunks of %d", ErrAnswer, t.size, size)
		}
		l.terms[t.xorb] = append(l.terms[t.xorb], held{t.first, t.end, at})
		at += t.end - t.first
	}
	return l, nil
}

// find returns the place in the list of a chunk, or -1.
func (l *located) find(xorb Hash, index int) int {
	for _, h := range l.terms[xorb] {
		if h.first <= index && index < h.end {
			return h.at + index - h.first
		}
	}
	return -1
}

// of returns the chunks of a new file that are here, where their place in it is
// certain: of a term of which some chunks are not here, those at its start and its
// end.
func (l *located) of(p *plan) (out []copied) {
	var pos int64
	for _, t := range p.terms {
		at, i := pos, t.first
		for ; i < t.end; i++ {
			k := l.find(t.xorb, i)
			if k < 0 {
				break
			}
			out = append(out, l.copied(k, at))
			at += int64(l.chunks[k].Size)
		}
		end := pos + t.size
		for j := t.end - 1; j > i; j-- {
			k := l.find(t.xorb, j)
			if k < 0 {
				break
			}
			end -= int64(l.chunks[k].Size)
			out = append(out, l.copied(k, end))
		}
		pos += t.size
	}
	slices.SortFunc(out, func(a, b copied) int { return cmp.Compare(a.off, b.off) })
	return out
}

func (l *located) copied(k int, off int64) copied {
	return copied{off: off, size: int64(l.chunks[k].Size), from: l.offs[k], hash: l.chunks[k].Hash}
}

// Covers tells whether the bytes [off, off+n) of the new file are all here.
func (d *Delta) Covers(off, n int64) bool {
	i, ok := d.at(off)
	for end := off + n; ok && i < len(d.chunks) && d.chunks[i].off <= off; i++ {
		if off = d.chunks[i].off + d.chunks[i].size; off >= end {
			return true
		}
	}
	return false
}

// at finds the chunk that has the byte.
func (d *Delta) at(off int64) (int, bool) {
	i, exact := slices.BinarySearchFunc(d.chunks, off, func(c copied, off int64) int { return cmp.Compare(c.off, off) })
	if exact {
		return i, true
	}
	return i - 1, i > 0 && off < d.chunks[i-1].off+d.chunks[i-1].size
}

// errNotHere is for ranges that Covers denies.
var errNotHere error = &notHere{}

type notHere struct{}

func (*notHere) Error() string   { return "not in the older file" }
func (*notHere) Permanent() bool { return true }

// Open returns a reader of bytes of the new file that Covers confirmed. A chunk
// that is not what its hash says ends it for good.
func (d *Delta) Open(ctx context.Context, _ pieces.Blob, off, n int64) (io.ReadCloser, error) {
	if !d.Covers(off, n) {
		return nil, errNotHere
	}
	i, _ := d.at(off)
	return io.NopCloser(&deltaReader{ctx: ctx, delta: d, next: i, off: off, left: n, keyed: newKeyed(dataKey), buf: make([]byte, MaxChunk)}), nil
}

type deltaReader struct {
	ctx       context.Context
	delta     *Delta
	next      int
	off, left int64
	keyed     keyed
	buf, rest []byte
}

// Read implements io.Reader.
func (r *deltaReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(r.rest) == 0 {
		if err := r.load(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest[:min(int64(len(r.rest)), r.left)])
	r.rest, r.off, r.left = r.rest[n:], r.off+int64(n), r.left-int64(n)
	return n, nil
}

// load reads and checks the next chunk.
func (r *deltaReader) load() error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	c := r.delta.chunks[r.next]
	data := r.buf[:c.size]
	if n, err := r.delta.content.ReadAt(data, c.from); n < len(data) {
		return &spoiled{cmp.Or(err, io.ErrUnexpectedEOF)}
	}
	if r.keyed.sum(data) != c.hash {
		return &spoiled{fmt.Errorf("chunk at %d of the older file: %w", c.from, ErrContent)}
	}
	r.next++
	r.rest = data[r.off-c.off:]
	return nil
}

// spoiled is a file on the disk that can't be copied from: trying again is vain.
type spoiled struct{ err error }

func (e *spoiled) Error() string   { return e.err.Error() }
func (e *spoiled) Unwrap() error   { return e.err }
func (e *spoiled) Permanent() bool { return true }
