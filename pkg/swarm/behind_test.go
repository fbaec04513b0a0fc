package swarm_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// An extent that upstream says is better fetched after pieces of another blob is
// fetched by a member that has those, however long they take; and by nobody twice.
func TestExtentsWaitForWhatTheyAreBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(20<<20, 40<<20, 40<<20), 4, cluster.Options{Key: swarm.NewKey(), Up: 100 << 20, Down: 100 << 20}, nil)
		first, second := f.model.blobs[0], f.model.blobs[1]
		f.model.behind = func(e pieces.Extent) []pieces.Span {
			if e.Spans[0].Blob != second {
				return nil
			}
			return []pieces.Span{{Blob: first, First: e.Spans[0].First, Count: e.Spans[0].Count}}
		}
		f.model.started = func(h *hubFor, e pieces.Extent) {
			m := f.members[slices.IndexFunc(f.members, func(m *member) bool { return m.hub == h })]
			held := m.store.Held(first)
			for i := e.Spans[0].First; e.Spans[0].Blob == second && i < e.Spans[0].First+e.Spans[0].Count; i++ {
				if !held.Has(i) {
					t.Errorf("%s fetches pieces from %d on before it has what they are behind", m.Name, e.Spans[0].First)
				}
			}
		}
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.members...)
		f.atMost(1.00)
	})
}

// Nobody waits for a blob that is not wanted here, or that is no longer.
func TestNobodyWaitsForWhatIsNotWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(20<<20, 16<<20), 2, cluster.Options{Key: swarm.NewKey(), Up: 100 << 20, Down: 100 << 20}, nil)
		other := newModel(1, 5<<20).blobs[0]
		f.model.behind = func(pieces.Extent) []pieces.Span { return []pieces.Span{{Blob: other, First: 0, Count: 1}} }
		start := time.Now()
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.members...)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
