package durable

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path"
)

// Stage is a folder for what is not finished. Things are made there and moved to
// their names when they are whole, so a reader never sees a part of one, and
// what a crash leaves behind lies in one place.
type Stage struct {
	root *Root
	dir  string
}

// NewStage uses an existing folder that holds nothing else.
func NewStage(root *Root, dir string) *Stage { return &Stage{root: root, dir: dir} }

// name returns a fresh name in the stage. It does not depend on what it will
// become, so it is never too long.
func (s *Stage) name() string { return path.Join(s.dir, rand.Text()) }

// Sweep removes everything in the stage and tells how much that was. No other
// process may be using it.
func (s *Stage) Sweep() (Amount, error) {
	var total Amount
	entries, err := s.root.ReadDir(s.dir)
	for _, e := range entries {
		name := path.Join(s.dir, e.Name())
		total.Add(s.root.Measure(name))
		err = errors.Join(err, s.root.RemoveAll(name))
	}
	return total, err
}

// WriteFile gives data the name in to, replacing a file that has it. When it
// returns nil both are durable; after an error the old file is still there,
// unless the error is about the last step, the sync of the folder.
func (s *Stage) WriteFile(to *Root, name string, data []byte, perm fs.FileMode) error {
	if err := s.write(to, name, data, perm, (*File).Sync); err != nil {
		return err
	}
	return to.SyncDir(path.Dir(name))
}

// WriteHint is WriteFile without the syncs: for files that can be made again and
// whose reader notices when a crash left them torn, old or missing.
func (s *Stage) WriteHint(to *Root, name string, data []byte, perm fs.FileMode) error {
	return s.write(to, name, data, perm, func(*File) error { return nil })
}

func (s *Stage) write(to *Root, name string, data []byte, perm fs.FileMode, sync func(*File) error) error {
	return s.Make(to, name, perm, func(f *File) error {
		if _, err := f.WriteAt(data, 0); err != nil {
			return err
		}
		return sync(f)
	})
}

// Make opens a new file, lets fill write and sync it, and gives it the name in
// to, replacing a file that has it. The name is durable after the next SyncDir of
// its folder. When fill fails, nothing is left.
func (s *Stage) Make(to *Root, name string, perm fs.FileMode, fill func(*File) error) error {
	tmp := s.name()
	f, err := s.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
	if err != nil {
		return err
	}
	f.InheritGroup(to, path.Dir(name))
	if err := errors.Join(fill(f), f.Close()); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return s.put(tmp, to, name)
}

// Symlink makes a link, replacing a file or link that has the name. It is
// durable after the next SyncDir of its folder.
func (s *Stage) Symlink(to *Root, target, name string) error {
	tmp := s.name()
	err := s.root.do(Op{Kind: Symlink, Name: tmp, New: target}, func() error { return s.root.root.Symlink(target, tmp) })
	if err != nil {
		return err
	}
	return s.put(tmp, to, name)
}

// Link gives an open file another name, replacing a file that has it. It is
// durable after the next SyncDir of its folder.
func (s *Stage) Link(f *File, to *Root, name string) error {
	tmp := s.name()
	if err := f.linkFile(s.root, tmp); err != nil {
		return err
	}
	if err := s.put(tmp, to, name); err != nil {
		return err
	}
	// Renaming a link onto another link of the same inode leaves both (POSIX).
	return s.root.Remove(tmp)
}

// Discard takes something out of from in one durable step and then removes it
// with all that is below it.
func (s *Stage) Discard(from *Root, name string) error {
	tmp := s.name()
	if err := from.Move(name, s.root, tmp); err != nil {
		return err
	}
	if err := from.SyncDir(path.Dir(name)); err != nil {
		return err
	}
	return s.root.RemoveAll(tmp)
}

func (s *Stage) put(tmp string, to *Root, name string) error {
	if err := s.root.Move(tmp, to, name); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return nil
}
