package swarm_test

import (
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
)

// A member whose upstream sent it wrong bytes, and who finds that out while the
// fleet is at work, takes its pieces back: everybody drops them, they are fetched
// again, and nobody is banned.
func TestAMemberTakesBackItsPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(10<<20, 64<<20), 4, cluster.Options{}, nil)
		wrong := f.members[1]
		wrong.hub.lies.Store(true)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.until("half is sent", func() bool { return f.model.copies() > 0.5 })
		wrong.hub.lies.Store(false)
		got := wrong.hub.got.Load()
		if got == 0 {
			t.Fatal("the member fetched nothing: the test shows nothing")
		}
		time.Sleep(time.Second) // others take what it offered
		all := make([]int, f.model.blobs[0].Pieces())
		for i := range all {
			all[i] = i
		}
		wrong.node.Doubt(f.model.blobs[0], all)
		f.finish(f.members...)
		if again := f.model.sent.Load() - f.model.size; again > got+24<<20 {
			t.Errorf("%d bytes were sent twice; %d were wrong", again, got)
		}
		for _, m := range f.members {
			st, err := m.node.Status(t.Context())
			if err != nil || len(st.Bans) > 0 {
				t.Errorf("%s: bans %v, %v", m.Name, st.Bans, err)
			}
		}
	})
}

// What a member says of others' statements changes nothing.
func TestOthersPiecesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(10<<20, 64<<20), 3, cluster.Options{}, nil)
		for _, m := range f.members {
			f.fetch(m)
		}
		f.until("most is sent", func() bool { return f.model.copies() > 0.8 })
		b := f.model.blobs[0]
		all := make([]int, b.Pieces())
		for i := range all {
			all[i] = i
		}
		own := f.members[0].hub.got.Load()
		f.members[0].node.Doubt(b, all)
		f.finish(f.members...)
		if again := f.model.sent.Load() - f.model.size; again > own+24<<20 {
			t.Errorf("%d bytes were sent twice, the member had fetched %d", again, own)
		}
	})
}
