package hubtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) info(w http.ResponseWriter, r *repo, commit string, tree map[string]*File) {
	siblings := []map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		siblings = append(siblings, map[string]string{"rfilename": path})
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"_id": commit[:24], "id": r.id.Name, "modelId": r.id.Name, "sha": commit, "siblings": siblings,
		"private": r.spec.Private, "gated": r.spec.Gated, "disabled": r.spec.Disabled, "tags": []string{}, "downloads": 0, "likes": 0,
		"lastModified": "2026-01-02T03:04:05.000Z", "createdAt": "2026-01-02T03:04:05.000Z",
	})
}

// whoami tells whose token it is. Without Options.Token every token is good.
func (s *Server) whoami(w http.ResponseWriter, req *http.Request) {
	token := req.Header.Get("Authorization")
	if token == "" || s.o.Token != "" && token != "Bearer "+s.o.Token {
		refuse(w, http.StatusUnauthorized, "", "Invalid username or password.")
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"type": "user", "name": "tester"})
}

// tree answers a page of a listing; the cursor is the index of its first row.
func (s *Server) tree(w http.ResponseWriter, req *http.Request, r *repo, c call, tree map[string]*File) {
	query := req.URL.Query()
	rows := s.rows(r, c.path, strings.EqualFold(query.Get("recursive"), "true"), tree)
	if c.path != "" && len(rows) == 0 {
		refuse(w, http.StatusNotFound, "EntryNotFound", c.path+" does not exist")
		return
	}
	from, _ := strconv.Atoi(query.Get("cursor"))
	from = min(max(from, 0), len(rows))
	to := min(from+s.o.PageSize, len(rows))
	if to < len(rows) {
		query.Set("cursor", strconv.Itoa(to))
		w.Header().Set("Link", fmt.Sprintf("<%s://%s%s?%s>; rel=\"next\"", scheme(req), req.Host, req.URL.EscapedPath(), query.Encode()))
	}
	writeJSON(w, http.StatusOK, rows[from:to])
}

func scheme(req *http.Request) string {
	if req.TLS != nil {
		return "https"
	}
	return "http"
}

// rows lists what is below a folder, folders first come before what is in them.
func (s *Server) rows(r *repo, below string, recursive bool, tree map[string]*File) []map[string]any {
	rows, folders := []map[string]any{}, make(map[string]bool)
	for _, path := range slices.Sorted(maps.Keys(tree)) {
		rest := path
		if below != "" {
			var inside bool
			if rest, inside = strings.CutPrefix(path, below+"/"); !inside {
				continue
			}
		}
		shown := true
		for i, ch := range rest {
			if ch != '/' {
				continue
			}
			if folder := path[:len(path)-len(rest)+i]; shown && !folders[folder] {
				folders[folder] = true
				rows = append(rows, map[string]any{"type": "directory", "oid": gitSHA1(memory(folder)), "size": 0, "path": folder})
			}
			shown = shown && recursive
		}
		if shown {
			rows = append(rows, s.row(tree[path]))
		}
	}
	return append(rows, r.spec.Rows...)
}

func (s *Server) row(f *File) map[string]any {
	lfs := s.lfs(f)
	oid, digest := f.ids(lfs)
	row := map[string]any{"type": "file", "oid": oid, "size": f.Content.Size(), "path": f.Path}
	if lfs {
		row["lfs"] = map[string]any{"oid": digest, "size": f.Content.Size(), "pointerSize": pointer(digest, f.Content.Size()).Size()}
	}
	return row
}

// paths answers both encodings in use: a form (Python) and JSON (JavaScript).
func (s *Server) paths(w http.ResponseWriter, req *http.Request, tree map[string]*File) {
	var asked struct {
		Paths []string `json:"paths"`
	}
	if strings.HasPrefix(req.Header.Get("Content-Type"), "application/json") {
		json.NewDecoder(http.MaxBytesReader(w, req.Body, 1<<20)).Decode(&asked)
	} else {
		req.ParseForm()
		asked.Paths = req.Form["paths"]
	}
	rows := []map[string]any{}
	for _, path := range asked.Paths {
		if f := tree[path]; f != nil {
			rows = append(rows, s.row(f))
		}
	}
	writeJSON(w, http.StatusOK, rows)
}

func (s *Server) refs(w http.ResponseWriter, r *repo) {
	type ref struct {
		Name         string `json:"name"`
		Ref          string `json:"ref"`
		TargetCommit string `json:"targetCommit"`
	}
	lists := map[string][]ref{"branches": {}, "tags": {}, "converts": {}, "pullRequests": {}}
	s.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(r.refs)) {
		for prefix, list := range map[string]string{"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"} {
			if short, ok := strings.CutPrefix(name, prefix); ok {
				lists[list] = append(lists[list], ref{short, name, r.refs[name]})
			}
		}
	}
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, lists)
}
