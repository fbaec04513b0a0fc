package agent

import (
	"context"
	"io"
	"sync"
	"time"

	"p2pagent/internal/layout"
	"p2pagent/pkg/pieces"
)

// repeatsWait bounds the question what the files of a job are made of when nothing
// is here that they could be made from: all that they can save then is what they have
// twice.
const repeatsWait = 5 * time.Second

// repeats are the files of one job that have chunks in common. Those leave the store
// once: an extent comes behind the pieces that have its chunks, and copies them.
type repeats struct {
	agent   *Agent
	order   *layout.Order
	entries map[pieces.Blob]layout.Entry

	mu     sync.Mutex
	broken map[pieces.Blob]bool // from which nothing more is copied
}

// repeatsOf returns nil when the files have nothing in common.
func (a *Agent) repeatsOf(files []layout.Entry) *repeats {
	order := layout.NewOrder(files)
	if order == nil {
		return nil
	}
	r := &repeats{agent: a, order: order, entries: make(map[pieces.Blob]layout.Entry, len(files)), broken: make(map[pieces.Blob]bool)}
	for _, e := range files {
		r.entries[e.Blob] = e
	}
	return r
}

// behind returns the pieces that have chunks of an extent, all before it.
func (r *repeats) behind(e pieces.Extent) (out []pieces.Span) {
	if r == nil {
		return nil
	}
	for _, s := range e.Spans {
		off, n := s.Range()
		for _, p := range r.order.Behind(layout.Place{Blob: s.Blob, Span: layout.Span{Off: off, N: n}}) {
			out = append(out, piecesOf(p))
		}
	}
	return out
}

func piecesOf(p layout.Place) pieces.Span {
	size := p.Blob.PieceSize()
	first, last := int(p.Off/size), int((p.Off+p.N-1)/size)
	return pieces.Span{Blob: p.Blob, First: first, Count: last - first + 1}
}

// delta says what of bytes of a blob the pieces have that are here now.
func (r *repeats) delta(ctx context.Context, at layout.Place) *layout.Delta {
	if r == nil {
		return nil
	}
	var olds []layout.Old
	seen := make(map[pieces.Blob]bool)
	for _, p := range r.order.Behind(at) {
		if !seen[p.Blob] && len(olds) < mostOlds && !r.isBroken(p.Blob) {
			seen[p.Blob] = true
			olds = append(olds, r.old(p.Blob))
		}
	}
	if len(olds) == 0 {
		return nil
	}
	d, err := layout.CompareIn(ctx, r.entries[at.Blob].Layout, at.Span, olds, r.agent.opt.Deltas.Cuts)
	if err != nil { // the context has ended
		return nil
	}
	return d
}

// old is what is here of one of the files.
func (r *repeats) old(b pieces.Blob) layout.Old {
	cache := r.agent.opt.Cache
	held := cache.Held(b)
	return layout.Old{Layout: r.entries[b].Layout, Raw: &blobContent{cache, b}, Sound: &noting{r.agent.sound.of(cache, b), r, b},
		Has: func(off, n int64) bool {
			s := piecesOf(layout.Place{Blob: b, Span: layout.Span{Off: off, N: n}})
			for i := s.First; held != nil && i < s.First+s.Count; i++ {
				if !held.Has(i) {
					return false
				}
			}
			return held != nil
		}}
}

// noting notes when a file can't be copied from: it is not tried again.
type noting struct {
	io.ReaderAt
	repeats *repeats
	blob    pieces.Blob
}

func (n *noting) ReadAt(p []byte, off int64) (int, error) {
	k, err := n.ReaderAt.ReadAt(p, off)
	if k < len(p) {
		n.repeats.mu.Lock()
		defer n.repeats.mu.Unlock()
		n.repeats.broken[n.blob] = true
	}
	return k, err
}

func (r *repeats) isBroken(b pieces.Blob) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken[b]
}
