package pieces

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kind is the type of a Hub repository.
type Kind uint8

// The kinds of repository that the Hub serves and its cache can hold.
const (
	Model Kind = iota
	Dataset
	Space
)

var kindNames = [...]string{"model", "dataset", "space"}

// String returns the singular name: "model", "dataset" or "space".
func (k Kind) String() string {
	if int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Plural returns the word used in API routes and cache folders: "models", ….
func (k Kind) Plural() string { return k.String() + "s" }

// URLPrefix returns what stands before the repository name in a resolve URL:
// nothing for models, "datasets/" or "spaces/" for the others.
func (k Kind) URLPrefix() string {
	if k == Model {
		return ""
	}
	return k.Plural() + "/"
}

// Repo names a repository on the Hub.
type Repo struct {
	Kind Kind
	Name string // "name" or "namespace/name"
}

// String returns the form a user types: "org/name" or "datasets/org/name".
func (r Repo) String() string { return r.Kind.URLPrefix() + r.Name }

// Folder returns the name of the repository's folder in the Hub's cache,
// such as "models--org--name".
func (r Repo) Folder() string {
	return r.Kind.Plural() + "--" + strings.ReplaceAll(r.Name, "/", "--")
}

// ParseFolder is the inverse of Repo.Folder.
func ParseFolder(folder string) (Repo, error) {
	plural, name, _ := strings.Cut(folder, "--")
	for k := range kindNames {
		if plural != Kind(k).Plural() {
			continue
		}
		repo, err := ParseRepo(Kind(k).Plural() + "/" + strings.Replace(name, "--", "/", 1))
		if err == nil && repo.Folder() != folder {
			err = fmt.Errorf("it would be %s", repo.Folder())
		}
		if err != nil {
			return Repo{}, fmt.Errorf("parse cache folder %q: %w", folder, err)
		}
		return repo, nil
	}
	return Repo{}, fmt.Errorf("parse cache folder %q: want KIND--NAME", folder)
}

// Ref is what a user types: a repository at a revision.
type Ref struct {
	Repo     Repo
	Revision string // a branch, a tag, refs/pr/N or a Commit; never empty
}

// DefaultRevision is the revision that a Ref without one means.
const DefaultRevision = "main"

// String returns the canonical form "[datasets/]org/name@revision".
func (r Ref) String() string { return r.Repo.String() + "@" + r.Revision }

// Commit is the 40-digit lower-case hexadecimal id that a revision resolves to.
type Commit string

var (
	commitForm   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	nameForm     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$`)
	revisionForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./+=@-]{0,254}$`)
)

// ParseCommit accepts exactly 40 lower-case hexadecimal digits.
func ParseCommit(s string) (Commit, error) {
	if !commitForm.MatchString(s) {
		return "", fmt.Errorf("parse commit %q: want 40 lower-case hexadecimal digits", s)
	}
	return Commit(s), nil
}

// IsCommit tells whether a revision is already a commit id.
func IsCommit(revision string) bool { return commitForm.MatchString(revision) }

// ParseRef reads "[hf://][models/|datasets/|spaces/]org/name[@revision]". The
// revision defaults to DefaultRevision.
func ParseRef(s string) (Ref, error) {
	name, revision, found := strings.Cut(strings.TrimPrefix(s, "hf://"), "@")
	if !found {
		revision = DefaultRevision
	}
	repo, err := ParseRepo(name)
	if err != nil {
		return Ref{}, err
	}
	if err := CheckRevision(revision); err != nil {
		return Ref{}, fmt.Errorf("parse ref %q: %w", s, err)
	}
	return Ref{Repo: repo, Revision: revision}, nil
}

// ParseRepo reads "[models/|datasets/|spaces/]name" or ".../org/name" by the
// Hub's own naming rules (huggingface_hub utils/_validators.py).
func ParseRepo(s string) (Repo, error) {
	kind, name := Model, s
	for k := range kindNames {
		if rest, ok := strings.CutPrefix(s, Kind(k).Plural()+"/"); ok {
			kind, name = Kind(k), rest
		}
	}
	parts := strings.Split(name, "/")
	if len(parts) > 2 || len(parts) == 2 && isPlural(parts[0]) {
		return Repo{}, fmt.Errorf("parse repository %q: want name or org/name", s)
	}
	for _, p := range parts {
		if !nameForm.MatchString(p) || strings.Contains(p, "--") || strings.Contains(p, "..") ||
			strings.HasSuffix(p, ".git") || strings.HasSuffix(p, ".") || strings.HasSuffix(p, "-") {
			return Repo{}, fmt.Errorf("parse repository %q: %q is not a Hub name (letters, digits, '-', '_', '.'; no \"--\", no \"..\", at most 96)", s, p)
		}
	}
	return Repo{Kind: kind, Name: name}, nil
}

// isPlural tells whether an organisation's name would read as a kind.
func isPlural(org string) bool {
	return slices.ContainsFunc([]Kind{Model, Dataset, Space}, func(k Kind) bool { return k.Plural() == org })
}

// CheckRevision refuses revisions that cannot be a git ref or could leave the
// cache's refs folder.
func CheckRevision(revision string) error {
	if !revisionForm.MatchString(revision) {
		return fmt.Errorf("revision %q: want a branch, a tag, refs/pr/N or a commit", revision)
	}
	if err := CheckPath(revision); err != nil {
		return fmt.Errorf("revision: %w", err)
	}
	return nil
}
