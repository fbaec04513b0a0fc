package main

import (
	"os"
	"path/filepath"
	"syscall"
)

// device returns the filesystem of the deepest folder of path that exists.
func device(path string) (uint64, bool) {
	for {
		info, err := os.Stat(path)
		if st, ok := sysStat(info); err == nil && ok {
			return uint64(st.Dev), true
		}
		up := filepath.Dir(path)
		if up == path {
			return 0, false
		}
		path = up
	}
}

func sysStat(info os.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}
