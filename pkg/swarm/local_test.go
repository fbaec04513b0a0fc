package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/cluster"
	"p2pagent/internal/leaktest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// files are what a member has of a model in other files: every second piece wholly,
// and all but a part of the others.
type files struct {
	*model
	signer pieces.Signer
	wrong  bool // what it has is not what it should be

	mu      sync.Mutex
	fetch   func(ctx context.Context) error // instead of making pieces; nil: makes them
	dropped map[pieces.Blob]bool
	made    int
}

// gap is what is not here of a piece that is not here wholly.
var gap = pieces.Part{Off: 100_000, N: 65_000}

func (f *files) Gaps(b pieces.Blob, i int) []pieces.Part {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, n := b.Piece(i)
	switch {
	case f.dropped[b] || n < 1<<20:
		return []pieces.Part{{N: n}}
	case i%2 == 0:
		return nil
	}
	return []pieces.Part{gap}
}

func (f *files) Fill(b pieces.Blob, i int, data []byte) error {
	off, n := b.Piece(i)
	copy(data[:gap.Off], f.content[b][off:])
	copy(data[gap.Off+gap.N:], f.content[b][off+gap.Off+gap.N:off+n])
	if f.wrong {
		data[0] ^= 1
	}
	return nil
}

func (f *files) Fetch(ctx context.Context, e pieces.Extent, need func(pieces.Blob, int) bool, put func(context.Context, pieces.Verified) error) error {
	f.mu.Lock()
	instead := f.fetch
	f.mu.Unlock()
	if instead != nil {
		return instead(ctx)
	}
	for _, s := range e.Spans {
		for i := s.First; i < s.First+s.Count; i++ {
			if !need(s.Blob, i) || len(f.Gaps(s.Blob, i)) > 0 {
				continue
			}
			off, n := s.Blob.Piece(i)
			data := bytes.Clone(f.content[s.Blob][off : off+n])
			if f.wrong {
				data[0] ^= 1
			}
			v, err := pieces.NewCutter(f.signer, s.Blob, i, 1, nil).Next(bytes.NewReader(data))
			if err == nil {
				err = put(ctx, v)
			}
			if err != nil {
				return err
			}
			f.mu.Lock()
			f.made++
			f.mu.Unlock()
		}
	}
	return nil
}

func (f *files) Drop(b pieces.Blob) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped == nil {
		f.dropped = map[pieces.Blob]bool{}
	}
	f.dropped[b] = true
}

// inLocalFleet runs test with members that have files, as change leaves them.
func inLocalFleet(t *testing.T, n int, change func(i int, f *files), test func(f *fleet)) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, newModel(8<<20, 40<<20, 24<<20, 700), n, cluster.Options{}, nil)
		for i, m := range f.members {
			m.local = &files{model: f.model, signer: m.hub.signer}
			change(i, m.local)
		}
		test(f)
	})
}

func (f *fleet) unbanned() {
	f.t.Helper()
	for _, m := range f.members {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		st, err := m.node.Status(ctx)
		cancel()
		if err != nil || len(st.Bans) > 0 {
			f.t.Errorf("%s: bans %v, %v", m.Name, st.Bans, err)
		}
	}
}

// What is here is neither asked of upstream nor of members: pieces that are here
// wholly by nobody, of the others only what is not here.
func TestLocal(t *testing.T) {
	inLocalFleet(t, 3, func(int, *files) {}, func(f *fleet) {
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.members...)
		const halves = 5 + 3 // pieces with a gap
		if sent := f.model.sent.Load(); sent != halves*4<<20+700 {
			t.Errorf("the Hub sent %d bytes: not those of pieces with a gap", sent)
		}
		var peers int64
		for _, m := range f.members {
			peers += m.peers
			if m.local.made != 8 {
				t.Errorf("%s made %d pieces", m.Name, m.local.made)
			}
			if st, err := m.node.Status(context.Background()); err != nil || st.Counters.Copied < 8*4<<20 {
				t.Errorf("%s copied %d bytes, %v", m.Name, st.Counters.Copied, err)
			}
		}
		if want := 2 * (halves*gap.N + 700); peers != want {
			t.Errorf("members sent each other %d bytes, want %d", peers, want)
		}
		f.unbanned()
	})
}

// What is here turns out to be wrong, first for whole pieces, which are signed and
// offered, then for parts. Everybody finishes, nobody is banned for it.
func TestLocalIsWrong(t *testing.T) {
	for name, who := range map[string]func(i int) bool{
		"on one member":   func(i int) bool { return i == 0 },
		"on every member": func(int) bool { return true },
	} {
		t.Run(name, func(t *testing.T) {
			inLocalFleet(t, 3, func(i int, l *files) { l.wrong = who(i) }, func(f *fleet) {
				for _, m := range f.members {
					f.fetch(m)
				}
				f.finish(f.members...)
				f.unbanned()
				// Of several, whoever sees it first has the others drop what they made of it.
				if !slices.ContainsFunc(f.members, func(m *member) bool { return m.local.wrong && m.local.dropped[f.model.blobs[0]] }) {
					t.Error("what is wrong is still believed")
				}
			})
		})
	}
}

// What can't be copied after all comes another way.
func TestLocalFails(t *testing.T) {
	inLocalFleet(t, 2, func(i int, l *files) {
		l.fetch = func(context.Context) error { return errors.New("gone") }
	}, func(f *fleet) {
		for _, m := range f.members {
			f.fetch(m)
		}
		f.finish(f.members...)
		f.unbanned()
	})
}

// While copying takes its time everything else comes, a job that ends ends it, and
// another one goes on without waiting for it.
func TestLocalIsSlow(t *testing.T) {
	var stuck chan struct{} // made in the bubble
	inLocalFleet(t, 1, func(i int, l *files) {
		stuck = make(chan struct{}, 16)
		l.fetch = func(ctx context.Context) error {
			stuck <- struct{}{}
			<-ctx.Done()
			return context.Cause(ctx)
		}
	}, func(f *fleet) {
		m, enough := f.members[0], errors.New("enough")
		ctx, cancel := context.WithCancelCause(context.Background())
		first := make(chan error, 1)
		go func() { first <- m.node.Fetch(ctx, m.job(f.model), nil) }()
		<-stuck
		b := f.model.blobs[0]
		f.until("pieces that are not here come meanwhile", func() bool {
			held := m.store.Held(b)
			return held.Has(1) && held.Has(3) && held.Has(9)
		})
		if held := m.store.Held(b); held.Has(0) || held.Has(2) {
			t.Error("what is being copied was fetched")
		}
		m.local.mu.Lock()
		m.local.fetch = nil
		m.local.mu.Unlock()
		f.fetch(m)
		time.Sleep(time.Second)
		cancel(enough)
		if err := <-first; !errors.Is(err, enough) {
			t.Errorf("the first job: %v", err)
		}
		f.finish(m)
		if m.local.made != 8 {
			t.Errorf("the second job copied %d pieces", m.local.made)
		}
	})
}

var _ swarm.Local = (*files)(nil)
