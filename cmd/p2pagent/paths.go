package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// place finds default paths. A service has folders of its own (systemd sets
// STATE_DIRECTORY and RUNTIME_DIRECTORY), root has /run, a user neither.
type place struct {
	get  func(string) string
	root bool
}

// hfHome follows huggingface_hub's constants.py; a service without a home has
// its caches below its state.
func (p place) hfHome() string {
	switch {
	case p.get("HF_HOME") != "":
		return expandHome(p.get("HF_HOME"), p.get("HOME"))
	case p.get("XDG_CACHE_HOME") != "":
		return filepath.Join(p.get("XDG_CACHE_HOME"), "huggingface")
	case p.get("HOME") != "" && p.get("HOME") != "/":
		return filepath.Join(p.get("HOME"), ".cache", "huggingface")
	case p.stateDirectory() != "":
		return filepath.Join(p.stateDirectory(), "huggingface")
	}
	return ""
}

func (p place) stateDirectory() string { return first(p.get("STATE_DIRECTORY")) }

// hubCache is where Hub clients look.
func (p place) hubCache() (string, error) {
	if home := p.hfHome(); home != "" {
		return filepath.Join(home, "hub"), nil
	}
	return "", fmt.Errorf("hub-cache: no default without HOME, HF_HOME or STATE_DIRECTORY; set it")
}

// stateDir lies beside the cache, so that it is on the same filesystem and yet
// outside. A service's own state folder comes first when the cache is there too.
func (p place) stateDir(hubCache string) string {
	if dir := p.stateDirectory(); dir != "" && !within(dir, hubCache) && sameFilesystem(dir, hubCache) {
		return filepath.Join(dir, "agent")
	}
	return filepath.Join(filepath.Dir(filepath.Clean(hubCache)), "p2pagent")
}

// serveSocket is where an agent listens.
func (p place) serveSocket(stateDir string) string {
	switch {
	case p.get("RUNTIME_DIRECTORY") != "":
		return filepath.Join(first(p.get("RUNTIME_DIRECTORY")), "agent.sock")
	case p.root:
		return "/run/p2pagent/agent.sock"
	case p.get("XDG_RUNTIME_DIR") != "":
		return filepath.Join(p.get("XDG_RUNTIME_DIR"), "p2pagent", "agent.sock")
	}
	return filepath.Join(stateDir, "agent.sock")
}

// findSocket is where a command looks for an agent: the first place that has a
// socket, else the first place. A user's own agent comes before the machine's.
func (p place) findSocket(stateDir string) string {
	candidates := []string{p.serveSocket(stateDir), filepath.Join(stateDir, "agent.sock"), "/run/p2pagent/agent.sock"}
	for _, c := range candidates {
		if info, err := os.Stat(c); err == nil && info.Mode().Type() == os.ModeSocket {
			return c
		}
	}
	return candidates[0]
}

// first returns the first of the folders that systemd separates by colons.
func first(list string) string {
	dir, _, _ := strings.Cut(list, ":")
	return dir
}

// expandHome does what a shell would have done with a leading ~, as
// huggingface_hub does.
func expandHome(path, home string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && home != "" {
		return filepath.Join(home, rest)
	}
	return path
}

func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// sameFilesystem compares what exists of two paths.
func sameFilesystem(a, b string) bool {
	da, oka := device(a)
	db, okb := device(b)
	return oka && okb && da == db
}
