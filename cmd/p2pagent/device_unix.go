package main

import (
	"os"
	"path/filepath"
	"syscall"
)

// nearest returns the deepest folder of path that exists.
func nearest(path string) (string, os.FileInfo) {
	for {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			return path, info
		}
		up := filepath.Dir(path)
		if up == path {
			return path, nil
		}
		path = up
	}
}

// device returns the filesystem that path is on, or would be.
func device(path string) (uint64, bool) {
	_, info := nearest(path)
	st, ok := sysStat(info)
	if !ok {
		return 0, false
	}
	return uint64(st.Dev), true
}

func sysStat(info os.FileInfo) (*syscall.Stat_t, bool) {
	if info == nil {
		return nil, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st, ok
}
