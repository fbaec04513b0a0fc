package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"p2pagent/pkg/pieces"
)

// note is what the notebook keeps of a name that was seeded.
type note struct {
	Ref    string    `json:"ref"`
	Commit string    `json:"commit"`
	Seeded bool      `json:"seeded"` // the Hub does not have it
	Kept   bool      `json:"kept"`   // this node was told to hold it
	Time   time.Time `json:"time"`
}

// notes are guarded by Agent.mu.
type notes map[string]note // by ref

const notesVersion = 1

type notesFile struct {
	SchemaVersion int    `json:"schema_version"`
	Notes         []note `json:"notes"`
	// Access is who may read the repositories in the cache, as the Hub said when
	// they were fetched.
	Access map[string]pieces.Access `json:"access,omitempty"`
	// Pins say, by ref, who wants what it means to stay.
	Pins map[string][]Holder `json:"pins,omitempty"`
	// Used is when snapshots were last asked for, by ref with the commit.
	Used map[string]time.Time `json:"used,omitempty"`
}

// loadNotes takes over what the notebook holds.
func (a *Agent) loadNotes() error {
	f, err := readNotes(a.opt.Notebook)
	if err != nil {
		return fmt.Errorf("load notes: %w", err)
	}
	a.notes, a.accesses, a.pins, a.used = notes{}, map[string]pieces.Access{}, pins{}, map[string]time.Time{}
	for _, n := range f.Notes {
		a.notes[n.Ref] = n
	}
	maps.Copy(a.accesses, f.Access)
	maps.Copy(a.pins, f.Pins)
	maps.Copy(a.used, f.Used)
	return nil
}

func readNotes(nb Notebook) (f notesFile, err error) {
	if nb == nil {
		return f, nil
	}
	raw, err := nb.Load()
	if err != nil || len(raw) == 0 {
		return f, err
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, err
	}
	if f.SchemaVersion != notesVersion {
		return f, fmt.Errorf("version %d, want %d", f.SchemaVersion, notesVersion)
	}
	return f, nil
}

// remember adds a note; durable on return.
func (a *Agent) remember(n note) error {
	n.Time = time.Now().UTC().Truncate(time.Second)
	a.mu.Lock()
	if old, ok := a.notes[n.Ref]; ok && old.Commit == n.Commit {
		n.Kept = n.Kept || old.Kept
		if old.Seeded == n.Seeded && old.Kept == n.Kept {
			a.mu.Unlock()
			return a.saveUnsaved()
		}
	}
	a.notes[n.Ref] = n
	a.mu.Unlock()
	return a.saveNotes()
}

// forget drops every note on a ref; durable on return.
func (a *Agent) forget(ref pieces.Ref, commit pieces.Commit) error {
	a.mu.Lock()
	before := len(a.notes)
	delete(a.notes, ref.String())
	for k, n := range a.notes {
		if r, err := pieces.ParseRef(n.Ref); err == nil && r.Repo == ref.Repo && n.Commit == string(commit) {
			delete(a.notes, k)
		}
	}
	changed := len(a.notes) != before
	a.mu.Unlock()
	if !changed {
		return a.saveUnsaved()
	}
	return a.saveNotes()
}

// saveUnsaved is saveNotes when the last one failed: who says again what is noted
// already is not to be told that it is durable.
func (a *Agent) saveUnsaved() error {
	if !a.unsaved.Load() {
		return nil
	}
	return a.saveNotes()
}

// saveNotes writes the notes as they are now. Savers come one at a time, so that
// an older copy never replaces a newer one.
func (a *Agent) saveNotes() error {
	if a.opt.Notebook == nil {
		return nil
	}
	a.saving <- struct{}{}
	defer func() { <-a.saving }()
	f := notesFile{SchemaVersion: notesVersion}
	a.mu.Lock()
	for _, n := range a.notes {
		f.Notes = append(f.Notes, n)
	}
	f.Access, f.Pins, f.Used = maps.Clone(a.accesses), maps.Clone(a.pins), maps.Clone(a.used)
	a.mu.Unlock()
	raw, err := json.MarshalIndent(f, "", " ")
	if err == nil {
		err = a.opt.Notebook.Save(raw)
	}
	a.unsaved.Store(err != nil)
	if err != nil {
		return fmt.Errorf("save notes: %w", err)
	}
	return nil
}

// kept returns the note on a name that this node was told to hold. Members that
// merely fetched it don't speak for the name: theirs may be an older commit.
func (a *Agent) kept(ref pieces.Ref) (note, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.notes[ref.String()]
	return n, ok && n.Kept
}

// seededCommit tells whether a commit came from a seeder rather than the Hub.
func (a *Agent) seededCommit(repo pieces.Repo, commit pieces.Commit) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.notes {
		if r, err := pieces.ParseRef(n.Ref); err == nil && n.Seeded && r.Repo == repo && n.Commit == string(commit) {
			return true
		}
	}
	return false
}
