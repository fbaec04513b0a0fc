package cachefs

import (
	"container/list"
	"errors"
	"sync"

	"p2pagent/internal/durable"
	"p2pagent/pkg/pieces"
)

// maxHandles bounds the files that stay open though nobody reads them now: a
// model of a thousand shards must not use a thousand descriptors.
const maxHandles = 64

// handles keeps the files of blobs open between uses. Opening through a root
// costs more than reading a small piece.
type handles struct {
	max int

	mu   sync.Mutex
	open map[pieces.Blob]*handle
	idle *list.List // of *handle, most recently used first
}

type handle struct {
	blob pieces.Blob
	file *durable.File
	uses int
	gone bool // not in open any more: close when unused
	elem *list.Element
}

func newHandles(max int) *handles {
	return &handles{max: max, open: map[pieces.Blob]*handle{}, idle: list.New()}
}

// get returns the blob's open file, or opens it. The caller gives it back with put.
func (hs *handles) get(b pieces.Blob, open func() (*durable.File, error)) (*handle, error) {
	if h := hs.take(b); h != nil {
		return h, nil
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h := hs.use(b); h != nil { // somebody else was faster
		file.Close()
		return h, nil
	}
	h := &handle{blob: b, file: file, uses: 1}
	hs.open[b] = h
	return h, nil
}

func (hs *handles) take(b pieces.Blob) *handle {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return hs.use(b)
}

func (hs *handles) use(b pieces.Blob) *handle {
	h := hs.open[b]
	if h == nil {
		return nil
	}
	h.uses++
	if h.elem != nil {
		hs.idle.Remove(h.elem)
		h.elem = nil
	}
	return h
}

// put gives a handle back. What is idle longest is closed.
func (hs *handles) put(h *handle) {
	hs.mu.Lock()
	h.uses--
	var closing []*handle
	if h.uses == 0 && h.gone {
		closing = append(closing, h)
	} else if h.uses == 0 {
		h.elem = hs.idle.PushFront(h)
	}
	for hs.idle.Len() > hs.max {
		old := hs.idle.Remove(hs.idle.Back()).(*handle)
		delete(hs.open, old.blob)
		closing = append(closing, old)
	}
	hs.mu.Unlock()
	for _, h := range closing {
		h.file.Close()
	}
}

// forget makes the next get open the blob's file anew.
func (hs *handles) forget(b pieces.Blob) {
	h := hs.take(b)
	if h == nil {
		return
	}
	hs.mu.Lock()
	if !h.gone {
		h.gone = true
		delete(hs.open, b)
	}
	hs.mu.Unlock()
	hs.put(h)
}

// close closes what is idle now and the rest when it is given back.
func (hs *handles) close() error {
	hs.mu.Lock()
	all := make([]*handle, 0, len(hs.open))
	for _, h := range hs.open {
		all = append(all, h)
	}
	hs.mu.Unlock()
	var err error
	for _, h := range all {
		hs.forget(h.blob)
	}
	return errors.Join(err)
}
