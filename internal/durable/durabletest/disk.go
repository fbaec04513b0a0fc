// Package durabletest tells what a crash would leave of folders that are changed
// through durable.Root: a Disk watches every step, can stop at any, and then puts
// the folders into a state that a killed process or a power cut may leave.
//
// A power cut keeps what was synced. Of everything else it may keep any part: a
// name without the content, the content without the name, the new modification
// time with the old content. File systems are kinder than that, each in its own
// way; a program must not need it.
package durabletest

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"p2pagent/internal/durable"
)

// ErrStopped is what every step gets after the crash.
var ErrStopped = errors.New("crashed")

// Disk watches folders below one top folder.
type Disk struct {
	// Fault may fail a step before it is taken. Steps are counted from 1.
	Fault func(step int, op durable.Op) error
	// StopAt is the first step that is not taken any more; 0 is never.
	StopAt int

	top, attic string

	mu      sync.Mutex // serializes the steps
	steps   int
	trace   []durable.Op
	names   map[string]map[string]entry // durable entries, by folder relative to top
	content map[uint64][]byte           // durable content, by inode
}

// entry is a name in a folder.
type entry struct {
	mode   fs.FileMode
	inode  uint64
	target string // of a link
}

// NewDisk watches what lies below top. Names that are there already count as
// durable, content does not. The attic is a folder on the same filesystem that
// keeps every inode alive, so that none is used twice.
func NewDisk(top, attic string) (*Disk, error) {
	d := &Disk{top: top, attic: attic, names: map[string]map[string]entry{}, content: map[uint64][]byte{}}
	err := filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return d.keepNames(path)
		}
		return nil
	})
	return d, err
}

// Steps returns how many steps were taken.
func (d *Disk) Steps() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.steps
}

// Trace returns the steps that were taken.
func (d *Disk) Trace() []durable.Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.trace)
}

// Hook is given to durable.Open.
func (d *Disk) Hook(op durable.Op, do func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.StopAt > 0 && d.steps+1 >= d.StopAt {
		return ErrStopped
	}
	d.steps++
	if d.Fault != nil {
		if err := d.Fault(d.steps, op); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	d.trace = append(d.trace, op)
	return d.observe(op)
}

func (d *Disk) observe(op durable.Op) error {
	path := filepath.Join(op.Root.Name(), op.Name)
	switch op.Kind {
	case durable.Create:
		return d.keepInode(path)
	case durable.Sync, durable.SyncData:
		return d.keepContent(path)
	case durable.SyncDir:
		return d.keepNames(path)
	}
	return nil
}

func inodeOf(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }

func (d *Disk) inAttic(inode uint64) string {
	return filepath.Join(d.attic, strconv.FormatUint(inode, 10))
}

func (d *Disk) keepInode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	err = os.Link(path, d.inAttic(inodeOf(info)))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (d *Disk) keepContent(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // moved since it was opened; its inode is known by its new name
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d.content[inodeOf(info)] = raw
	return d.keepInode(path)
}

func (d *Disk) keepNames(path string) error {
	entries, err := d.list(path)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(d.top, path)
	if err != nil {
		return err
	}
	d.names[rel] = entries
	d.dropRenamed(entries)
	return nil
}

// dropRenamed drops durable names of inodes that have another durable name now
// and were renamed to it: a rename is one step, on disk too.
func (d *Disk) dropRenamed(entries map[string]entry) {
	here := map[uint64]bool{}
	for _, e := range entries {
		here[e.inode] = true
	}
	for rel, names := range d.names {
		maps.DeleteFunc(names, func(name string, e entry) bool {
			info, err := os.Lstat(filepath.Join(d.top, rel, name))
			return here[e.inode] && (err != nil || inodeOf(info) != e.inode)
		})
	}
}

func (d *Disk) list(path string) (map[string]entry, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	out := map[string]entry{}
	for _, e := range list {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		at := entry{mode: info.Mode(), inode: inodeOf(info)}
		switch {
		case at.mode&fs.ModeSymlink != 0:
			at.target, err = os.Readlink(filepath.Join(path, e.Name()))
		case at.mode.IsRegular():
			err = d.keepInode(filepath.Join(path, e.Name()))
		}
		if err != nil {
			return nil, err
		}
		out[e.Name()] = at
	}
	return out, nil
}

// CutPower puts the folders into a state that a power cut may leave. With a nil
// rng nothing survives that was not synced; otherwise chance decides for every
// name and every content. All files must be closed.
func (d *Disk) CutPower(rng *rand.Rand) error {
	now := map[string]map[string]entry{}
	if err := d.snapshot(".", now); err != nil {
		return err
	}
	left, err := os.ReadDir(d.top)
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(d.top, e.Name())); err != nil {
			return err
		}
	}
	if err := d.restoreContent(rng); err != nil {
		return err
	}
	return d.rebuild(".", now, coins(rng))
}

func (d *Disk) snapshot(rel string, into map[string]map[string]entry) error {
	entries, err := d.list(filepath.Join(d.top, rel))
	if err != nil {
		return err
	}
	into[rel] = entries
	for name, e := range entries {
		if e.mode.IsDir() {
			if err := d.snapshot(filepath.Join(rel, name), into); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreContent gives every inode what the disk had of it. The modification time
// stays: metadata may have made it to disk where data did not.
func (d *Disk) restoreContent(rng *rand.Rand) error {
	attic, err := os.ReadDir(d.attic)
	if err != nil {
		return err
	}
	for _, e := range attic {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if rng != nil && rng.IntN(2) == 0 {
			continue // the kernel wrote it back in time
		}
		raw, synced := d.content[inodeOf(info)]
		if !synced {
			raw = make([]byte, info.Size())
		}
		path := filepath.Join(d.attic, e.Name())
		if err := rewrite(path, raw, info.ModTime()); err != nil {
			return err
		}
	}
	return nil
}

func rewrite(path string, raw []byte, mtime time.Time) error {
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		return err
	}
	return os.Chtimes(path, mtime, mtime)
}

// rebuild makes a folder from the names that its inodes are to have. The folders
// right below top exist in any case: nobody made them through a hook.
func (d *Disk) rebuild(rel string, now map[string]map[string]entry, coin func(uint64) bool) error {
	entries := map[string]entry{}
	for name, e := range now[rel] {
		if rel == "." || coin(e.inode) {
			entries[name] = e
		}
	}
	for name, e := range d.names[rel] {
		_, taken := entries[name]
		_, replaced := now[rel][name] // then one of the two has the name
		if !taken && (replaced || !coin(e.inode)) {
			entries[name] = e
		}
	}
	for name, e := range entries {
		if err := d.restore(filepath.Join(rel, name), e, now, coin); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) restore(rel string, e entry, now map[string]map[string]entry, coin func(uint64) bool) error {
	path := filepath.Join(d.top, rel)
	switch {
	case e.mode.IsDir():
		if err := os.Mkdir(path, e.mode.Perm()); err != nil {
			return err
		}
		return d.rebuild(rel, now, coin)
	case e.mode&fs.ModeSymlink != 0:
		return os.Symlink(e.target, path)
	}
	return os.Link(d.inAttic(e.inode), path)
}

// coins decides for each inode, once, whether the disk has the names that it had
// last (true) or those that were synced.
func coins(rng *rand.Rand) func(inode uint64) bool {
	thrown := map[uint64]bool{}
	return func(inode uint64) bool {
		if rng == nil {
			return false
		}
		side, ok := thrown[inode]
		if !ok {
			side = rng.IntN(2) == 0
			thrown[inode] = side
		}
		return side
	}
}
