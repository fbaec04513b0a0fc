package kube

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestOwn: only a folder with nothing in it changes hands, and nothing below one
// ever does.
func TestOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives folders away")
	}
	for _, c := range []struct {
		name   string
		owner  int
		inside []string
		want   int // owner afterwards
		fails  bool
	}{
		{"new", 0, nil, 4711, false},
		{"somebody's, empty", 99, nil, 4711, false},
		{"a disk of its own", 0, []string{"lost+found"}, 4711, false},
		{"ours", 4711, []string{"hub"}, 4711, false},
		{"a cache of root", 0, []string{"hub"}, 0, true},
		{"a cache of somebody", 99, []string{"hub", "token"}, 99, true},
		{"a disk with a cache", 0, []string{"lost+found", "hub"}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range c.inside {
				if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(dir, c.owner, c.owner); err != nil {
				t.Fatal(err)
			}
			err := Own(dir, 4711, 4712)
			if _, refused := errors.AsType[*OwnerError](err); refused != c.fails || err != nil && !refused {
				t.Fatalf("error %v, want one: %v", err, c.fails)
			}
			if got := ownerOf(t, dir); got != c.want {
				t.Errorf("owner %d, want %d", got, c.want)
			}
			for _, name := range c.inside {
				if got := ownerOf(t, filepath.Join(dir, name)); got != 0 {
					t.Errorf("%s was given to %d", name, got)
				}
			}
		})
	}
}

func TestOwnWithoutAFolder(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(dir, "missing"), link} {
		if err := Own(name, os.Getuid(), os.Getgid()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func ownerOf(t *testing.T, name string) int {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
