package swarm

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"p2pagent/internal/plan"
	"p2pagent/pkg/pieces"
)

// proofs remembers the statements heard about the blobs that this member wants.
// It has a lock of its own: signatures are checked by the readers of the links,
// once for each distinct statement.
type proofs struct {
	mu    sync.Mutex
	blobs map[pieces.Blob]map[int][]opinion
}

// opinion is a statement and the neighbour that brought it. Of each neighbour the
// last one on a piece is kept: a liar can't crowd out what the others say, who
// relayed a lie can correct itself, and an honest swarm has one in all.
type opinion struct {
	pieces.Statement
	from plan.Peer
}

func newProofs() *proofs { return &proofs{blobs: map[pieces.Blob]map[int][]opinion{}} }

// watch begins to keep statements on b; forget ends it.
func (p *proofs) watch(b pieces.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blobs[b] == nil {
		p.blobs[b] = map[int][]opinion{}
	}
}

func (p *proofs) forget(b pieces.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.blobs, b)
}

// learn checks and keeps a statement that from brought. A statement that is known
// already costs no signature check; one on a blob that nobody here wants is
// dropped.
func (p *proofs) learn(st pieces.Statement, from plan.Peer) error {
	if p.knows(st) {
		return nil
	}
	if err := st.Check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.blobs[st.Blob]
	if known == nil || slices.ContainsFunc(known[st.Index], func(o opinion) bool { return o.Statement == st }) {
		return nil
	}
	others := slices.DeleteFunc(known[st.Index], func(o opinion) bool { return o.from == from })
	known[st.Index] = append(others, opinion{st, from})
	return nil
}

func (p *proofs) knows(st pieces.Statement) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, watched := p.blobs[st.Blob]
	return !watched || slices.ContainsFunc(known[st.Index], func(o opinion) bool { return o.Statement == st })
}

// on returns the statements on a piece.
func (p *proofs) on(piece plan.Piece) []opinion {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.blobs[piece.Blob][piece.Index])
}

// drop forgets the statements on b for which bad is true.
func (p *proofs) drop(b pieces.Blob, bad func(pieces.Statement) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, list := range p.blobs[b] {
		p.blobs[b][i] = slices.DeleteFunc(list, func(o opinion) bool { return bad(o.Statement) })
	}
}

// errUnstated is for a piece of which nobody says any more what it is: its
// statements were taken back while it came.
var errUnstated = errors.New("no statement")

// prove turns the bytes of a piece into a Verified by whichever statement they
// match.
func (p *proofs) prove(piece plan.Piece, data []byte) (pieces.Verified, error) {
	statements := p.on(piece)
	if len(statements) == 0 {
		return pieces.Verified{}, fmt.Errorf("prove piece %d of %s: %w", piece.Index, piece.Blob, errUnstated)
	}
	v, err := pieces.Verify(statements[0].Statement, data)
	for _, o := range statements[1:] {
		if err == nil {
			return v, nil
		}
		v, err = pieces.Verify(o.Statement, data)
	}
	return v, err
}
