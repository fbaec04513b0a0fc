package xet

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"

	"p2pagent/internal/layout"
)

// section is consecutive bytes [off, end) of a file that come one way: from the
// store, or out of files that are here.
type section struct {
	off, end int64
	local    bool
	alone    bool // it has a question of its own
}

// mixed hands out bytes of a file in their order, those that a delta has from here
// and the others from the store. One goroutine reads; Close may be called from any.
type mixed struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	client *Client
	file   File
	delta  *layout.Delta
	seen   func(chunk) error
	closed func(at int64, err error) // told once how far it got, and what broke upstream
	host   string                    // that the first chunk came from

	mu       sync.Mutex // held while Read works; guards what follows
	pos      int64
	sections []section // from the one at pos on
	shared   *reader   // for the sections that have no question of their own
	own      *reader   // of the section at hand
	copied   bool      // the last Read brought what was here
	broke    error     // upstream
	err      error
}

// newMixed asks for the reconstruction and reads the first chunk that is to come
// from the store, so that what can't work shows here.
func (c *Client) newMixed(ctx context.Context, f File, off, n int64, d *layout.Delta, seen func(chunk) error) (*mixed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	m := &mixed{ctx: ctx, cancel: cancel, client: c, file: f, delta: d, seen: seen, pos: off}
	if err := m.begin(off, n); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *mixed) begin(off, n int64) error {
	gaps := m.delta.Gaps(off, n)
	if len(gaps) == 0 {
		m.sections = []section{{off: off, end: off + n, local: true}}
		return nil
	}
	p, err := m.client.reconstruct(m.ctx, m.file, off, n, false)
	if err != nil {
		return err
	}
	p.divide(m.delta)
	m.sections = p.sections()
	rest := p.without()
	if len(rest.terms) == 0 {
		return nil // what is missing has questions of its own
	}
	r := m.client.newReader(m.ctx, m.file, rest, m.seen)
	if rest.wasteful() && len(m.sections) <= mostAlone {
		for i := range m.sections {
			m.sections[i].alone = !m.sections[i].local
		}
		return nil // each is opened when it is its turn
	}
	if err := r.advance(); err != nil {
		r.Close()
		return err
	}
	m.shared, m.host = r, r.streams[len(r.streams)-1].url.Host
	return nil
}

// Read implements io.Reader.
func (m *mixed) Read(p []byte) (n int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return 0, m.err
	}
	if len(m.sections) == 0 {
		return 0, io.EOF
	}
	s := &m.sections[0]
	if p = p[:min(int64(len(p)), s.end-m.pos)]; s.local {
		n, err = m.delta.ReadAt(p, m.pos)
	} else {
		n, err = m.fetch(s, p)
	}
	m.copied, m.err = s.local, err
	if m.pos += int64(n); m.pos == s.end {
		m.sections = m.sections[1:]
		m.closeOwn()
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// fetch reads from the store.
func (m *mixed) fetch(s *section, p []byte) (int, error) {
	r := m.shared
	if s.alone {
		if m.own == nil {
			plan, err := m.client.reconstruct(m.ctx, m.file, m.pos, s.end-m.pos, false)
			if err != nil {
				m.broke = err
				return 0, err
			}
			m.own = m.client.newReader(m.ctx, m.file, plan, m.seen)
		}
		r = m.own
	}
	n, err := r.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	m.broke = err
	return n, err
}

func (m *mixed) closeOwn() {
	if m.own != nil {
		m.own.Close()
		m.own = nil
	}
}

// Copied tells whether the last Read brought bytes that were here.
func (m *mixed) Copied() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copied
}

// Host returns the host that the first bytes from the store came from.
func (m *mixed) Host() string { return m.host }

// Close ends the requests that are open, and a Read that waits for them.
func (m *mixed) Close() error {
	m.cancel(errClosed)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.shared != nil {
		m.shared.Close()
		m.shared = nil
	}
	m.closeOwn()
	m.sections = nil
	if m.closed != nil {
		m.closed(m.pos, m.broke)
		m.closed = nil
	}
	if m.err == nil {
		m.err = errClosed
	}
	return nil
}

// divide cuts terms where what is here begins or ends, marks those that are here, and
// notes what is missing of those of which most is.
func (p *plan) divide(d *layout.Delta) {
	if d == nil {
		return
	}
	var out []term
	for _, t := range p.terms {
		for _, j := range d.Joints(t.at, t.size) {
			if p.off < j.Off && j.Off < p.off+p.n && t.xorb == Hash(j.Xorb) && t.first < j.Index && j.Index < t.end {
				head := t
				head.end, head.size = j.Index, j.Off-t.at
				out = append(out, head)
				t.first, t.at, t.size = j.Index, j.Off, t.size-head.size
			}
		}
		out = append(out, t)
	}
	for i := range out {
		off, end := p.wanted(&out[i])
		gaps := d.Gaps(off, end-off)
		var missing int64
		for _, g := range gaps {
			missing += g.N
		}
		if out[i].local = len(gaps) == 0; !out[i].local && missing < (end-off)*3/4 && len(gaps) < mostAlone {
			out[i].gaps = gaps
		}
	}
	p.terms = out
}

// wanted returns which bytes of a term were asked for.
func (p *plan) wanted(t *term) (off, end int64) {
	return max(t.at, p.off), min(t.at+t.size, p.off+p.n)
}

// sections lists what comes which way.
func (p *plan) sections() (out []section) {
	for i := range p.terms {
		t := &p.terms[i]
		off, end := p.wanted(t)
		for _, g := range t.gaps {
			out = join(out, section{off: off, end: g.Off, local: true})
			out = join(out, section{off: g.Off, end: g.Off + g.N, alone: true})
			off = g.Off + g.N
		}
		out = join(out, section{off: off, end: end, local: t.local || t.gaps != nil})
	}
	return out
}

// join appends a section, to the last one if it comes the same way.
func join(list []section, s section) []section {
	if n := len(list); n > 0 && list[n-1].local == s.local && list[n-1].alone == s.alone {
		list[n-1].end = s.end
		return list
	}
	if s.off == s.end {
		return list
	}
	return append(list, s)
}

// without returns the plan for the terms of which nothing, or not much, is here.
func (p *plan) without() *plan {
	out := *p
	out.terms, out.skip = nil, 0
	for _, t := range p.terms {
		if t.local || t.gaps != nil {
			continue
		}
		if len(out.terms) == 0 {
			out.skip = max(p.off-t.at, 0)
		}
		out.terms = append(out.terms, t)
	}
	return &out
}

const (
	// mostAlone is how many sections of one extent may have questions of their own.
	mostAlone = 64
	// mostWaste is how many chunks may be read and not used before that is done: they
	// take as long as the question.
	mostWaste = 2
)

// wasteful tells whether the ranges have a good deal that is not needed. The Hub's
// ranges are what the question asked for; with parts left out, they may be long. What
// lies behind the last chunk that is needed counts too: some of it is under way when
// the body is closed.
func (p *plan) wasteful() bool {
	terms := slices.Clone(p.terms)
	slices.SortFunc(terms, func(a, b term) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.first, b.first)) })
	waste, end := 0, 0
	for i, t := range terms {
		r := &p.ranges[t.from]
		if i == 0 || terms[i-1].from != t.from {
			waste, end = waste+r.end-r.first, 0
		}
		waste -= max(0, t.end-max(t.first, end))
		end = max(end, t.end)
	}
	return waste > mostWaste
}
