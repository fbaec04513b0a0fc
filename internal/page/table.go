package page

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// table keeps rows by id, each in the form in which it is sent, with the version
// at which it last changed, so that a viewer gets what is new to it.
type table struct {
	rows map[string]row
	gone map[string]uint64 // rows that went away, and when
}

type row struct {
	text    json.RawMessage
	version uint64
}

// maxGone bounds the memory of rows that went away.
const maxGone = 1024

func newTable() table { return table{map[string]row{}, map[string]uint64{}} }

// set replaces the rows. It tells whether there are viewers that can't be told
// any more what went away: then all start anew.
func (t *table) set(version uint64, now map[string]json.RawMessage) (forgot bool) {
	for id, text := range now {
		if old, ok := t.rows[id]; !ok || !bytes.Equal(old.text, text) {
			t.rows[id] = row{text, version}
			delete(t.gone, id)
		}
	}
	for id := range t.rows {
		if _, ok := now[id]; !ok {
			delete(t.rows, id)
			t.gone[id] = version
		}
	}
	if forgot = len(t.gone) > maxGone; forgot {
		clear(t.gone)
	}
	return forgot
}

// since returns the rows that changed after a version, and the ids of those that
// went away, both in the order of the ids.
func (t *table) since(version uint64) (changed []json.RawMessage, gone []string) {
	changed = []json.RawMessage{}
	for _, id := range slices.Sorted(maps.Keys(t.rows)) {
		if r := t.rows[id]; r.version > version {
			changed = append(changed, r.text)
		}
	}
	for id, at := range t.gone {
		if version > 0 && at > version {
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	return changed, gone
}
