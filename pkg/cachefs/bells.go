package cachefs

import (
	"sync"

	"p2pagent/pkg/pieces"
)

// bells wake those who wait for something of a blob.
type bells struct {
	mu sync.Mutex
	of map[pieces.Blob]*bell // those with a listener
}

type bell struct {
	rung      chan struct{} // closed at the next change
	listeners int
}

// listen returns a channel that is closed when the blob next changes, and what to
// call when nobody listens to it any more.
func (s *bells) listen(b pieces.Blob) (rung <-chan struct{}, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[pieces.Blob]*bell{}
	}
	e := s.of[b]
	if e == nil {
		e = &bell{rung: make(chan struct{})}
		s.of[b] = e
	}
	e.listeners++
	return e.rung, func() { s.leave(b, e) }
}

func (s *bells) leave(b pieces.Blob, e *bell) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.listeners--; e.listeners == 0 && s.of[b] == e {
		delete(s.of, b)
	}
}

// ring tells that a piece of the blob is held, or that the blob became whole or
// another partial one.
func (s *bells) ring(b pieces.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.of[b]; e != nil {
		close(e.rung)
		delete(s.of, b)
	}
}
