package desired

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"p2pagent/pkg/pieces"
)

// Notebook keeps a few bytes over restarts.
type Notebook interface {
	// Load returns what Save stored, or nothing when there was no Save yet.
	Load() ([]byte, error)
	// Save replaces it; durable on return.
	Save([]byte) error
}

// MaxRollouts bounds the models that rollouts can have this node hold.
const MaxRollouts = 256

// ErrTooMany marks a rollout that is one too many.
var ErrTooMany = errors.New("too many models are rolled out to this node")

// Add has a model kept that a rollout names; durable on return. It takes the place of
// an earlier rollout of the same reference. Told again, it changes nothing, but what had
// failed is tried at once.
func (k *Keeper) Add(m Model) error {
	ref := m.Ref.String()
	return k.note(ref, func() error {
		if _, known := k.rollout[ref]; !known && len(k.rollout) >= MaxRollouts {
			return fmt.Errorf("%w: %d", ErrTooMany, MaxRollouts)
		}
		k.rollout[ref] = m
		return nil
	})
}

// Forget ends what a rollout told of these references; durable on return. Nothing is
// deleted.
func (k *Keeper) Forget(refs ...pieces.Ref) error {
	return k.note("", func() error {
		for _, r := range refs {
			delete(k.rollout, r.String())
		}
		return nil
	})
}

// note changes what rollouts told, writes it down, and only then acts on it. Writers
// come one at a time, so that an older list never replaces a newer one.
func (k *Keeper) note(ref string, change func() error) error {
	k.saving.Lock()
	defer k.saving.Unlock()
	k.mu.Lock()
	before := maps.Clone(k.rollout)
	err := change()
	now := maps.Clone(k.rollout)
	k.mu.Unlock()
	if err == nil && !maps.EqualFunc(before, now, Model.same) {
		err = k.write(now)
	}
	k.mu.Lock()
	if err != nil {
		k.rollout = before
	}
	k.arrange()
	if e := k.entries[ref]; e != nil && e.state.Phase == Failed {
		poke(e.poke)
	}
	k.mu.Unlock()
	return err
}

// write tells of the list and makes it durable.
func (k *Keeper) write(list map[string]Model) error {
	refs := make([]pieces.Ref, 0, len(list))
	for _, m := range list {
		refs = append(refs, m.Ref)
	}
	if err := k.o.Rollouts(refs); err != nil {
		return err
	}
	return saveRollouts(k.o.Notebook, list)
}

const notebookVersion = 1

type notebookFile struct {
	SchemaVersion int            `json:"schema_version"`
	Rollouts      []notedRollout `json:"rollouts"`
}

type notedRollout struct {
	Ref     string   `json:"ref"`
	Commit  string   `json:"commit"`
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
}

func saveRollouts(nb Notebook, list map[string]Model) error {
	if nb == nil {
		return nil
	}
	f := notebookFile{SchemaVersion: notebookVersion, Rollouts: []notedRollout{}}
	for _, ref := range slices.Sorted(maps.Keys(list)) {
		m := list[ref]
		f.Rollouts = append(f.Rollouts, notedRollout{ref, string(m.Commit), m.Include, m.Exclude})
	}
	raw, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = nb.Save(raw)
	}
	if err != nil {
		return fmt.Errorf("save rollouts: %w", err)
	}
	return nil
}

func loadRollouts(nb Notebook) (map[string]Model, error) {
	out := map[string]Model{}
	if nb == nil {
		return out, nil
	}
	raw, err := nb.Load()
	if err != nil || len(raw) == 0 {
		return out, err
	}
	var f notebookFile
	if err = json.Unmarshal(raw, &f); err == nil && f.SchemaVersion != notebookVersion {
		err = fmt.Errorf("version %d, want %d", f.SchemaVersion, notebookVersion)
	}
	for _, n := range f.Rollouts {
		if err != nil {
			break
		}
		var m Model
		if m, err = n.model(); err == nil {
			out[m.Ref.String()] = m
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load rollouts: %w", err)
	}
	return out, nil
}

func (n notedRollout) model() (Model, error) {
	ref, err := pieces.ParseRef(n.Ref)
	if err != nil {
		return Model{}, err
	}
	commit, err := pieces.ParseCommit(n.Commit)
	return Model{Ref: ref, Commit: commit, Pin: true, Include: n.Include, Exclude: n.Exclude}, err
}
