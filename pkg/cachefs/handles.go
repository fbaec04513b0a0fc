package cachefs

import (
	"container/list"
	"sync"

	"p2pagent/internal/durable"
)

// maxHandles bounds the files that stay open though nobody reads them now: a
// model of a thousand shards must not use a thousand descriptors.
const maxHandles = 64

// handles keeps the files of blobs open between uses: opening one through a root
// can cost more than reading it. The key is the *partial or *whole itself, never
// its name, so a file of an earlier one is never taken for a later one's.
type handles struct {
	max int

	mu     sync.Mutex
	open   map[any]*handle
	idle   *list.List // of *handle, most recently used first
	closed bool
}

type handle struct {
	owner *handles
	key   any
	file  *durable.File
	// guarded by owner.mu
	uses   int
	gone   bool // not in open any more: close when unused
	rested bool // idle since before the last closeIdle
	elem   *list.Element
}

func newHandles(max int) *handles {
	return &handles{max: max, open: map[any]*handle{}, idle: list.New()}
}

// get returns the open file of key, or opens it. The caller releases it.
func (hs *handles) get(key any, open func() (*durable.File, error)) (*handle, error) {
	if h := hs.take(key); h != nil {
		return h, nil
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h := hs.use(key); h != nil { // somebody else was faster
		file.Close()
		return h, nil
	}
	h := &handle{owner: hs, key: key, file: file, uses: 1, gone: hs.closed}
	if !hs.closed {
		hs.open[key] = h
	}
	return h, nil
}

func (hs *handles) take(key any) *handle {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return hs.use(key)
}

func (hs *handles) use(key any) *handle {
	h := hs.open[key]
	if h == nil {
		return nil
	}
	h.uses++
	h.rested = false
	if h.elem != nil {
		hs.idle.Remove(h.elem)
		h.elem = nil
	}
	return h
}

// release gives a handle back. Of too many idle ones, that which is idle longest
// is closed.
func (h *handle) release() {
	hs := h.owner
	hs.mu.Lock()
	defer hs.mu.Unlock()
	h.uses--
	switch {
	case h.uses > 0:
	case h.gone:
		h.file.Close()
	default:
		h.elem = hs.idle.PushFront(h)
		if hs.idle.Len() > hs.max {
			hs.shut(hs.idle.Back().Value.(*handle))
		}
	}
}

// shut takes a handle out; what is in use is closed by its last release.
func (hs *handles) shut(h *handle) {
	delete(hs.open, h.key)
	h.gone = true
	if h.elem != nil {
		hs.idle.Remove(h.elem)
		h.elem = nil
		h.file.Close()
	}
}

// forget closes the file of key as soon as nobody uses it.
func (hs *handles) forget(key any) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if h := hs.open[key]; h != nil {
		hs.shut(h)
	}
}

// closeIdle closes files that were not used since the call before. An open file
// keeps its room on disk after somebody removed it from the cache.
func (hs *handles) closeIdle() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for e := hs.idle.Front(); e != nil; {
		h := e.Value.(*handle)
		e = e.Next()
		if h.rested {
			hs.shut(h)
		}
		h.rested = true
	}
}

// shutIdle closes every file that nobody uses now.
func (hs *handles) shutIdle() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for e := hs.idle.Front(); e != nil; {
		h := e.Value.(*handle)
		e = e.Next()
		hs.shut(h)
	}
}

// close closes what is idle now, and the rest when it is released.
func (hs *handles) close() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.closed = true
	for _, h := range hs.open {
		hs.shut(h)
	}
}
