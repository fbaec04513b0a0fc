package xet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// chunk is one chunk as it was read, and where.
type chunk struct {
	xorb   Hash
	index  int
	hash   Hash
	size   int
	off    int64 // in the file
	host   string
	end    int64 // of its record in the xorb
	object int64 // length of the whole xorb, 0 when it is not known
	last   bool  // of its term
}

const (
	// mostStreams are the ranges that one reader has open: the terms of a file may
	// go to and fro between a few xorbs.
	mostStreams = 4
	// mostKept bounds the plain bytes that a reader keeps because a later term has
	// the same chunk: rows of zeros in an embedding are one chunk a hundred times.
	mostKept = 16 << 20
	// mostAgain is how many ranges may be fetched a second time because they did
	// not fit into the two above. More is a reconstruction made to waste bytes.
	mostAgain = 8
	// mostListed bounds the chunks of a range for which uses are noted.
	mostListed = 1 << 16
	// mostRenewed is how often the URL of a range is asked for anew.
	mostRenewed = 2
)

type place struct {
	xorb  Hash
	index int
}

// reader hands out the bytes of a plan's terms in their order, chunk by chunk. Its memory
// does not depend on how long the plan is, or a xorb. One goroutine reads; Close may
// be called from any.
type reader struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	client *Client
	file   File
	plan   *plan
	seen   func(chunk) error

	mu sync.Mutex // held while Read works; guards what follows

	term, index int   // the next chunk
	got         int64 // plain bytes of the term so far
	pos         int64 // of the next chunk in the file
	rest        []byte
	drop, left  int64 // bytes to leave out, and to hand out
	err         error

	streams []*stream // in use, latest last
	opened  []int     // by range: how often it was fetched
	renewed []int     // by range: how often its URL was
	again   int
	lastUse [][]int32 // by range and chunk: the last term that has it; nil when each is used once
	kept    map[place]keptChunk
	keeping int64
}

type keptChunk struct {
	chunk
	plain []byte
}

func (c *Client) newReader(ctx context.Context, f File, p *plan, seen func(chunk) error) *reader {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &reader{ctx: ctx, cancel: cancel, client: c, file: f, plan: p, seen: seen, index: p.terms[0].first, pos: p.terms[0].at, drop: p.skip, left: p.length(),
		opened: make([]int, len(p.ranges)), renewed: make([]int, len(p.ranges)), kept: make(map[place]keptChunk)}
	r.lastUse = p.uses()
	return r
}

// length returns how many bytes of the terms were asked for.
func (p *plan) length() (n int64) {
	for i := range p.terms {
		off, end := p.wanted(&p.terms[i])
		n += end - off
	}
	return n
}

// uses notes, for ranges that several terms share, which term is the last to have
// each chunk.
func (p *plan) uses() [][]int32 {
	count := make([]int, len(p.ranges))
	for i := range p.terms {
		count[p.terms[i].from]++
	}
	out := make([][]int32, len(p.ranges))
	for i, t := range p.terms {
		r := &p.ranges[t.from]
		if count[t.from] < 2 || r.end-r.first > mostListed {
			continue
		}
		if out[t.from] == nil {
			out[t.from] = make([]int32, r.end-r.first)
		}
		for k := t.first; k < t.end; k++ {
			out[t.from][k-r.first] = int32(i)
		}
	}
	return out
}

// errClosed ends the requests of a reader that was closed.
var errClosed = errors.New("reader closed")

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.rest) == 0 && r.left > 0 && r.err == nil {
		r.err = r.advance()
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n := copy(p, r.rest[:min(int64(len(r.rest)), r.left)])
	r.rest, r.left = r.rest[n:], r.left-int64(n)
	return n, nil
}

// Close ends the requests that are open, and a Read that waits for them.
func (r *reader) Close() error {
	r.cancel(errClosed)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		s.close()
	}
	r.streams, r.rest = nil, nil
	if r.err == nil {
		r.err = errClosed
	}
	return nil
}

// advance makes the next chunk the one to hand out.
func (r *reader) advance() error {
	r.dropEnded()
	t := &r.plan.terms[r.term]
	plain, c, err := r.chunk(t, r.index)
	if err != nil {
		return err
	}
	r.index++
	r.got += int64(len(plain))
	c.off, c.last = r.pos, r.index == t.end
	if r.got > t.size || c.last && r.got != t.size {
		return &Error{Op: r.file.op(), Host: c.host, Err: fmt.Errorf("%w: term %d has %d bytes or more, not %d", ErrAnswer, r.term, r.got, t.size)}
	}
	if err := r.seen(c); err != nil {
		return err
	}
	r.pos += int64(len(plain))
	out := min(r.drop, int64(len(plain)))
	r.drop -= out
	r.rest = plain[out:]
	if c.last && r.term+1 < len(r.plan.terms) {
		r.term, r.got = r.term+1, 0
		r.index, r.pos = r.plan.terms[r.term].first, r.plan.terms[r.term].at
	}
	return nil
}

