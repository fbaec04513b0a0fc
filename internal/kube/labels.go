package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"strings"
	"time"
)

// Prefix begins the keys of all labels that this package sets, or takes away.
const Prefix = "p2pagent.dev/"

// A key's name and a value have at most 63 characters, and begin and end with a
// letter or digit (k8s.io/docs: Labels and Selectors, Syntax and character set).
const maxName = 63

// maxLabels bounds what a node is made to carry: a Node is sent to many.
const maxLabels = 200

// Snapshot is one that is complete on this node.
type Snapshot struct {
	Repo   string // [datasets/|spaces/]org/name
	Commit string
	At     time.Time // when a revision last came to mean it
}

// Labels says which snapshots are here: the key is Prefix and the folder of the
// repository in the cache (models--org--name), the value its commit. Of several
// commits it is the one that a revision came to mean last.
func Labels(snapshots []Snapshot) map[string]string {
	newest := map[string]Snapshot{}
	for _, s := range snapshots {
		key := Prefix + name(s.Repo)
		if old, ok := newest[key]; ok && (s.At.Before(old.At) || s.At.Equal(old.At) && s.Commit < old.Commit) {
			continue
		}
		if _, ok := newest[key]; ok || len(newest) < maxLabels {
			newest[key] = s
		}
	}
	labels := make(map[string]string, len(newest))
	for key, s := range newest {
		labels[key] = s.Commit
	}
	return labels
}

// name is the folder's name, shortened with a hash in the end where it is too long
// for a label or has an end that a label may not have.
func name(repo string) string {
	if !strings.HasPrefix(repo, "datasets/") && !strings.HasPrefix(repo, "spaces/") {
		repo = "models/" + repo
	}
	folder := strings.ReplaceAll(repo, "/", "--")
	if len(folder) <= maxName && strings.Trim(folder, "-._") == folder {
		return folder
	}
	sum := sha256.Sum256([]byte(folder))
	tail := "--" + hex.EncodeToString(sum[:8])
	return folder[:min(len(folder), maxName-len(tail))] + tail
}

// changes turns what a node has into what it should have: nil takes a label away.
// Labels of others are left alone.
func changes(have, want map[string]string) map[string]*string {
	out := map[string]*string{}
	for key := range ours(have) {
		if _, ok := want[key]; !ok {
			out[key] = nil
		}
	}
	for key, value := range want {
		if old, ok := have[key]; !ok || old != value {
			out[key] = &value
		}
	}
	return out
}

// ours are the labels that this package set.
func ours(labels map[string]string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for key, value := range labels {
			if strings.HasPrefix(key, Prefix) && !yield(key, value) {
				return
			}
		}
	}
}
