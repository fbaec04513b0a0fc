package cachefs

import (
	"context"
	"hash"
	"os"
	"path"
	"strings"
	"sync"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// partial is a blob whose pieces are still coming in.
type partial struct {
	blob       pieces.Blob
	completing chan struct{} // held by Complete
	flushing   chan struct{} // held while the journal is written
	hashing    chan struct{} // held by whoever extends the running digest
	journalEnd int64         // guarded by flushing

	mu         sync.Mutex // guards the fields below; never held across I/O
	repos      []pieces.Repo
	held       *pieces.Set
	statements map[int]pieces.Statement
	writing    map[int]chan struct{} // closed when that piece is settled
	unsynced   []int                 // held, not in the journal
	pin        *handle               // keeps the file open while it has unsynced pieces

	sum    hash.Hash // over the first hashed pieces; guarded by hashing
	hashed int
	stale  bool // sum covers a piece that is not held any more
}

func newPartial(b pieces.Blob) *partial {
	return &partial{
		blob:       b,
		completing: make(chan struct{}, 1),
		flushing:   make(chan struct{}, 1),
		hashing:    make(chan struct{}, 1),
		held:       pieces.NewSet(b.Pieces()),
		statements: map[int]pieces.Statement{},
		writing:    map[int]chan struct{}{},
		sum:        b.NewHash(),
	}
}

// journalled tells whether single pieces survive a restart. A blob of one piece
// is whole as soon as it has any, so a journal would only cost syncs.
func (p *partial) journalled() bool { return p.blob.Pieces() > 1 }

// loadPartials believes what the journals say: data was synced before each record.
func (c *Cache) loadPartials() error {
	entries, err := c.state.ReadDir(partialDir)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), journalSuffix); ok {
			known[name] = c.loadPartial(path.Join(partialDir, e.Name()))
		}
	}
	for _, e := range entries {
		if !known[strings.TrimSuffix(e.Name(), journalSuffix)] {
			if err := c.state.RemoveAll(path.Join(partialDir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadPartial tells whether journal and data can be used.
func (c *Cache) loadPartial(journal string) bool {
	raw, err := c.state.ReadFile(journal)
	if err != nil {
		return false
	}
	b, statements, good, err := parseJournal(raw)
	if err != nil || journalName(b) != journal {
		c.log.Warn("journal not readable; its pieces must be fetched again", "journal", journal, "err", err)
		return false
	}
	info, err := c.state.Lstat(dataName(b))
	if err != nil || !info.Mode().IsRegular() || info.Size() != b.Size {
		return false
	}
	if good < len(raw) {
		c.log.Warn("journal ends in a torn record; cut off", "journal", journal, "bytes", len(raw)-good)
	}
	p := newPartial(b)
	p.journalEnd = int64(good)
	for _, s := range statements {
		p.held.Add(s.Index)
		p.statements[s.Index] = s
	}
	c.partials[b] = p
	return true
}

// openData returns the data file. Begin made it; but a blob of one piece gets its
// file only with the piece.
func (c *Cache) openData(p *partial) (*handle, error) {
	flag := os.O_RDWR
	if !p.journalled() {
		flag |= os.O_CREATE
	}
	return c.handles.get(p.blob, func() (*durable.File, error) {
		return c.state.OpenFile(dataName(p.blob), flag, 0o666)
	})
}

// claim reserves a piece for writing. It returns false when the piece is held
// already, after waiting for another writer of it if there is one: two writers
// with different bytes (one of them a liar's) must not mix.
func (p *partial) claim(ctx context.Context, index int) (bool, error) {
	for {
		p.mu.Lock()
		other := p.writing[index]
		if p.held.Has(index) {
			p.mu.Unlock()
			return false, nil
		}
		if other == nil {
			p.writing[index] = make(chan struct{})
			p.mu.Unlock()
			return true, nil
		}
		p.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// settle ends a claim. h is the open file, kept until the piece is synced.
func (p *partial) settle(s pieces.Statement, h *handle, err error) (keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.writing[s.Index])
	delete(p.writing, s.Index)
	if err != nil {
		return false
	}
	p.held.Add(s.Index)
	p.statements[s.Index] = s
	if p.journalled() {
		p.unsynced = append(p.unsynced, s.Index)
	}
	if p.pin == nil {
		p.pin = h
		return true
	}
	return false
}

// drop un-holds pieces.
func (p *partial) drop(indexes []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range indexes {
		p.held.Remove(i)
		delete(p.statements, i)
		if i < p.hashed {
			p.stale = true
		}
	}
}

func (p *partial) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Full()
}

func (p *partial) holds(index int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Has(index)
}

// list returns the statements of held pieces, ascending.
func (p *partial) list() []pieces.Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]pieces.Statement, 0, p.held.Count())
	for i := range p.held.All() {
		out = append(out, p.statements[i])
	}
	return out
}

func (p *partial) want(repo pieces.Repo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.repos {
		if r == repo {
			return
		}
	}
	p.repos = append(p.repos, repo)
}
