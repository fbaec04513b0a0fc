// Package evict knows what removing a snapshot gives back, and which goes first.
//
// Snapshots of a repository share blobs by name, those of several repositories share
// files by hard links, and both may be shared with names outside the cache: a file
// gives its room back with its last name. The package does no I/O.
package evict

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot is what may go, as a whole.
type Snapshot struct {
	Key   string // unique
	Used  time.Time
	Names []Name
}

// Name is a name of a file that the snapshot needs.
type Name struct {
	Path  string
	Inode uint64
	Bytes int64
	Links int // names that the file has anywhere
}

// Ledger keeps account of what is there while snapshots go.
type Ledger struct {
	snapshots map[string]Snapshot
	needs     map[string]int // snapshots that need a name
	links     map[uint64]int // names that a file still has
}

// NewLedger returns the account of all snapshots that there are.
func NewLedger(all []Snapshot) *Ledger {
	l := &Ledger{snapshots: map[string]Snapshot{}, needs: map[string]int{}, links: map[uint64]int{}}
	for _, s := range all {
		l.snapshots[s.Key] = s
		for _, n := range s.Names {
			l.needs[n.Path]++
			l.links[n.Inode] = n.Links
		}
	}
	return l
}

// Frees returns how many bytes of disk it would give back if the snapshot went now.
func (l *Ledger) Frees(key string) (sum int64) {
	gone := map[uint64]int{}
	for _, n := range l.snapshots[key].Names {
		if l.needs[n.Path] > 1 {
			continue
		}
		if gone[n.Inode]++; gone[n.Inode] == l.links[n.Inode] {
			sum += n.Bytes
		}
	}
	return sum
}

// Remove takes a snapshot out of the account.
func (l *Ledger) Remove(key string) {
	for _, n := range l.snapshots[key].Names {
		if l.needs[n.Path]--; l.needs[n.Path] == 0 {
			l.links[n.Inode]--
		}
	}
	delete(l.snapshots, key)
}

// Order sorts snapshots as they should go: the one that was used least lately
// first, of equals the largest.
func Order(all []Snapshot) {
	slices.SortFunc(all, func(a, b Snapshot) int {
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(size(b), size(a)), cmp.Compare(a.Key, b.Key))
	})
}

func size(s Snapshot) (sum int64) {
	for _, n := range s.Names {
		sum += n.Bytes
	}
	return sum
}
