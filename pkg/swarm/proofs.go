package swarm

import (
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
	blobs map[pieces.Blob]map[int][]pieces.Statement
}

// maxOpinions bounds how many different statements on one piece are kept: an
// honest swarm has one.
const maxOpinions = 4

func newProofs() *proofs { return &proofs{blobs: map[pieces.Blob]map[int][]pieces.Statement{}} }

// watch begins to keep statements on b; forget ends it.
func (p *proofs) watch(b pieces.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.blobs[b] == nil {
		p.blobs[b] = map[int][]pieces.Statement{}
	}
}

func (p *proofs) forget(b pieces.Blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.blobs, b)
}

// learn checks and keeps a statement. A statement that is known already costs no
// signature check; one on a blob that nobody here wants is dropped.
func (p *proofs) learn(st pieces.Statement) error {
	if p.knows(st) {
		return nil
	}
	if err := st.Check(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.blobs[st.Blob]
	if known == nil || slices.Contains(known[st.Index], st) {
		return nil
	}
	if len(known[st.Index]) >= maxOpinions {
		return fmt.Errorf("learn statement on piece %d of %s: already %d different ones", st.Index, st.Blob, maxOpinions)
	}
	known[st.Index] = append(known[st.Index], st)
	return nil
}

func (p *proofs) knows(st pieces.Statement) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, watched := p.blobs[st.Blob]
	return !watched || slices.Contains(known[st.Index], st)
}

// on returns the statements on a piece.
func (p *proofs) on(piece plan.Piece) []pieces.Statement {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.blobs[piece.Blob][piece.Index])
}

// drop forgets the statements on b for which bad is true.
func (p *proofs) drop(b pieces.Blob, bad func(pieces.Statement) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, list := range p.blobs[b] {
		p.blobs[b][i] = slices.DeleteFunc(list, bad)
	}
}

// prove turns the bytes of a piece into a Verified by whichever statement they
// match.
func (p *proofs) prove(piece plan.Piece, data []byte) (pieces.Verified, error) {
	statements := p.on(piece)
	if len(statements) == 0 {
		return pieces.Verified{}, fmt.Errorf("prove piece %d of %s: no statement", piece.Index, piece.Blob)
	}
	v, err := pieces.Verify(statements[0], data)
	for _, st := range statements[1:] {
		if err == nil {
			return v, nil
		}
		v, err = pieces.Verify(st, data)
	}
	return v, err
}
