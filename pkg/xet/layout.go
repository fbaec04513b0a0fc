package xet

import (
	"context"

	"p2pagent/internal/layout"
	"p2pagent/pkg/pieces"
)

// NewFile names a file of an outline; it must have a Xet name.
func NewFile(repo pieces.Repo, commit pieces.Commit, f pieces.File) (File, error) {
	name, err := ParseHash(f.Xet.String())
	return File{Repo: repo, Commit: commit, Name: name, Size: f.Blob.Size}, err
}

// Layout asks the store what a file is made of. It costs one question.
func (c *Client) Layout(ctx context.Context, f File) (layout.Layout, error) {
	p, err := c.reconstruct(ctx, f, 0, f.Size, false)
	if err != nil {
		return layout.Layout{}, err
	}
	l := layout.Layout{Size: f.Size}
	for _, t := range p.terms {
		l.Terms = append(l.Terms, layout.Term{Xorb: layout.Xorb(t.xorb), First: t.first, End: t.end, Size: t.size})
	}
	return l, l.Validate()
}

// Cuts are the rules by which writers cut files into chunks, the present one first.
func Cuts() []layout.Cut { return []layout.Cut{Current.Cut, Legacy.Cut} }
