package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"p2pagent/pkg/pieces"
)

// row is one entry of a tree listing.
type row struct {
	Type string `json:"type"`
	OID  string `json:"oid"`
	Size *int64 `json:"size"`
	Path string `json:"path"`
	Xet  string `json:"xetHash"`
	LFS  *struct {
		OID  string `json:"oid"`
		Size *int64 `json:"size"`
	} `json:"lfs"`
}

// RowError names the row of a listing that can't be believed. It wraps
// pieces.ErrBadOutline, and pieces.ErrBadPath when the path is unsafe.
type RowError struct {
	Op     string
	Row    int // counted from 1 over all pages
	Path   string
	Reason string

	path error // of pieces.CheckPath
}

// Error implements error.
func (e *RowError) Error() string {
	return fmt.Sprintf("%s: row %d (%.200q): %s", e.Op, e.Row, e.Path, e.Reason)
}

// Unwrap returns the sentinels.
func (e *RowError) Unwrap() []error { return []error{pieces.ErrBadOutline, e.path} }

// Permanent reports true: the listing of a commit does not change.
func (e *RowError) Permanent() bool { return true }

// outlineError is an outline that pieces refuses as a whole.
type outlineError struct {
	op  string
	err error
}

func (e *outlineError) Error() string   { return e.op + ": " + e.err.Error() }
func (e *outlineError) Unwrap() error   { return e.err }
func (e *outlineError) Permanent() bool { return true }

// maxPages bounds a listing by more than its files: a page may have none. The Hub puts
// 1,000 rows on a page, others may put fewer.
const maxPages = 4096

// List asks for all files of a commit, page by page. The outline is sorted and
// validated; a page that is missing, odd or contradictory is an error, never a
// shorter list.
func (c *Client) List(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (*pieces.Outline, error) {
	l := &listing{op: fmt.Sprintf("list %s at %s", repo, commit), seen: make(map[string]int),
		outline: &pieces.Outline{Repo: repo, Commit: commit}}
	next := c.at(treeURL(repo, commit), "recursive=true&expand=false")
	for pages := make(map[string]bool); next != nil; {
		switch {
		case pages[next.String()]:
			return nil, l.refuse(next, "the next page is one that was already read")
		case len(pages) >= maxPages:
			return nil, l.refuse(next, fmt.Sprintf("more than %d pages", maxPages))
		}
		pages[next.String()] = true
		var err error
		if next, err = c.page(ctx, l, next); err != nil {
			return nil, err
		}
	}
	l.outline.Sort()
	if err := l.outline.Validate(); err != nil {
		return nil, &outlineError{op: l.op, err: err}
	}
	return l.outline, nil
}

// page reads one page and returns where the next one is, or nil.
func (c *Client) page(ctx context.Context, l *listing, at *url.URL) (*url.URL, error) {
	r := request{op: l.op, bucket: BucketAPI, method: http.MethodGet, header: identity(), url: at, missing: ErrRevisionNotFound}
	var rows []json.RawMessage
	header, err := c.getJSON(ctx, r, &rows)
	if err != nil {
		return nil, err
	}
	if err := l.add(rows); err != nil {
		return nil, err
	}
	link, err := nextLink(header.Values("Link"))
	if err != nil {
		return nil, l.refuse(at, err.Error())
	}
	if link == "" {
		return nil, nil
	}
	return c.nextPage(l, at, link)
}

// nextPage accepts a link only to the endpoint itself: the token goes along.
func (c *Client) nextPage(l *listing, at *url.URL, link string) (*url.URL, error) {
	ref, err := url.Parse(link)
	if err != nil {
		return nil, l.refuse(at, "the link to the next page is no URL")
	}
	next := at.ResolveReference(ref)
	if !sameOrigin(next, c.endpoint) || next.User != nil {
		return nil, &RedirectError{Op: l.op, Target: origin(next), Reason: "the next page of a listing must be at " + origin(c.endpoint)}
	}
	return next, nil
}

// listing gathers the pages of one commit.
type listing struct {
	op      string
	rows    int
	seen    map[string]int // path -> row
	outline *pieces.Outline
}

func (l *listing) refuse(at *url.URL, reason string) error {
	return &ProtocolError{Op: l.op, Host: at.Host, Reason: reason}
}

func (l *listing) add(rows []json.RawMessage) error {
	for _, raw := range rows {
		l.rows++
		var r row
		if err := json.Unmarshal(raw, &r); err != nil {
			return l.odd(r, "not the JSON expected")
		}
		if r.Type == "directory" {
			continue
		}
		f, reason := r.file()
		if reason == "" {
			reason = l.clash(f.Path)
		}
		if reason != "" {
			return l.odd(r, reason)
		}
		l.seen[f.Path] = l.rows
		l.outline.Files = append(l.outline.Files, f)
	}
	return nil
}

func (l *listing) odd(r row, reason string) error {
	return &RowError{Op: l.op, Row: l.rows, Path: r.Path, Reason: reason, path: pieces.CheckPath(r.Path)}
}

func (l *listing) clash(path string) string {
	if first, ok := l.seen[path]; ok {
		return fmt.Sprintf("same path as row %d", first)
	}
	if len(l.seen) >= pieces.MaxFiles {
		return fmt.Sprintf("more than %d files", pieces.MaxFiles)
	}
	return ""
}

// file turns a row into a file, or says what is wrong with it.
func (r row) file() (f pieces.File, reason string) {
	if r.Type != "file" {
		return f, fmt.Sprintf("type %.40q, want file or directory", r.Type)
	}
	if err := pieces.CheckPath(r.Path); err != nil {
		return f, err.Error()
	}
	if r.Size == nil || *r.Size < 0 || *r.Size > pieces.MaxBlobSize {
		return f, fmt.Sprintf("size %s is not possible", number(r.Size))
	}
	oid, err := pieces.ParseDigest(r.OID)
	if err != nil || !oid.Git() {
		return f, fmt.Sprintf("oid %.80q is no git id", r.OID)
	}
	f = pieces.File{Path: r.Path, OID: oid, Blob: pieces.Blob{Digest: oid, Size: *r.Size}}
	if r.LFS == nil {
		return f, ""
	}
	if f.Blob.Digest, err = pieces.ParseDigest(r.LFS.OID); err != nil || f.Blob.Digest.Git() {
		return f, fmt.Sprintf("lfs oid %.80q is no SHA-256", r.LFS.OID)
	}
	if r.LFS.Size != nil && *r.LFS.Size != *r.Size {
		return f, fmt.Sprintf("size %d and lfs size %d disagree", *r.Size, *r.LFS.Size)
	}
	f.Xet = xetName(r.Xet)
	return f, ""
}

// xetName reads the name of a file in the content-addressed store. Whatever is
// none, such as "redacted", means that the file comes by plain HTTP.
func xetName(s string) pieces.Digest {
	if d, err := pieces.ParseDigest(s); err == nil && !d.Git() {
		return d
	}
	return pieces.Digest{}
}

func number(n *int64) string {
	if n == nil {
		return "missing"
	}
	return fmt.Sprint(*n)
}
