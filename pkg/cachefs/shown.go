package cachefs

import (
	"slices"
	"sync"

	"p2pagent/pkg/pieces"
)

// shownBlobs is for how many whole blobs statements stay in memory. A blob has up
// to some thousand of 180 bytes each; those of a whole cache would be too much,
// and reading a proof again takes a millisecond.
const shownBlobs = 32

// statementCache keeps the statements of the whole blobs that were asked for last.
type statementCache struct {
	mu    sync.Mutex
	known map[pieces.Blob][]pieces.Statement
	order []pieces.Blob // least recently kept first
}

func (s *statementCache) keep(b pieces.Blob, statements []pieces.Statement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(b)
	if s.known == nil {
		s.known = map[pieces.Blob][]pieces.Statement{}
	}
	s.known[b] = statements
	s.order = append(s.order, b)
	if len(s.order) > shownBlobs {
		s.forget(s.order[0])
	}
}

func (s *statementCache) drop(b pieces.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(b)
}

func (s *statementCache) forget(b pieces.Blob) {
	delete(s.known, b)
	if i := slices.Index(s.order, b); i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
	}
}

func (s *statementCache) get(b pieces.Blob) ([]pieces.Statement, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, ok := s.known[b]
	return list, ok
}
