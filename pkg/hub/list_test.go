package hub_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"p2pagent/internal/leaktest"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
)

// deep is a repository with three levels of folders.
func deep() hubtest.RepoSpec {
	spec := model()
	for _, path := range []string{"a/b/c/x", "a/b/y", "a/z", "b"} {
		spec.Files = append(spec.Files, hubtest.File{Path: path, Content: hubtest.Bytes([]byte(path))})
	}
	return spec
}

// R12: a listing of several pages and three levels of folders.
//
// All files are found, whatever the size of a page.
func TestR12Pages(t *testing.T) {
	leaktest.Check(t)
	for _, size := range []int{1, 2, 3, 1000} {
		s := hubtest.New(hubtest.Options{PageSize: size})
		commit := s.AddRepo(deep())
		c := newClient(t, hub.Options{Endpoint: s.Start(t)})
		got, err := c.List(t.Context(), ref("org/model").Repo, commit)
		if err != nil {
			t.Fatal(err)
		}
		if want := s.Outline("org/model", commit); !reflect.DeepEqual(got, want) {
			t.Errorf("pages of %d: got %v\nwant %v", size, got, want)
		}
	}
}

// R12: the chain of pages breaks, or leads elsewhere.
//
// That is an error, never a shorter list; a page at another host is not asked
// for.
func TestR12BrokenChains(t *testing.T) {
	leaktest.Check(t)
	for _, tc := range []struct {
		name  string
		fault hubtest.Fault
		says  string
	}{
		{"no second page", hubtest.Fault{Do: hubtest.Status, Nth: 2, Status: 404}, "revision not found"},
		{"second page always fails", hubtest.Fault{Do: hubtest.Status, Nth: 2, Count: 99, Status: 500}, "answered 500"},
		{"second page is cut", hubtest.Fault{Do: hubtest.Cut, Nth: 2, Count: 99, At: 50}, "broke at byte 50: unexpected EOF"},
		{"second page is short", hubtest.Fault{Do: hubtest.Truncate, Nth: 2, Count: 99}, "not the JSON expected"},
		{"second page is a web page", hubtest.Fault{Do: hubtest.Login, Nth: 2, Count: 99}, "text/html"},
		{"another host", next(2, "http://127.0.0.2:1/api/models/org/model/tree/x"), "redirect to http://127.0.0.2:1 refused: the next page"},
		{"another port", next(2, "http://127.0.0.1:1/api"), "redirect to http://127.0.0.1:1 refused"},
		{"another scheme", next(2, "file:///etc/passwd"), "redirect to file:// refused"},
		{"credentials", next(2, "http://user:pass@127.0.0.1/api"), "refused"},
		{"no URL", next(2, "http://[::1/"), "is no URL"},
		{"no link", hubtest.Fault{Do: hubtest.Headers, Nth: 2, Header: map[string]string{"Link": "nonsense"}}, "header Link"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hubtest.New(hubtest.Options{PageSize: 4})
			commit := s.AddRepo(deep())
			tc.fault.Route = hubtest.Tree
			s.Fail(tc.fault)
			c := newClient(t, hub.Options{Endpoint: s.Start(t), Retries: -1})
			o, err := c.List(t.Context(), ref("org/model").Repo, commit)
			if err == nil || o != nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, %v, want %q", o, err, tc.says)
			}
		})
	}
}

func next(nth int, url string) hubtest.Fault {
	return hubtest.Fault{Do: hubtest.Headers, Nth: nth, Header: map[string]string{"Link": "<" + url + `>; rel="next"`}}
}

// R12: the next page is one that was read already.
//
// Refused instead of read for ever.
func TestR12ChainThatTurnsInACircle(t *testing.T) {
	leaktest.Check(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `</api/models/org/model/tree/x?cursor=2>; rel="next"`)
		fmt.Fprint(w, `[]`)
	}))
	defer srv.Close()
	c := newClient(t, hub.Options{Endpoint: srv.URL})
	_, err := c.List(t.Context(), ref("org/model").Repo, pieces.Commit(strings.Repeat("0", 40)))
	if err == nil || !strings.Contains(err.Error(), "already read") {
		t.Errorf("got %v", err)
	}
}

// R12: each page names one more, and none has a file.
//
// Refused instead of read for ever.
func TestR12ChainWithoutEnd(t *testing.T) {
	leaktest.Check(t)
	var pages atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := pages.Add(1)
		if n > 1<<14 {
			http.Error(w, "enough", http.StatusTeapot)
		}
		w.Header().Set("Link", fmt.Sprintf(`</api/models/org/model/tree/x?cursor=%d>; rel="next"`, n))
		fmt.Fprint(w, `[{"type":"directory","path":"a"}]`)
	}))
	defer srv.Close()
	c := newClient(t, hub.Options{Endpoint: srv.URL})
	_, err := c.List(t.Context(), ref("org/model").Repo, pieces.Commit(strings.Repeat("0", 40)))
	if err == nil || !strings.Contains(err.Error(), "more than 4096 pages") {
		t.Errorf("after %d pages: %v", pages.Load(), err)
	}
}

// R13: the second page fails once.
//
// It is asked for again, and the list is complete.
func TestR13SecondPageFails(t *testing.T) {
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		s := hubtest.New(hubtest.Options{PageSize: 2})
		commit := s.AddRepo(deep())
		s.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Tree, Nth: 2, Status: 500})
		c := newClient(t, hub.Options{Endpoint: hubtest.MemoryHub, Transport: s.Memory(t).Transport(t)})
		got, err := c.List(t.Context(), ref("org/model").Repo, commit)
		if err != nil || !reflect.DeepEqual(got, s.Outline("org/model", commit)) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestOddRows: a listing with a row that can't be is refused as a whole, and the
