package agent_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub/hubtest"
)

// A pin is on the name, each holder has its own, and all outlive the process.
func TestPins(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		r.hub.AddRepo(hubtest.RepoSpec{ID: "org/m", Files: []hubtest.File{{Path: "a", Content: hubtest.Bytes([]byte("a"))}}})
		u := r.units[0]
		ref := r.ref("org/m")
		if _, err := u.PinHere(ref, agent.ByCommand); agentError(err).Kind != agent.NotFound {
			t.Errorf("pinned what is not here: %v", err)
		}
		if _, err := u.Unpin(ref, agent.ByCommand); agentError(err).Kind != agent.NotFound {
			t.Errorf("unpinned what is neither here nor pinned: %v", err)
		}
		early, err := u.Pin(ref, agent.ByConfig) // before it comes, as settings do
		if err != nil || early.Commit != "" {
			t.Fatal(early, err)
		}
		if p, err := u.Unpin(ref, agent.ByCommand); err != nil || !slices.Equal(p.By, []agent.Holder{agent.ByConfig}) {
			t.Errorf("unpinned before it came: %v, %v", p, err)
		}
		r.must(errorOf(u.Ensure(t.Context(), agent.Request{Ref: ref})))
		p, err := u.PinHere(ref, agent.ByCommand)
		if err != nil || p.Commit == "" || !slices.Equal(p.By, []agent.Holder{agent.ByConfig, agent.ByCommand}) {
			t.Fatal(p, err)
		}
		u = r.restart(0, nil)
		s, _, err := u.Show(ref)
		if err != nil || !s.Pinned || !slices.Equal(s.PinnedBy, []agent.Holder{agent.ByCommand, agent.ByConfig}) {
			t.Fatalf("after a restart %+v, %v", s, err)
		}
		if p, err := u.Unpin(ref, agent.ByConfig); err != nil || !slices.Equal(p.By, []agent.Holder{agent.ByCommand}) {
			t.Fatal(p, err)
		}
		if p, err := u.Unpin(ref, agent.ByCommand); err != nil || len(p.By) != 0 {
			t.Fatal(p, err)
		}
		if s, _, err := r.restart(0, nil).Show(ref); err != nil || s.Pinned {
			t.Fatalf("after the last unpin %+v, %v", s, err)
		}
	})
}

// fullOnce is a notebook on a disk that is full at the second time.
type fullOnce struct {
	agent.Notebook
	saves int
}

func (f *fullOnce) Save(raw []byte) error {
	if f.saves++; f.saves == 2 {
		return syscall.ENOSPC
	}
	return f.Notebook.Save(raw)
}

// What could not be written down is written when it is said again, though nothing is
// new.
func TestPinsAreDurable(t *testing.T) {
	inRoom(t, 1, func(t *testing.T, r *room) {
		u := r.restart(0, func(o *agent.Options) { o.Notebook = &fullOnce{Notebook: o.Notebook} })
		first, second := r.ref("org/first"), r.ref("org/second")
		r.must(errorOf(u.Pin(first, agent.ByCommand)))
		if _, err := u.Pin(second, agent.ByCommand); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if p, err := u.Pin(second, agent.ByCommand); err != nil || len(p.By) != 1 {
			t.Fatal(p, err)
		}
		u = r.restart(0, nil)
		if p, err := u.Unpin(second, agent.ByConfig); err != nil || len(p.By) != 1 {
			t.Errorf("after a restart %+v, %v", p, err)
		}
	})
}

func errorOf[T any](_ T, err error) error { return err }