// chunk returns a chunk of a term, from memory or from its range.
func (r *reader) chunk(t *term, index int) ([]byte, chunk, error) {
	if k, ok := r.kept[place{t.xorb, index}]; ok {
		if !r.later(t.from, index) {
			delete(r.kept, place{t.xorb, index})
			r.keeping -= int64(len(k.plain))
		}
		return k.plain, k.chunk, nil
	}
	s, err := r.stream(t.from, index)
	if err != nil {
		return nil, chunk{}, err
	}
	for s.at < index {
		if err := r.pass(s, t.from); err != nil {
			return nil, chunk{}, err
		}
	}
	return r.take(s, t.from)
}

// take decodes the next chunk of a stream, and keeps it when a later term has it.
func (r *reader) take(s *stream, from int) ([]byte, chunk, error) {
	c := chunk{xorb: s.xorb, index: s.at, host: s.url.Host, object: s.object}
	plain, hash, err := s.next()
	if err != nil {
		return nil, chunk{}, err
	}
	c.hash, c.size, c.end = hash, len(plain), s.ended()
	if r.later(from, c.index) && r.keeping+int64(len(plain)) <= mostKept {
		r.keeping += int64(len(plain))
		r.kept[place{c.xorb, c.index}] = keptChunk{c, slices.Clone(plain)}
	}
	return plain, c, nil
}

// pass goes over a chunk that the term at hand does not have.
func (r *reader) pass(s *stream, from int) error {
	if r.later(from, s.at) {
		_, _, err := r.take(s, from)
		return err
	}
	return s.skip()
}

func (r *reader) later(from, index int) bool {
	last := r.lastUse[from]
	return last != nil && int(last[index-r.plan.ranges[from].first]) > r.term
}

// stream returns an open stream of the range that is not past the chunk.
func (r *reader) stream(from, index int) (*stream, error) {
	want := &r.plan.ranges[from]
	for i, s := range r.streams {
		if s.signed != want {
			continue
		}
		r.streams = append(slices.Delete(r.streams, i, i+1), s)
		if s.at <= index {
			return s, nil
		}
		r.close1(s)
		break
	}
	if len(r.streams) == mostStreams {
		r.close1(r.streams[0])
	}
	if r.opened[from]++; r.opened[from] > 1 {
		if r.again++; r.again > mostAgain {
			return nil, &Error{Op: r.file.op(), Host: want.url.Host, Err: fmt.Errorf("%w: its terms need too many ranges twice", ErrAnswer)}
		}
	}
	s, err := r.open(from)
	if err != nil {
		return nil, err
	}
	r.streams = append(r.streams, s)
	return s, nil
}

// close1 closes a stream. Nothing that it decoded may be in use any more.
func (r *reader) close1(s *stream) {
	r.streams = slices.DeleteFunc(r.streams, func(o *stream) bool { return o == s })
	s.close()
}

func (r *reader) dropEnded() {
	for _, s := range slices.Clone(r.streams) {
		if s.at == s.end {
			r.close1(s)
		}
	}
}

// open fetches a range, with new URLs when its own has expired.
func (r *reader) open(from int) (*stream, error) {
	for {
		s, err := r.client.fetch(r.ctx, &r.plan.ranges[from])
		if err == nil || !expired(err) {
			return s, err
		}
		if r.renewed[from]++; r.renewed[from] > mostRenewed {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if err := r.renew(from); err != nil {
			return nil, err
		}
	}
}

// renew asks for the same bytes again and takes over the new URLs. When the URL
// was signed for several ranges together, it is the older form's turn, in which
// each has its own.
func (r *reader) renew(from int) error {
	old := &r.plan.ranges[from]
	r.client.log.Info("xet: signed URL expired, asking anew", "xorb", old.xorb.String(), "host", old.url.Host)
	p, err := r.client.reconstruct(r.ctx, r.file, r.plan.off, r.plan.n, old.shared && r.renewed[from] > 1)
	if err != nil {
		return err
	}
	found := false
	for i := range r.plan.ranges {
		mine := &r.plan.ranges[i]
		k := p.find(mine.xorb, mine.first, mine.end)
		if k < 0 || !p.ranges[k].same(mine) {
			continue
		}
		mine.url, mine.shared = p.ranges[k].url, p.ranges[k].shared
		found = found || i == from
	}
	if !found {
		return &Error{Op: r.file.op(), Host: old.url.Host, Err: fmt.Errorf("%w: another division of the file than before", ErrAnswer)}
	}
	return nil
}
