package agent

import (
	"fmt"
	"slices"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Holder is who wants a snapshot to stay: what one pins, another does not unpin.
// Holders are kept over restarts, so their values never change.
type Holder string

// The holders there are.
const (
	ByCommand Holder = "command" // p2pagent pin
	ByConfig  Holder = "config"  // a model that the settings name
	ByRollout Holder = "rollout" // a member that asked for it
)

// pins are guarded by Agent.mu. Slices in it are never changed, only replaced.
type pins map[string][]Holder // by ref

// Pinned is a pin as it is after Pin or Unpin.
type Pinned struct {
	Ref    string   `json:"ref"`
	Commit string   `json:"commit,omitempty"` // what it means in the cache; "" when it is not here
	By     []Holder `json:"pinned_by"`        // empty: not pinned
}

// Pin keeps what the ref means in the cache from being evicted, now and after it
// moved or came: the pin is on the name. Pin a commit to keep just that. Durable on
// return; pinning again is harmless.
func (a *Agent) Pin(ref pieces.Ref, by Holder) (Pinned, error) {
	return a.changePins(ref, "pin", func(old []Holder) []Holder {
		if slices.Contains(old, by) {
			return old
		}
		return append(slices.Clip(old), by)
	})
}

// PinHere is Pin for a ref that is in the cache: who types a name that is not here
// is told so.
func (a *Agent) PinHere(ref pieces.Ref, by Holder) (Pinned, error) {
	if _, err := a.opt.Cache.Snapshot(ref); err != nil {
		return Pinned{}, fmt.Errorf("pin %s: %w", ref, err)
	}
	return a.Pin(ref, by)
}

// Unpin ends the holder's pin; other holders' stay, but for those of rollouts, which a
// command ends too: nobody else on this node can. Who types a name that is neither
// pinned nor here is told so. Durable on return.
func (a *Agent) Unpin(ref pieces.Ref, by Holder) (Pinned, error) {
	a.mu.Lock()
	pinned := len(a.pins[ref.String()]) > 0
	a.mu.Unlock()
	if _, err := a.opt.Cache.Snapshot(ref); err != nil && !pinned {
		return Pinned{}, fmt.Errorf("unpin %s: nothing pins it: %w", ref, err)
	}
	if by == ByCommand && a.opt.OnUnpin != nil {
		if err := a.opt.OnUnpin(ref); err != nil {
			return Pinned{}, fmt.Errorf("unpin %s: %w", ref, err)
		}
	}
	return a.changePins(ref, "unpin", func(old []Holder) []Holder {
		return slices.DeleteFunc(slices.Clone(old), func(h Holder) bool { return h == by })
	})
}

// PinOnly makes these the only refs that the holder pins. Durable on return.
func (a *Agent) PinOnly(by Holder, refs []pieces.Ref) error {
	want := make(map[string]bool, len(refs))
	for _, r := range refs {
		want[r.String()] = true
	}
	a.mu.Lock()
	changed := false
	for ref, old := range a.pins {
		switch {
		case !slices.Contains(old, by):
		case want[ref]:
			delete(want, ref)
		default:
			changed = true
			a.pins[ref] = slices.DeleteFunc(slices.Clone(old), func(h Holder) bool { return h == by })
			if len(a.pins[ref]) == 0 {
				delete(a.pins, ref)
			}
		}
	}
	for ref := range want {
		changed = true
		a.pins[ref] = append(slices.Clip(a.pins[ref]), by)
	}
	a.mu.Unlock()
	if !changed {
		return a.saveUnsaved()
	}
	return a.saveNotes()
}

func (a *Agent) changePins(ref pieces.Ref, operation string, change func([]Holder) []Holder) (Pinned, error) {
	a.mu.Lock()
	old := a.pins[ref.String()]
	now := change(old)
	a.pins[ref.String()] = now
	if len(now) == 0 {
		delete(a.pins, ref.String())
	}
	a.mu.Unlock()
	out := Pinned{Ref: ref.String(), By: append([]Holder{}, now...)}
	if s, err := a.opt.Cache.Snapshot(ref); err == nil {
		out.Commit = string(s.Commit)
	}
	save := a.saveNotes
	if slices.Equal(old, now) {
		save = a.saveUnsaved
	}
	if err := save(); err != nil {
		return Pinned{}, fmt.Errorf("%s %s: %w", operation, ref, err)
	}
	return out, nil
}

// pinnedBy returns who pins a snapshot by one of its names.
func (a *Agent) pinnedBy(s *cachefs.Snapshot) []Holder {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Holder
	for _, revision := range namesOf(s) {
		out = append(out, a.pins[pieces.Ref{Repo: s.Repo, Revision: revision}.String()]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// namesOf returns the revisions that mean the snapshot, its commit last.
func namesOf(s *cachefs.Snapshot) []string {
	return append(slices.Clip(s.Revisions), string(s.Commit))
}
