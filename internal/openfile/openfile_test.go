package openfile

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever has the file open, mapped or under another name is seen, and nobody is
// when all have closed it.
func TestElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, path+".link"); err != nil {
		t.Fatal(err)
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	mapped := func() func() {
		f := open(path)
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		f.Close() // what loaders do
		return func() { unix.Munmap(m) }
	}
	process := func() func() {
		f := open(path)
		cmd := exec.Command("cat")
		cmd.ExtraFiles = []*os.File{f}
		in, _ := cmd.StdinPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		return func() { in.Close(); cmd.Wait() }
	}
	for name, hold := range map[string]func() func(){
		"open here":       func() func() { f := open(path); return func() { f.Close() } },
		"by another name": func() func() { f := open(path + ".link"); return func() { f.Close() } },
		"mapped":          mapped,
		"another process": process,
	} {
		release := hold()
		if !elsewhere(t, path) {
			t.Errorf("%s: not seen", name)
		}
		release()
		if elsewhere(t, path) {
			t.Errorf("%s: still seen", name)
		}
	}
}

func elsewhere(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found, err := Elsewhere(f)
	if err != nil {
		t.Skip(err) // this filesystem has no leases
	}
	return found
}
