package cachefs

import (
	"context"
	"errors"
	"hash"
	"os"
	"path"
	"slices"
	"sync"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// partial is a blob whose pieces are still coming in. It ends as a whole one or
// abandoned; another partial of the same blob is another value with other files,
// so what was left over from one can never be taken for the other's.
type partial struct {
	blob  pieces.Blob
	nonce uint64 // names the data file

	// Tokens, taken in this order: completing, hashing, flushing.
	completing chan struct{} // to Complete
	hashing    chan struct{} // to extend the running digest
	flushing   chan struct{} // to write the journal
	journalEnd int64         // guarded by flushing

	sum hash.Hash // of the first hashed pieces; guarded by hashing

	mu         sync.Mutex // guards the fields below; never held across I/O
	repos      []pieces.Repo
	held       *pieces.Set
	statements map[int]pieces.Statement
	writing    map[int]chan struct{} // closed when that piece is settled
	unsynced   []int                 // held, but not in the journal
	pin        *handle               // keeps the file open while it has unsynced pieces
	hashed     int
	stale      bool // sum covers a piece that is not held any more
	taken      int  // pieces that were un-held
	over       bool
}

// errOver tells that the partial blob became whole or was abandoned meanwhile.
var errOver = errors.New("no longer partial")

func newPartial(b pieces.Blob, nonce uint64) *partial {
	return &partial{
		blob:       b,
		nonce:      nonce,
		completing: make(chan struct{}, 1),
		hashing:    make(chan struct{}, 1),
		flushing:   make(chan struct{}, 1),
		sum:        b.NewHash(),
		held:       pieces.NewSet(b.Pieces()),
		statements: map[int]pieces.Statement{},
		writing:    map[int]chan struct{}{},
	}
}

// journalled tells whether single pieces survive a restart. A blob of one piece
// is whole as soon as it has any, so a journal would only cost syncs.
func (p *partial) journalled() bool { return p.blob.Pieces() > 1 }

func (p *partial) journalName() string { return path.Join(partialDir, p.blob.String()+journalSuffix) }

func (p *partial) dataName() string { return dataName(p.blob, p.nonce) }

// openData opens the data file. A blob of one piece, or none, gets it only when
// there is something to write: flag is then os.O_CREATE.
func (c *Cache) openData(p *partial, flag int) (*handle, error) {
	return c.handles.get(p, func() (*durable.File, error) {
		return c.state.OpenFile(p.dataName(), os.O_RDWR|flag, 0o666)
	})
}

// createFlag is what a writer passes to openData.
func (p *partial) createFlag() int {
	if p.journalled() {
		return 0 // Begin made it; if it is gone, its content is too
	}
	return os.O_CREATE
}

// claim reserves a piece for writing. It returns false when the piece is held
// already, after waiting for another writer of it if there is one: two writers
// with different bytes (one of them a liar's) must not mix.
func (p *partial) claim(ctx context.Context, index int) (bool, error) {
	for {
		other, claimed, err := p.tryClaim(index)
		if err != nil || other == nil {
			return claimed, err
		}
		select {
		case <-other:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

func (p *partial) tryClaim(index int) (other chan struct{}, claimed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over:
		return nil, false, errOver
	case p.held.Has(index):
		return nil, false, nil
	case p.writing[index] != nil:
		return p.writing[index], false, nil
	}
	p.writing[index] = make(chan struct{})
	return nil, true, nil
}

// settle ends a claim: without an error the piece is held. It returns the handle
// if it has to be given back, nil if it is kept until the piece is synced.
func (p *partial) settle(s pieces.Statement, h *handle, err error) *handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.writing[s.Index])
	delete(p.writing, s.Index)
	if err != nil {
		return h
	}
	p.held.Add(s.Index)
	p.statements[s.Index] = s
	p.unsynced = append(p.unsynced, s.Index)
	if p.pin != nil {
		return h
	}
	p.pin = h
	return nil
}

// drop un-holds pieces.
func (p *partial) drop(indexes []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range indexes {
		p.held.Remove(i)
		p.taken++
		delete(p.statements, i)
		if i < p.hashed {
			p.stale = true
		}
	}
	p.unsynced = slices.DeleteFunc(p.unsynced, func(i int) bool { return !p.held.Has(i) })
}

// end makes every later claim fail and waits for the writers that are at work.
func (p *partial) end() {
	for {
		p.mu.Lock()
		p.over = true
		var busy chan struct{}
		for _, busy = range p.writing {
			break
		}
		p.mu.Unlock()
		if busy == nil {
			return
		}
		<-busy // a write is bounded by the disk
	}
}

func (p *partial) holds(index int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Has(index)
}

func (p *partial) copyHeld() *pieces.Set {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held.Clone()
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

// want notes that a repository is to have the blob.
func (p *partial) want(repo pieces.Repo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.repos, repo) {
		p.repos = append(p.repos, repo)
	}
}

func (p *partial) wanted() []pieces.Repo {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.repos)
}

// takePin returns the handle that was kept for unsynced pieces, if any.
func (p *partial) takePin() *handle {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.pin
	p.pin = nil
	return h
}
