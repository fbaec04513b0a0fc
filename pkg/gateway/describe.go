package gateway

import (
	"bufio"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// unknownTime stands where the Hub tells a time: a commit's outline has none.
const unknownTime = "1970-01-01T00:00:00.000Z"

// noTree stands for the git id of a folder, which an outline does not have.
const noTree = "0000000000000000000000000000000000000000"

type repoInfo struct {
	ID           string    `json:"_id"`
	Name         string    `json:"id"`
	ModelID      string    `json:"modelId"`
	SHA          string    `json:"sha"`
	Private      bool      `json:"private"`
	Gated        bool      `json:"gated"`
	Disabled     bool      `json:"disabled"`
	Tags         []string  `json:"tags"`
	Downloads    int       `json:"downloads"`
	Likes        int       `json:"likes"`
	LastModified string    `json:"lastModified"`
	CreatedAt    string    `json:"createdAt"`
	Siblings     []sibling `json:"siblings"`
}

type sibling struct {
	Path   string `json:"rfilename"`
	Size   *int64 `json:"size,omitempty"`
	BlobID string `json:"blobId,omitempty"`
	LFS    *lfs   `json:"lfs,omitempty"`
}

type lfs struct {
	OID         string `json:"oid,omitempty"`
	SHA256      string `json:"sha256,omitempty"`
	Size        int64  `json:"size"`
	PointerSize int    `json:"pointerSize"`
}

// row is one entry of a listing.
type row struct {
	Type       string      `json:"type"`
	OID        string      `json:"oid"`
	Size       int64       `json:"size"`
	Path       string      `json:"path"`
	LFS        *lfs        `json:"lfs,omitempty"`
	XetHash    string      `json:"xetHash,omitempty"`
	LastCommit *lastCommit `json:"lastCommit,omitempty"`
}

type lastCommit struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	Date  string `json:"date"`
}

func truth(s string) bool { return strings.EqualFold(s, "true") || s == "1" }

// info describes the repository at a commit.
func info(w http.ResponseWriter, r *http.Request, o *pieces.Outline) {
	blobs := truth(r.URL.Query().Get("blobs"))
	out := repoInfo{
		ID: string(o.Commit[:24]), Name: o.Repo.Name, ModelID: o.Repo.Name, SHA: string(o.Commit), Tags: []string{},
		LastModified: unknownTime, CreatedAt: unknownTime, Siblings: make([]sibling, len(o.Files)),
	}
	for i, f := range o.Files {
		out.Siblings[i] = sibling{Path: f.Path}
		if blobs {
			out.Siblings[i] = sibling{f.Path, &f.Blob.Size, f.OID.String(), lfsOf(f, true)}
		}
	}
	writeJSON(w, http.StatusOK, out)
}

// lfsOf returns what is said of a file that is stored apart from git, else nil.
// Information and listings call its digest differently.
func lfsOf(f pieces.File, inInfo bool) *lfs {
	if !f.LFS() {
		return nil
	}
	out := &lfs{Size: f.Blob.Size, PointerSize: len(pointer(f))}
	if inInfo {
		out.SHA256 = f.Blob.Digest.String()
	} else {
		out.OID = f.Blob.Digest.String()
	}
	return out
}

// lister makes rows; expand adds the commit.
type lister struct {
	last *lastCommit
	xet  XetOffer
}

func (g *Gateway) lister(o *pieces.Outline, expand bool) lister {
	l := lister{xet: g.o.Xet}
	if expand {
		l.last = &lastCommit{ID: string(o.Commit), Date: unknownTime}
	}
	return l
}

func (l lister) file(f pieces.File) row {
	r := row{Type: "file", OID: f.OID.String(), Size: f.Blob.Size, Path: f.Path, LFS: lfsOf(f, false), LastCommit: l.last}
	if l.xet.covers(f) {
		r.XetHash = f.Xet.String()
	}
	return r
}

func (l lister) folder(path string) row {
	return row{Type: "directory", OID: noTree, Path: path, LastCommit: l.last}
}

