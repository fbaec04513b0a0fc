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

// Name returns a fresh name in the stage. It does not depend on what it will
// become, so it is never too long.
func (s *Stage) Name() string { return path.Join(s.dir, rand.Text()) }

// Sweep removes everything in the stage and tells how many things that were. No
// other process may be using it.
func (s *Stage) Sweep() (int, error) {
	entries, err := s.root.ReadDir(s.dir)
	for _, e := range entries {
		err = errors.Join(err, s.root.RemoveAll(path.Join(s.dir, e.Name())))
	}
	return len(entries), err
}

// WriteFile gives data the name in to, replacing a file that has it. When it
// returns nil both are durable; after an error the old file is still there,
// unless the error is about the last step, the sync of the folder.
func (s *Stage) WriteFile(to *Root, name string, data []byte, perm fs.FileMode) error {
	if err := s.WriteFileNoSync(to, name, data, perm, true); err != nil {
		return err
	}
	return to.SyncDir(path.Dir(name))
}

// WriteFileNoSync is WriteFile without the last sync, and without the first when
// content is false: for files that can be made again and whose reader notices
// when they are torn.
func (s *Stage) WriteFileNoSync(to *Root, name string, data []byte, perm fs.FileMode, content bool) error {
	tmp := s.Name()
	f, err := s.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, perm)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil && content {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	return s.Move(tmp, to, name)
}

// Symlink makes a link, replacing a file or link that has the name. It is
// durable after the next SyncDir of its folder.
func (s *Stage) Symlink(to *Root, target, name string) error {
	tmp := s.Name()
	err := s.root.do(Op{Kind: Symlink, Name: tmp, New: target}, func() error { return s.root.root.Symlink(target, tmp) })
	if err != nil {
		return err
	}
	return s.Move(tmp, to, name)
}

// Link gives an open file another name, replacing a file that has it. It is
// durable after the next SyncDir of its folder.
func (s *Stage) Link(f *File, to *Root, name string) error {
	tmp := s.Name()
	if err := f.LinkFile(s.root, tmp); err != nil {
		return err
	}
	return s.Move(tmp, to, name)
}

// Move moves something made in the stage to its name. Renaming a link onto
// another link of the same inode leaves both (POSIX), hence the last step.
func (s *Stage) Move(tmp string, to *Root, name string) error {
	if info, err := to.Lstat(name); err == nil && info.IsDir() {
		return errors.Join(errInWay(name), s.root.RemoveAll(tmp))
	}
	if err := s.root.Move(tmp, to, name); err != nil {
		return errors.Join(err, s.root.Remove(tmp))
	}
	if _, err := s.root.Lstat(tmp); err == nil {
		return s.root.Remove(tmp)
	}
	return nil
}
