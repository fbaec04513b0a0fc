package pieces

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestOutlineRefuses(t *testing.T) {
	lfs, git := mustDigest(t, sha256OfEmpty), mustDigest(t, gitOfEmpty)
	other := gitDigest([]byte("x"))
	for why, change := range map[string]func(o *Outline){
		"no repository":               func(o *Outline) { o.Repo = Repo{} },
		"a bad repository":            func(o *Outline) { o.Repo.Name = "../x" },
		"a repository in disguise":    func(o *Outline) { o.Repo.Name = "datasets/x" },
		"no commit":                   func(o *Outline) { o.Commit = "" },
		"a branch for a commit":       func(o *Outline) { o.Commit = "main" },
		"a commit in capitals":        func(o *Outline) { o.Commit = Commit(strings.ToUpper(gitOfEmpty)) },
		"files out of order":          func(o *Outline) { slices.Reverse(o.Files) },
		"an unsafe path":              func(o *Outline) { o.Files[0].Path = "../a" },
		"one path twice":              func(o *Outline) { o.Files[1].Path = o.Files[0].Path },
		"a negative size":             func(o *Outline) { o.Files[0].Blob.Size = -1 },
		"a size over the limit":       func(o *Outline) { o.Files[0].Blob.Size = MaxBlobSize + 1 },
		"no digest":                   func(o *Outline) { o.Files[0].Blob.Digest = Digest{} },
		"no git id":                   func(o *Outline) { o.Files[0].OID = Digest{} },
		"a sha256 for a git id":       func(o *Outline) { o.Files[1].OID = lfs },
		"a git file with another id":  func(o *Outline) { o.Files[0].OID = other },
		"one digest with two sizes":   func(o *Outline) { o.Files[1].Blob = o.Files[0].Blob; o.Files[1].Blob.Size++; o.Files[1].OID = git },
		"a folder and a file in one":  func(o *Outline) { o.Files[1].Path = o.Files[0].Path + "/x" },
		"two that differ in capitals": func(o *Outline) { o.Files[0].Path, o.Files[1].Path = "A", "a" },
	} {
		o := &Outline{Repo: Repo{Name: "org/name"}, Commit: Commit(gitOfEmpty), Files: []File{
			{Path: "a", Blob: Blob{Digest: git}, OID: git},
			{Path: "b", Blob: Blob{Digest: lfs, Size: 1}, OID: other},
		}}
		if err := o.Validate(); err != nil {
			t.Fatal(err)
		}
		change(o)
		err := o.Validate()
		if !errors.Is(err, ErrBadOutline) && !errors.Is(err, ErrBadPath) {
			t.Errorf("%s: %v", why, err)
		}
		if b, err := o.Marshal(); err == nil || b != nil {
			t.Errorf("%s: encoded", why)
		}
	}
}

func TestOutlineLimits(t *testing.T) {
	o := &Outline{Repo: Repo{Name: "org/name"}, Commit: Commit(gitOfEmpty), Files: make([]File, MaxFiles+1)}
	git := mustDigest(t, gitOfEmpty)
	for i := range o.Files {
		o.Files[i] = File{Path: fmt.Sprintf("%06d", i), Blob: Blob{Digest: git}, OID: git}
	}
	if err := o.Validate(); !errors.Is(err, ErrBadOutline) {
		t.Errorf("%d files: %v", len(o.Files), err)
	}
	o.Files = o.Files[:MaxFiles]
	b, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseOutline(b); err != nil || len(back.Files) != MaxFiles {
		t.Errorf("%d files: %v", MaxFiles, err)
	}
	deep := strings.Repeat(strings.Repeat("x", 250)+"/", 2)
	for i := range o.Files {
		o.Files[i].Path = deep + o.Files[i].Path
	}
	if b, err := o.Marshal(); err == nil {
		t.Errorf("encoded to %d bytes, more than %d", len(b), MaxOutlineBytes)
	}
}

func TestBlobsAreDistinctAndInOrder(t *testing.T) {
	a, b, c := blobNumber(1, 10), blobNumber(2, 20), blobNumber(3, 0)
	o := Outline{Files: []File{{Blob: b}, {Blob: a}, {Blob: b}, {Blob: c}, {Blob: a}}}
	if got := Blobs(o.Files); !slices.Equal(got, []Blob{b, a, c}) {
		t.Errorf("blobs %v", got)
	}
	if o.Size() != 30 {
		t.Errorf("size %d, want 30", o.Size())
	}
	if Blobs(nil) != nil {
		t.Error("blobs of nothing")
	}
}