// error names the row.
func TestOddRows(t *testing.T) {
	oid, sha := strings.Repeat("0", 40), strings.Repeat("1", 64)
	row := func(changes map[string]any) map[string]any {
		r := map[string]any{"type": "file", "oid": oid, "size": 3, "path": "odd"}
		for k, v := range changes {
			r[k] = v
			if v == nil {
				delete(r, k)
			}
		}
		return r
	}
	for _, tc := range []struct {
		name    string
		changes map[string]any
		says    string // "" is accepted
		is      error
	}{
		{"ordinary", nil, "", nil},
		{"directory", map[string]any{"type": "directory", "path": "", "oid": "", "size": -1}, "", nil},
		{"lfs", map[string]any{"lfs": map[string]any{"oid": sha, "size": 3, "pointerSize": 1}}, "", nil},
		{"xet", map[string]any{"lfs": map[string]any{"oid": sha, "size": 3}, "xetHash": sha}, "", nil},
		{"lfs null", map[string]any{"lfs": nil}, "", nil},
		{"empty path", map[string]any{"path": ""}, `row 2 (""): path ""`, pieces.ErrBadPath},
		{"no path", map[string]any{"path": nil}, `row 2 (""): path ""`, pieces.ErrBadPath},
		{"parent path", map[string]any{"path": "../x"}, `row 2 ("../x"): path "../x": segment ..`, pieces.ErrBadPath},
		{"absolute path", map[string]any{"path": "/etc/passwd"}, `row 2 ("/etc/passwd")`, pieces.ErrBadPath},
		{"duplicate path", map[string]any{"path": "first"}, `row 2 ("first"): same path as row 1`, nil},
		{"case clash", map[string]any{"path": "FIRST"}, `"first"`, pieces.ErrBadPath},
		{"below a file", map[string]any{"path": "first/x"}, `"first/x"`, pieces.ErrBadPath},
		{"negative size", map[string]any{"size": -1}, `row 2 ("odd"): size -1`, nil},
		{"no size", map[string]any{"size": nil}, `row 2 ("odd"): size missing`, nil},
		{"huge size", map[string]any{"size": int64(1) << 60}, `row 2 ("odd"): size`, nil},
		{"size as text", map[string]any{"size": "3"}, `row 2 ("odd"): not the JSON expected`, nil},
		{"fraction", map[string]any{"size": 3.5}, `row 2 ("odd"): not the JSON expected`, nil},
		{"bad oid", map[string]any{"oid": "xyz"}, `oid "xyz" is no git id`, nil},
		{"sha256 as oid", map[string]any{"oid": sha}, `is no git id`, nil},
		{"bad lfs oid", map[string]any{"lfs": map[string]any{"oid": oid, "size": 3}}, `is no SHA-256`, nil},
		{"sizes disagree", map[string]any{"lfs": map[string]any{"oid": sha, "size": 4}}, `size 3 and lfs size 4 disagree`, nil},
		{"unknown type", map[string]any{"type": "submodule"}, `type "submodule", want file or directory`, nil},
		{"no type", map[string]any{"type": nil}, `type "", want file or directory`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := hubtest.New(hubtest.Options{})
			commit := s.AddRepo(hubtest.RepoSpec{ID: "org/odd", Rows: []map[string]any{row(tc.changes)},
				Files: []hubtest.File{{Path: "first", Content: hubtest.Bytes([]byte("1"))}}})
			c := newClient(t, hub.Options{Endpoint: s.Start(t)})
			o, err := c.List(t.Context(), ref("org/odd").Repo, commit)
			if tc.says == "" {
				if err != nil || len(o.Files) == 0 {
					t.Errorf("got %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) || !hub.Permanent(err) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
			if n := s.Stats().Calls[hubtest.Tree]; n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestManyFiles(t *testing.T) {
	var files []hubtest.File
	for i := range 2000 {
		files = append(files, hubtest.File{Path: fmt.Sprintf("d%d/f%d", i%7, i), Content: hubtest.Generated(uint64(i), int64(i))})
	}
	s := hubtest.New(hubtest.Options{})
	commit := s.AddRepo(hubtest.RepoSpec{ID: "datasets/org/many", Files: files})
	c := newClient(t, hub.Options{Endpoint: s.Start(t)})
	o, err := c.List(t.Context(), ref("datasets/org/many").Repo, commit)
	if err != nil || len(o.Files) != 2000 || s.Stats().Calls[hubtest.Tree] != 3 {
		t.Errorf("got %v, calls %v", err, s.Stats().Calls)
	}
}

// TestOddAPIAnswers: JSON that is something else is refused.
func TestOddAPIAnswers(t *testing.T) {
	for body, says := range map[string]string{
		`{"id":"org/model","sha":"main"}`: "sha is no commit id",
		`{"id":"org/model"}`:              "sha is no commit id",
		`[]`:                              "not the JSON expected",
		``:                                "not the JSON expected",
		`{"sha":"0000000000000000000000000000000000000000"`: "not the JSON expected",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) }))
		c := newClient(t, hub.Options{Endpoint: srv.URL, Retries: -1})
		if _, _, err := c.Resolve(t.Context(), ref("org/model")); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v", body, err)
		}
		srv.Close()
	}
}

func TestEndlessAPIAnswer(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			w.Write(make([]byte, 1<<20))
		}
	}))
	defer srv.Close()
	c := newClient(t, hub.Options{Endpoint: srv.URL, Retries: -1})
	if _, _, err := c.Resolve(t.Context(), ref("org/model")); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}
