package hubtest

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"p2pagent/pkg/pieces"
)

// File is one file of a repository.
type File struct {
	Path    string
	Content Content
	// Storage says where the Hub keeps it: by size (AutoStorage), in git or in LFS.
	Storage Storage
	// SHA256 is the digest of an LFS file when it is known; "" computes it once,
	// when somebody asks.
	SHA256 string
	// Anew stores the file's chunks whether or not Xet.Dedup finds them stored:
	// Generated content repeats itself, but stands for one that does not.
	Anew bool

	sums *sums
	xet  *stored // guarded by Server.uploads
}

// Storage is where a file is kept.
type Storage int

// Where a file is kept.
const (
	AutoStorage Storage = iota // LFS from Options.LFSAbove on
	InGit
	InLFS
)

type sums struct {
	once        sync.Once
	oid, digest string
}

// ids returns the git id, and for an LFS file its SHA-256 ("" otherwise).
func (f *File) ids(lfs bool) (oid, digest string) {
	f.sums.once.Do(func() {
		if !lfs {
			f.sums.oid = gitSHA1(f.Content)
			return
		}
		if f.sums.digest = f.SHA256; f.sums.digest == "" {
			f.sums.digest = sha256Of(f.Content)
		}
		f.sums.oid = gitSHA1(pointer(f.sums.digest, f.Content.Size()))
	})
	return f.sums.oid, f.sums.digest
}

// RepoSpec describes a repository.
type RepoSpec struct {
	ID    string // "org/name", "name", "datasets/org/name"
	Files []File // of the first commit of main
	// Private repositories do not exist for requests without Options.Token.
	Private bool
	// Gated repositories answer 403 GatedRepo for their files without
	// Options.Token; who asks for the listing gets it, as at the Hub.
	Gated bool
	// Disabled repositories answer 403 to everybody.
	Disabled bool
	// RenamedTo makes every route of this name a relative redirect to another one.
	RenamedTo string
	// Rows are put into every listing as they are: odd rows for hostile listings.
	Rows []map[string]any
}

type repo struct {
	spec    RepoSpec
	id      pieces.Repo
	commits map[string]map[string]*File // commit -> path -> file
	refs    map[string]string           // "refs/heads/main" -> commit
}

// AddRepo adds a repository whose branch main has the given files, and returns
// their commit. The commit's id depends on the repository's name and the files'
// paths, sizes and order of addition, not on any digest.
func (s *Server) AddRepo(spec RepoSpec) pieces.Commit {
	id, err := pieces.ParseRepo(spec.ID)
	if err != nil {
		panic("hubtest: " + err.Error())
	}
	s.mu.Lock()
	s.repos[id] = &repo{spec: spec, id: id, commits: make(map[string]map[string]*File), refs: make(map[string]string)}
	s.mu.Unlock()
	return s.Push(spec.ID, "main", spec.Files)
}

// Push makes a new commit with exactly these files and moves a branch to it.
func (s *Server) Push(id, branch string, files []File) pieces.Commit {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.mustRepo(id)
	tree := make(map[string]*File, len(files))
	h := sha1.New()
	fmt.Fprintf(h, "%s %d\n", r.id, len(r.commits))
	for _, f := range files {
		if f.Content == nil {
			panic("hubtest: file " + f.Path + " has no content")
		}
		f.sums = &sums{}
		tree[f.Path] = &f
		fmt.Fprintf(h, "%d %s\n", f.Content.Size(), f.Path)
	}
	commit := hex.EncodeToString(h.Sum(nil))
	r.commits[commit] = tree
	r.refs["refs/heads/"+branch] = commit
	return pieces.Commit(commit)
}

// Tag gives a commit a name: a tag ("v1"), or a whole ref ("refs/pr/1").
func (s *Server) Tag(id, name string, commit pieces.Commit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !strings.HasPrefix(name, "refs/") {
		name = "refs/tags/" + name
	}
	s.mustRepo(id).refs[name] = string(commit)
}

// Outline returns what a client should read of a commit.
func (s *Server) Outline(id string, commit pieces.Commit) *pieces.Outline {
	s.mu.Lock()
	r := s.mustRepo(id)
	tree := r.commits[string(commit)]
	s.mu.Unlock()
	o := &pieces.Outline{Repo: r.id, Commit: commit}
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		f := tree[path]
		oid, digest := f.ids(s.lfs(f))
		if digest == "" {
			digest = oid
		}
		file := pieces.File{Path: path, OID: mustDigest(oid), Blob: pieces.Blob{Digest: mustDigest(digest), Size: f.Content.Size()}}
		if x := s.fileOf(f, tree); x != nil && !s.o.Xet.Redacted {
			file.Xet = mustDigest(x.name.String())
		}
		o.Files = append(o.Files, file)
	}
	return o
}

func (s *Server) mustRepo(id string) *repo {
	ref, err := pieces.ParseRepo(id)
	if err != nil || s.repos[ref] == nil {
		panic("hubtest: no repository " + id)
	}
	return s.repos[ref]
}

func (s *Server) lfs(f *File) bool {
	if f.Storage == AutoStorage {
		return f.Content.Size() >= s.o.LFSAbove
	}
	return f.Storage == InLFS
}

// commitOf finds what a revision means; the caller holds the lock.
func (r *repo) commitOf(revision string) (string, bool) {
	if _, ok := r.commits[revision]; ok {
		return revision, true
	}
	if revision == "HEAD" {
		revision = "main"
	}
	for _, prefix := range []string{"", "refs/heads/", "refs/tags/"} {
		if c, ok := r.refs[prefix+revision]; ok {
			return c, true
		}
	}
	return "", false
}
