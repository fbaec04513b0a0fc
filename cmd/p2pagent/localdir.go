package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// The layout of a local folder is that of huggingface_hub: real files, and below
// .cache/huggingface what each of them is, so that the client knows them again.
const (
	localMeta  = ".cache/huggingface"
	localFiles = localMeta + "/download"
	cacheTag   = "Signature: 8a477f597d28d172789f06886806bc55\n# Caches of Hub clients and p2pagent.\n"
)

// localFolder is a folder that gets real files. All access goes through an
// os.Root: a link in it leads nowhere else.
type localFolder struct {
	dir    string
	root   *os.Root
	commit string
	now    func() time.Time
}

// copyOut copies the wanted files of a snapshot into dir, each compared with its
// digest while it is copied. Files that are there already, by their record, stay.
func copyOut(ctx context.Context, lib library, r agent.Request, res agent.Result, dir string, watch func(agent.Job)) error {
	ref := r.Ref
	ref.Revision = res.Commit
	_, all, err := lib.Show(ctx, ref)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("copy to local folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("copy to local folder: %w", err)
	}
	defer root.Close()
	l := &localFolder{dir: dir, root: root, commit: res.Commit, now: time.Now}
	files, err := l.missing(all, r)
	if err != nil {
		return fmt.Errorf("copy to local folder %s: %w", dir, err)
	}
	view := agent.Job{Ref: r.Ref.String(), Status: "copying", Waiting: "files to " + dir}
	watch(view)
	for _, f := range files {
		if err := l.bring(ctx, res.Path, f); err != nil {
			return fmt.Errorf("copy %s to local folder %s: %w", f.Path, dir, err)
		}
	}
	return l.tree(res.Path)
}

// missing returns the wanted files that are not there, once it is sure that they
// fit.
func (l *localFolder) missing(all []agent.File, r agent.Request) ([]agent.File, error) {
	byPath, paths := map[string]agent.File{}, make([]string, len(all))
	for i, f := range all {
		byPath[f.Path], paths[i] = f, f.Path
	}
	wanted, err := agent.Match(paths, r.Include, r.Exclude)
	if err != nil {
		return nil, err
	}
	var out []agent.File
	var need int64
	for _, p := range wanted {
		if !l.has(byPath[p]) {
			out = append(out, byPath[p])
			need += byPath[p].Size
		}
	}
	if free := freeBytes(l.dir); need > free {
		return nil, &cachefs.NoSpaceError{Need: need, Free: free, Dir: l.dir}
	}
	return out, l.prepare()
}

func (l *localFolder) prepare() error {
	if err := l.root.MkdirAll(localFiles, 0o777); err != nil {
		return err
	}
	for name, text := range map[string]string{".gitignore": "*", "CACHEDIR.TAG": cacheTag} {
		name = localMeta + "/" + name
		if _, err := l.root.Lstat(name); err == nil {
			continue
		}
		if err := l.root.WriteFile(name, []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

func metadataName(file string) string { return path.Join(localFiles, file+".metadata") }

// has trusts a record as the client does: it names the digest, and the file was
// not changed after it was written.
func (l *localFolder) has(f agent.File) bool {
	info, err := l.root.Lstat(f.Path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size {
		return false
	}
	record, err := l.root.Open(metadataName(f.Path))
	if err != nil {
		return false
	}
	defer record.Close()
	var lines []string
	for s := bufio.NewScanner(io.LimitReader(record, 4096)); s.Scan(); {
		lines = append(lines, strings.TrimSpace(s.Text()))
	}
	if len(lines) < 3 || lines[1] != f.Digest {
		return false
	}
	at, err := strconv.ParseFloat(lines[2], 64)
	return err == nil && float64(info.ModTime().UnixNano())/1e9-1 <= at
}

// bring copies one file: beside its name, compared, synced, renamed; then its
// record.
func (l *localFolder) bring(ctx context.Context, snapshot string, f agent.File) error {
	if err := pieces.CheckPath(f.Path); err != nil {
		return err
	}
	for _, dir := range []string{path.Dir(f.Path), path.Dir(metadataName(f.Path))} {
		if err := l.root.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	temp := metadataName(f.Path) + ".p2pagent"
	defer l.root.Remove(temp)
	if err := l.copy(ctx, filepath.Join(snapshot, filepath.FromSlash(f.Path)), temp, f); err != nil {
		return err
	}
	if err := l.root.Rename(temp, f.Path); err != nil {
		return err
	}
	record := fmt.Sprintf("%s\n%s\n%.6f\n", l.commit, f.Digest, float64(l.now().UnixNano())/1e9)
	return l.root.WriteFile(metadataName(f.Path), []byte(record), 0o666)
}

func (l *localFolder) copy(ctx context.Context, from, to string, f agent.File) error {
	digest, err := pieces.ParseDigest(f.Digest)
	if err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := l.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	blob := pieces.Blob{Digest: digest, Size: f.Size}
	hash := blob.NewHash()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(out, hash)}, reading{ctx, in}, make([]byte, 1<<20))
	if err == nil {
		err = blob.Check(hash)
	}
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// reading ends with its context.
type reading struct {
	ctx context.Context
	io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// tree copies the listing that the cache has of a whole snapshot.
func (l *localFolder) tree(snapshot string) error {
	name := l.commit + ".json"
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(snapshot)), "trees", name))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EACCES) {
		return nil // a part of a snapshot has none
	}
	if err != nil {
		return err
	}
	if err := l.root.MkdirAll(localMeta+"/trees", 0o777); err != nil {
		return err
	}
	return l.root.WriteFile(localMeta+"/trees/"+name, raw, 0o666)
}
