package main

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/scripts/internal/size"
)

// fill adds the repositories and computes every digest, so that the first
// request is answered at once. It returns the bytes of all distinct content.
func fill(hub *hubtest.Server, o options) (int64, error) {
	f := &filler{hub: hub, o: o, known: make(map[string]bool), blobs: make(map[pieces.Blob]bool)}
	for _, spec := range o.models {
		if err := f.folder(spec); err != nil {
			return 0, fmt.Errorf("-model %s: %w", spec, err)
		}
	}
	for _, spec := range o.generated {
		if err := f.generated(spec); err != nil {
			return 0, fmt.Errorf("-generate %s: %w", spec, err)
		}
	}
	var total int64
	for b := range f.blobs {
		total += b.Size
	}
	return total, nil
}

type filler struct {
	hub   *hubtest.Server
	o     options
	known map[string]bool // repositories that were added
	blobs map[pieces.Blob]bool
}

func (f *filler) folder(spec string) error {
	name, dir, ok := strings.Cut(spec, "=")
	ref, err := pieces.ParseRef(name)
	if !ok || err != nil {
		return fmt.Errorf("want org/name[@revision]=DIR (%v)", err)
	}
	files, err := hubtest.FromDir(dir)
	if err != nil {
		return err
	}
	f.add(ref, files)
	return nil
}

func (f *filler) add(ref pieces.Ref, files []hubtest.File) {
	id := ref.Repo.String()
	if !f.known[id] {
		f.known[id] = true
		f.hub.AddRepo(hubtest.RepoSpec{ID: id, Gated: slices.Contains(f.o.gated, id), Private: slices.Contains(f.o.private, id)})
	}
	branch := ref.Revision
	if branch != pieces.DefaultRevision {
		branch = "at-" + strings.ReplaceAll(ref.Revision, "/", "-") // a commit needs a branch before it can have another name
	}
	commit := f.hub.Push(id, branch, files)
	if branch != ref.Revision {
		f.hub.Tag(id, ref.Revision, commit)
	}
	for _, b := range pieces.Blobs(f.hub.Outline(id, commit).Files) {
		f.blobs[b] = true
	}
}

// generated adds SIZE bytes in FILES files, and SMALL files of some hundred to
// some thousand bytes.
func (f *filler) generated(spec string) error {
	name, shape, ok := strings.Cut(spec, "=")
	ref, err := pieces.ParseRef(name)
	parts := strings.Split(shape+":0", ":") // without SMALL there are none
	if !ok || err != nil || len(parts) < 3 || len(parts) > 4 {
		return fmt.Errorf("want org/name=SIZE:FILES[:SMALL] (%v)", err)
	}
	var total size.Bytes
	if err := total.Set(parts[0]); err != nil {
		return err
	}
	large, err1 := strconv.Atoi(parts[1])
	small, err2 := strconv.Atoi(parts[2])
	if err1 != nil || err2 != nil || large < 1 || small < 0 || int64(total) < int64(large) {
		return fmt.Errorf("want org/name=SIZE:FILES[:SMALL], FILES at least 1")
	}
	f.add(ref, shape2files(seedOf(ref.Repo.String()), int64(total), large, small))
	return nil
}

func seedOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes everything
	return h.Sum64()
}

func shape2files(seed uint64, total int64, large, small int) []hubtest.File {
	var files []hubtest.File
	for i := range large {
		n := total / int64(large)
		if i == large-1 {
			n = total - n*int64(large-1)
		}
		files = append(files, hubtest.File{Path: fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, large), Content: hubtest.Generated(seed+uint64(i), n), Anew: true})
	}
	for i := range small {
		files = append(files, hubtest.File{Path: fmt.Sprintf("small/%d.json", i), Content: hubtest.Generated(seed+uint64(large+i), int64(200+777*i%9000))})
	}
	return files
}