// rows yields what is below a folder, "" for all: a folder before what is in it.
func (l lister) rows(files []pieces.File, below string, recursive bool, yield func(row)) {
	if below != "" {
		below += "/"
	}
	last := "" // folders come in the order of paths, so one is new when it is not this or above it
	for _, f := range files {
		rest, inside := strings.CutPrefix(f.Path, below)
		if !inside {
			continue
		}
		at := len(below)
		for deep := strings.IndexByte(rest, '/'); deep >= 0; deep = strings.IndexByte(f.Path[at:], '/') {
			folder := f.Path[:at+deep]
			if folder != last && !strings.HasPrefix(last, folder+"/") {
				yield(l.folder(folder))
				last = folder
			}
			if at += deep + 1; !recursive {
				break
			}
		}
		if recursive || at == len(below) {
			yield(l.file(f))
		}
	}
}

// tree lists a folder in one page, whatever its length: some clients don't turn
// pages.
func (g *Gateway) tree(w http.ResponseWriter, r *http.Request, o *pieces.Outline, path string) {
	query := r.URL.Query()
	l, recursive := g.lister(o, truth(query.Get("expand"))), truth(query.Get("recursive"))
	if path != "" && !below(o.Files, path) {
		refuse(w, entryNotFound(o, path))
		return
	}
	writeRows(w, func(yield func(row)) { l.rows(o.Files, path, recursive, yield) })
}

// writeRows answers with a list that may be long: it is never whole in memory.
func writeRows(w http.ResponseWriter, rows func(yield func(row))) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	out := bufio.NewWriter(w)
	defer out.Flush()
	between := "["
	rows(func(next row) {
		raw, err := json.Marshal(next)
		if err != nil {
			panic(err) // strings and numbers always encode
		}
		out.WriteString(between)
		out.Write(raw)
		between = ","
	})
	if between == "[" {
		out.WriteString(between)
	}
	out.WriteString("]")
}

const maxPathsBody = 4 << 20

// paths describes the paths that are asked for. Python sends a form, JavaScript
// JSON. One that is not there is left out.
func (g *Gateway) paths(w http.ResponseWriter, r *http.Request, s Snapshot) {
	asked, expand, err := readPaths(w, r)
	if err != nil {
		refuse(w, &Refusal{Code: BadRequest, Message: "paths-info: want a form or JSON with paths: " + err.Error()})
		return
	}
	l := g.lister(s.Outline(), expand)
	writeRows(w, func(yield func(row)) {
		for _, path := range asked {
			if f, ok := s.File(path); ok {
				yield(l.file(f))
			} else if below(s.Outline().Files, path) {
				yield(l.folder(path))
			}
		}
	})
}

// below tells whether there is a folder of that name: files are sorted by path.
func below(files []pieces.File, folder string) bool {
	at, _ := slices.BinarySearchFunc(files, folder+"/", func(f pieces.File, p string) int { return strings.Compare(f.Path, p) })
	return at < len(files) && strings.HasPrefix(files[at].Path, folder+"/")
}

func readPaths(w http.ResponseWriter, r *http.Request) (paths []string, expand bool, err error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxPathsBody)
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(readWait)) // anew: looking up may have taken as long; best effort
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		err := r.ParseForm()
		return r.PostForm["paths"], truth(r.PostForm.Get("expand")), err
	}
	var body struct {
		Paths  []string `json:"paths"`
		Expand bool     `json:"expand"`
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, false, err
	}
	err = json.Unmarshal(raw, &body)
	return body.Paths, body.Expand, err
}

type refRow struct {
	Name   string        `json:"name"`
	Ref    string        `json:"ref"`
	Commit pieces.Commit `json:"targetCommit"`
}

// refLists puts refs into the Hub's lists. All must be there, also when empty.
func refLists(refs map[string]pieces.Commit) map[string][]refRow {
	out := map[string][]refRow{"branches": {}, "tags": {}, "converts": {}, "pullRequests": {}}
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		for prefix, list := range map[string]string{"refs/heads/": "branches", "refs/tags/": "tags", "refs/convert/": "converts", "refs/pr/": "pullRequests"} {
			if short, ok := strings.CutPrefix(name, prefix); ok {
				out[list] = append(out[list], refRow{short, name, refs[name]})
			}
		}
	}
	return out
}
