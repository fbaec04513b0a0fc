package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/gateway"
	"p2pagent/pkg/pieces"
)

// model is a snapshot with a small file, a large one, an empty one and odd names.
func (d *desk) model() *snapshot {
	d.refs = map[string]pieces.Commit{"refs/heads/main": mainCommit, "refs/tags/v1.0": mainCommit, "refs/pr/1": prCommit, "refs/convert/parquet": prCommit}
	d.add("org/model", prCommit, map[string]string{"config.json": "{}"}, "refs/pr/1")
	return d.add("org/model", mainCommit, map[string]string{
		"config.json": `{"a":1}`, "model.safetensors": noise(1, 300_000), "empty.txt": "",
		"sub dir/tok+x #1.json": "odd", "sub dir/deep/100%.txt": "per cent", "Ünïcode.txt": "ü", "zz/last": "z",
	}, "main", "v1.0")
}

func list(t *testing.T, resp *http.Response) (out []map[string]any) {
	t.Helper()
	raw := read(t, resp)
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return out
}

func pathsOf(rows []map[string]any) (out []string) {
	for _, r := range rows {
		out = append(out, fmt.Sprint(r["type"], " ", r["path"]))
	}
	return out
}

// G03: a HEAD although no byte of the file is here yet.
//
// It is answered from the listing alone, with the right size and ETag, and starts
// nothing.
func TestG03HeadBeforeAnyByte(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		d.lands("model.safetensors", noise(1, 300_000))
		before := time.Now()
		resp := d.ask("HEAD", "/org/model/resolve/main/model.safetensors")
		f, _ := m.File("model.safetensors")
		if took := time.Since(before); took > 0 {
			t.Errorf("it took %v", took)
		}
		if resp.StatusCode != 200 || resp.ContentLength != 300_000 || resp.Header.Get("ETag") != strconv.Quote(f.Blob.Digest.String()) {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		if len(d.started) > 0 {
			t.Errorf("started %q", d.started)
		}
		// What the cache has as another file gets its name in this commit.
		d.ask("HEAD", "/org/model/resolve/main/config.json")
		if !slices.Equal(d.started, []string{"config.json"}) {
			t.Errorf("started %q", d.started)
		}
	})
}

// G04: a body that has to wait for pieces.
//
// Before the first byte the answer is 429 with Retry-After within 8 s; after it
// some verified bytes flow at least every 5 s, however long the next piece takes,
// and all are right.
func TestG04BodyIsNeverSilent(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		data := noise(1, 300_000)
		d.model()
		l := d.lands("model.safetensors", data)
		began, last := time.Now(), time.Duration(0)
		go func() { time.Sleep(30 * time.Second); l.land(100_000, nil) }()
		var resp *http.Response
		for {
			asked := time.Now()
			resp = d.ask("GET", "/org/model/resolve/main/model.safetensors")
			if took := time.Since(asked); took > 8*time.Second {
				t.Errorf("headers after %v", took)
			}
			if resp.StatusCode != http.StatusTooManyRequests {
				break
			}
			seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			wait := time.Duration(seconds+1) * time.Second // as huggingface_hub does
			if err != nil || seconds < 1 || wait < last {
				t.Fatalf("Retry-After %q after %v", resp.Header.Get("Retry-After"), last)
			}
			last = wait
			read(t, resp)
			time.Sleep(wait)
		}
		if resp.StatusCode != 200 || time.Since(began) > time.Minute {
			t.Fatalf("%s after %v", resp.Status, time.Since(began))
		}
		go func() {
			for at := int64(150_000); at <= 300_000; at += 50_000 {
				time.Sleep(12 * time.Second)
				l.land(at, nil)
			}
		}()
		var got strings.Builder
		buf, longest := make([]byte, 1<<20), time.Duration(0)
		for err := error(nil); err != io.EOF; {
			var n int
			asked := time.Now()
			n, err = resp.Body.Read(buf)
			longest = max(longest, time.Since(asked))
			got.Write(buf[:n])
			if err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		if got.String() != data {
			t.Errorf("%d bytes, or other ones", got.Len())
		}
		if longest > 5*time.Second {
			t.Errorf("silent for %v", longest)
		}
	})
}

// G04: a range that is here, though the piece behind it is not.
//
// It is sent at once; nothing of it is held back.
func TestG04RangeThatIsHere(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		data := noise(1, 300_000)
		d.model()
		d.lands("model.safetensors", data).land(100_000, nil)
		began := time.Now()
		resp := d.ask("GET", "/org/model/resolve/main/model.safetensors", "Range: bytes=10-99999")
		if got := read(t, resp); resp.StatusCode != 206 || got != data[10:100_000] || time.Since(began) > 0 {
			t.Errorf("%s, %d bytes after %v", resp.Status, len(got), time.Since(began))
		}
	})
}

// G05: ETag form.
//
// Strong and quoted, the Hub's own sha1 or sha256; If-None-Match answers 304, also
// when the file is not here.
func TestG05ETagForm(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		d.lands("model.safetensors", noise(1, 300_000))
		d.lands("config.json", `{"a":1}`)
		for path, digits := range map[string]int{"config.json": 40, "model.safetensors": 64} {
			f, _ := m.File(path)
			etag := d.ask("HEAD", "/org/model/resolve/main/"+path).Header.Get("ETag")
			if etag != `"`+f.Blob.Digest.String()+`"` || len(etag) != digits+2 {
				t.Errorf("%s: ETag %s", path, etag)
			}
			for _, method := range []string{"GET", "HEAD"} {
				if resp := d.ask(method, "/org/model/resolve/main/"+path, "If-None-Match: "+etag); resp.StatusCode != http.StatusNotModified {
					t.Errorf("%s %s: %s", method, path, resp.Status)
				}
			}
		}
		if len(d.started) > 0 {
			t.Errorf("started %q", d.started)
		}
	})
}

// G06: headers that must exist.
//
// X-Repo-Commit on every answer about a commit, 404 included; ETag, Content-Length
// and Accept-Ranges on files; never a content coding.
func TestG06Headers(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for _, method := range []string{"GET", "HEAD"} {
			for path, status := range map[string]int{"config.json": 200, "model.safetensors": 200, "empty.txt": 200, "nothing.txt": 404} {
				resp := d.ask(method, "/org/model/resolve/main/"+path, "Accept-Encoding: gzip, deflate")
				h := resp.Header
				if resp.StatusCode != status || h.Get("X-Repo-Commit") != string(mainCommit) || h.Get("Content-Encoding") != "" {
					t.Errorf("%s %s: %s %v", method, path, resp.Status, h)
				}
				if status == 200 && (h.Get("ETag") == "" || h.Get("Content-Length") == "" || h.Get("Accept-Ranges") != "bytes") {
					t.Errorf("%s %s: %v", method, path, h)
				}
			}
		}
		for _, path := range []string{"/api/models/org/model", "/api/models/org/model/tree/main", "/api/models/org/model/tree/main/none"} {
			if got := d.ask("GET", path).Header.Get("X-Repo-Commit"); got != string(mainCommit) {
				t.Errorf("%s: X-Repo-Commit %q", path, got)
			}
		}
	})
}

// G07: a 404 is never bare.
//
// A missing file, folder, revision and repository each have the code by which
// clients tell them apart, and a JSON body that says so.
func TestG07ErrorCodes(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for path, want := range map[string]string{
			"/org/model/resolve/main/nothing.txt":       "404 EntryNotFound",
			"/org/model/resolve/main/sub%20dir":         "404 EntryNotFound",
			"/org/model/resolve/main/..%2Fetc":          "404 EntryNotFound",
			"/org/model/raw/main/nothing.txt":           "404 EntryNotFound",
			"/api/models/org/model/tree/main/none":      "404 EntryNotFound",
			"/org/model/resolve/v9/config.json":         "404 RevisionNotFound",
			"/org/model/resolve/-x/config.json":         "404 RevisionNotFound",
			"/org/model/resolve/a%2F..%2Fb/config.json": "404 RevisionNotFound",
			"/api/models/org/model/revision/v9":         "404 RevisionNotFound",
			"/org/none/resolve/main/config.json":        "401 RepoNotFound",
			"/api/models/none":                          "401 RepoNotFound",
			"/api/datasets/org/model":                   "401 RepoNotFound",
			"/elsewhere":                                "404 RouteNotFound",
		} {
			resp := d.ask("GET", path)
			got := fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("X-Error-Code"))
			var body struct{ Error string }
			if err := json.Unmarshal([]byte(read(t, resp)), &body); got != want || err != nil || body.Error == "" {
				t.Errorf("%s: %s, body %+v %v", path, got, body, err)
			}
		}
	})
}

// G08: the forms of a revision.
//
// A branch, HEAD, a tag, a pull request escaped and raw, and a commit: the same
// commit each time, in the information, the listing and the header of a file.
func TestG08RevisionForms(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for revision, want := range map[string]pieces.Commit{
			"main": mainCommit, "HEAD": mainCommit, "v1.0": mainCommit, string(mainCommit): mainCommit,
			"refs%2Fpr%2F1": prCommit, "refs/pr/1": prCommit,
		} {
			var info struct{ SHA pieces.Commit }
			json.Unmarshal([]byte(read(t, d.ask("GET", "/api/models/org/model/revision/"+revision))), &info)
			tree := d.ask("GET", "/api/models/org/model/tree/"+revision).Header.Get("X-Repo-Commit")
			file := d.ask("HEAD", "/org/model/resolve/"+revision+"/config.json").Header.Get("X-Repo-Commit")
			if info.SHA != want || tree != string(want) || file != string(want) {
				t.Errorf("%s: %s %s %s, want %s", revision, info.SHA, tree, file, want)
			}
		}
	})
}

// G10: special characters in file names.
//
// The escaped request reaches the right file; a plus stays a plus, per cent and
// letters of all scripts too.
func TestG10SpecialCharacters(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		for path, url := range map[string]string{
			"sub dir/tok+x #1.json": "sub%20dir/tok%2Bx%20%231.json", "sub dir/deep/100%.txt": "sub%20dir/deep/100%25.txt", "Ünïcode.txt": "%C3%9Cn%C3%AFcode.txt",
		} {
			if got := read(t, d.ask("GET", "/org/model/resolve/main/"+url)); got != string(m.files[path]) {
				t.Errorf("%s: %q", path, got)
			}
		}
		if got := read(t, d.ask("GET", "/org/model/resolve/main/sub%20dir/tok+x%20%231.json")); got != "odd" {
			t.Errorf("a bare plus: %q", got)
		}
	})
}

// G11: paths-info in both encodings.
//
// Python's form and JavaScript's JSON get the same rows; an unknown path is left
// out, a folder is one row, and expand adds the commit.
func TestG11PathsInfo(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		asked := []string{"config.json", "nothing", "model.safetensors", "sub dir"}
		for _, expand := range []string{"True", "true", "False", "false"} {
			form := d.send("POST", "/api/models/org/model/paths-info/main", strings.NewReader(url.Values{"paths": asked, "expand": {expand}}.Encode()),
				"Content-Type: application/x-www-form-urlencoded")
			raw, _ := json.Marshal(map[string]any{"paths": asked, "expand": strings.EqualFold(expand, "true")})
			object := d.send("POST", "/api/models/org/model/paths-info/main", strings.NewReader(string(raw)), "Content-Type: application/json")
			rows := list(t, form)
			if a, b := fmt.Sprint(rows), fmt.Sprint(list(t, object)); a != b {
				t.Errorf("form %s, JSON %s", a, b)
			}
			if got := pathsOf(rows); !slices.Equal(got, []string{"file config.json", "file model.safetensors", "directory sub dir"}) {
				t.Errorf("rows %q", got)
			}
			last, _ := rows[0]["lastCommit"].(map[string]any)
			if has := last["id"] == string(mainCommit); has != strings.EqualFold(expand, "true") {
				t.Errorf("expand=%s: lastCommit %v", expand, last)
			}
		}
		resp := d.send("POST", "/api/models/org/model/paths-info/main", strings.NewReader("{"), "Content-Type: application/json")
		if resp.StatusCode != 400 {
			t.Errorf("bad JSON: %s", resp.Status)
		}
	})
}

// G12: a listing longer than a page.
//
// It comes in one page, without a Link, folders before what is in them, the level
// asked for alone or all levels.
func TestG12Tree(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for query, want := range map[string][]string{
			"tree/main": {"file config.json", "file empty.txt", "file model.safetensors", "directory sub dir", "directory zz", "file Ünïcode.txt"},
			"tree/main?recursive=True": {"file config.json", "file empty.txt", "file model.safetensors", "directory sub dir", "directory sub dir/deep",
				"file sub dir/deep/100%.txt", "file sub dir/tok+x #1.json", "directory zz", "file zz/last", "file Ünïcode.txt"},
			"tree/main/sub%20dir":                     {"directory sub dir/deep", "file sub dir/tok+x #1.json"},
			"tree/main/sub%20dir%2Fdeep":              {"file sub dir/deep/100%.txt"},
			"tree/main/sub%20dir?recursive=true":      {"directory sub dir/deep", "file sub dir/deep/100%.txt", "file sub dir/tok+x #1.json"},
			"tree/main/zz?recursive=false&expand=yes": {"file zz/last"},
		} {
			resp := d.ask("GET", "/api/models/org/model/"+query)
			if got := pathsOf(list(t, resp)); !slices.Equal(got, want) || resp.Header.Get("Link") != "" {
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
		files := map[string]string{}
		for i := range 3000 {
			files[fmt.Sprintf("d%d/f%04d", i%7, i)] = "x"
		}
		d.add("org/many", "3333333333333333333333333333333333333333", files, "main")
		if rows := list(t, d.ask("GET", "/api/models/org/many/tree/main?recursive=true")); len(rows) != 3007 {
			t.Errorf("%d rows", len(rows))
		}
	})
}

// G13: every form of Range.
//
// Exact Content-Range on 206, 416 with the size behind the end, and the whole file
// for several ranges or an If-Range that does not match; the same while the file
// lands.
func TestG13Range(t *testing.T) {
	for _, state := range []string{"whole", "landing"} {
		t.Run(state, func(t *testing.T) {
			atDesk(t, func(t *testing.T, d *desk) {
				data := noise(1, 300_000)
				m := d.model()
				if state == "landing" {
					d.lands("model.safetensors", data).land(300_000, nil)
				}
				f, _ := m.File("model.safetensors")
				for _, c := range []struct {
					ranges, condition string
					status            int
					span              string
					want              string
				}{
					{"bytes=0-0", "", 206, "bytes 0-0/300000", data[:1]},
					{"bytes=100-199", "", 206, "bytes 100-199/300000", data[100:200]},
					{"bytes=299990-", "", 206, "bytes 299990-299999/300000", data[299_990:]},
					{"bytes=-10", "", 206, "bytes 299990-299999/300000", data[299_990:]},
					{"bytes=0-299999", "", 206, "bytes 0-299999/300000", data},
					{"bytes=299999-400000", "", 206, "bytes 299999-299999/300000", data[299_999:]},
					{"bytes=300000-", "", 416, "bytes */300000", ""},
					{"bytes=400000-400001", "", 416, "bytes */300000", ""},
					{"bytes=0-1,5-6", "", 200, "", data},
					{"bytes=5-9", `If-Range: "other"`, 200, "", data},
					{"bytes=5-9", `If-Range: "` + f.Blob.Digest.String() + `"`, 206, "bytes 5-9/300000", data[5:10]},
					{"bytes=x", "", 416, "", ""},
					{"bytes=-0", "", 416, "bytes */300000", ""},
					{"bytes=-300001", "", 206, "bytes 0-299999/300000", data},
				} {
					header := []string{"Range: " + c.ranges}
					if c.condition != "" {
						header = append(header, c.condition)
					}
					resp := d.ask("GET", "/org/model/resolve/main/model.safetensors", header...)
					got := read(t, resp)
					if resp.StatusCode != c.status || resp.Header.Get("Content-Range") != c.span || c.status != 416 && got != c.want {
						t.Errorf("%q: %s %q, %d bytes", header, resp.Status, resp.Header.Get("Content-Range"), len(got))
					}
				}
			})
		})
	}
}

// G14: a Range of an empty file.
//
// 200 with Content-Range: bytes */0, which JavaScript's client wants to see; the
// HEAD of an empty file brings it, for no GET follows.
func TestG14EmptyFile(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for _, method := range []string{"GET", "HEAD"} {
			resp := d.ask(method, "/org/model/resolve/main/empty.txt", "Range: bytes=0-0")
			if resp.StatusCode != 200 || resp.Header.Get("Content-Range") != "bytes */0" || resp.Header.Get("Content-Length") != "0" || read(t, resp) != "" {
				t.Errorf("%s: %s %v", method, resp.Status, resp.Header)
			}
		}
		if resp := d.ask("GET", "/org/model/resolve/main/empty.txt"); resp.Header.Get("Content-Range") != "" {
			t.Errorf("without a Range: %v", resp.Header)
		}
		if !slices.Contains(d.started, "empty.txt") {
			t.Error("it was not brought here")
		}
	})
}

// G16: the calls of llama.cpp -hf, in its order.
//
// The refs have all lists, the tree comes in one page, the HEAD says
// Accept-Ranges, and what is resumed gets a 206.
func TestG16LlamaOrder(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		var refs map[string][]struct{ Name, Ref, TargetCommit string }
		if err := json.Unmarshal([]byte(read(t, d.ask("GET", "/api/models/org/model/refs"))), &refs); err != nil {
			t.Fatal(err)
		}
		for _, list := range []string{"branches", "tags", "converts", "pullRequests"} {
			if len(refs[list]) != 1 || len(refs[list][0].TargetCommit) != 40 {
				t.Errorf("%s: %+v", list, refs[list])
			}
		}
		commit := refs["branches"][0].TargetCommit
		rows := list(t, d.ask("GET", "/api/models/org/model/tree/"+commit+"?recursive=true"))
		if len(rows) != 10 {
			t.Errorf("rows %q", pathsOf(rows))
		}
		if head := d.ask("HEAD", "/org/model/resolve/"+commit+"/model.safetensors"); head.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%v", head.Header)
		}
		resp := d.ask("GET", "/org/model/resolve/"+commit+"/model.safetensors", "Range: bytes=1000-")
		if resp.StatusCode != 206 || read(t, resp) != string(m.files["model.safetensors"])[1000:] {
			t.Errorf("resumed: %s", resp.Status)
		}
	})
}

// G17: side calls.
//
// Telemetry, agent-harnesses, discussions and whatever else is not read: a JSON
// 404 at once, 401 for who am I, and nothing is asked of anybody.
func TestG17SideCalls(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		d.lookWait = time.Hour
		began := time.Now()
		for path, status := range map[string]int{
			"/api/agent-harnesses": 404, "/api/telemetry/hf_hub/snapshot_download": 404, "/api/whoami-v2": 401,
			"/api/models/org/model/discussions": 404, "/api/models/org/model/commits/main": 404, "/api/anything": 404, "/": 404, "/robots.txt": 404,
		} {
			resp := d.ask("GET", path, "Authorization: Bearer hf_x")
			if resp.StatusCode != status || resp.Header.Get("X-Error-Code") == "" || !json.Valid([]byte(read(t, resp))) {
				t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
			}
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
			if resp := d.ask(method, "/api/models/org/model"); resp.StatusCode != 404 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s", method, resp.Status)
			}
		}
		if d.looks != 0 || time.Since(began) > 0 {
			t.Errorf("%d look-ups, %v", d.looks, time.Since(began))
		}
	})
}

// G19: a gated repository.
//
// The Hub is asked with the caller's own token, once in ten minutes and once for
// requests that come together; without a token that it accepts the answer is 403
// GatedRepo, on every route. What the operator listed is served to everybody.
func TestG19GatedRepository(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		m.secret, m.token = true, "hf_good"
		routes := []string{"/org/model/resolve/main/config.json", "/api/models/org/model", "/api/models/org/model/tree/main", "/api/models/org/model/refs", "/api/models/org/model/auth-check", "/api/models/org/model/revision/nowhere"}
		for _, header := range []string{"X: y", "Authorization: Bearer hf_bad", "Authorization: Basic hf_good"} {
			for _, path := range routes {
				if resp := d.ask("GET", path, header); resp.StatusCode != 403 || resp.Header.Get("X-Error-Code") != "GatedRepo" {
					t.Errorf("%s %s: %s", header, path, resp.Status)
				}
			}
		}
		done := make(chan int)
		for range 8 {
			go func() { done <- d.ask("GET", routes[0], "Authorization: Bearer hf_good").StatusCode }()
		}
		for range 8 {
			if status := <-done; status != 200 {
				t.Errorf("with the right token: %d", status)
			}
		}
		want := []string{"", "hf_bad", "hf_good"}
		if slices.Sort(d.checks); !slices.Equal(d.checks, want) {
			t.Errorf("the Hub was asked with %q, want %q", d.checks, want)
		}
		time.Sleep(11 * time.Minute)
		d.ask("GET", routes[0], "Authorization: Bearer hf_good")
		if len(d.checks) != 4 {
			t.Errorf("after ten minutes: %q", d.checks)
		}
	})
	atDesk(t, func(t *testing.T, d *desk) {
		d.model().secret = true
		if resp := d.ask("GET", "/org/model/resolve/main/config.json"); resp.StatusCode != 200 || len(d.checks) > 0 {
			t.Errorf("listed by the operator: %s, asked %q", resp.Status, d.checks)
		}
	}, func(o *gateway.Options) { o.Everyone = []pieces.Repo{{Name: "org/model"}} })
}

// G21: DNS rebinding.
//
// A request by a name that is not this gateway's, or one that a web page of
// another site caused, is refused with 403; addresses and localhost are not.
func TestG21HostHeader(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for header, status := range map[string]int{
			"Host: evil.example": 403, "Host: evil.example:8090": 403, "Host: 127.0.0.1.evil.example": 403, "Host: localhost.evil.example": 403,
			"Sec-Fetch-Site: cross-site": 403, "Sec-Fetch-Site: same-site": 403,
			"Host: 127.0.0.1:8090": 200, "Host: localhost:8090": 200, "Host: LOCALHOST": 200, "Host: [::1]:8090": 200, "Host: [::1]": 200, "Host: node.local:80": 200,
		} {
			if resp := d.ask("GET", "/api/models/org/model", header); resp.StatusCode != status || resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s: %s", header, resp.Status)
			}
		}
	}, func(o *gateway.Options) { o.Host = "node.local" })
}

// G22: a client that goes away in the middle of a body.
//
// Its reader is closed at once and nothing is left behind; what was being fetched
// goes on (pkg/agent shows that).
func TestG22ClientGoesAway(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		d.lands("model.safetensors", noise(1, 300_000)).land(200_000, nil)
		resp := d.ask("GET", "/org/model/resolve/main/model.safetensors")
		if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		synctest.Wait() // the handler has returned, or the bubble would not end
	})
}

// G23: a commit that a snapshot moved away from while it was read is answered by
// its id.
//
// A, B and the header of a file name the same commit, because all come from one
// meaning (pkg/agent keeps it); here: no answer mixes two.
func TestG23OneCommit(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		sha := d.ask("GET", "/api/models/org/model/revision/main").Header.Get("X-Repo-Commit")
		d.commits["org/model@main"] = d.commits["org/model@"+string(prCommit)]
		for _, path := range []string{"/api/models/org/model/tree/" + sha, "/org/model/resolve/" + sha + "/config.json"} {
			if got := d.ask("GET", path).Header.Get("X-Repo-Commit"); got != sha {
				t.Errorf("%s: %s", path, got)
			}
		}
	})
}

// X01: a listing with xetHash.
//
// No field of an answer speaks of Xet. The outline knows where the Hub's store has
// the file, for the agent alone.
func TestX01NoXetHash(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		if s := d.model(); !slices.ContainsFunc(s.outline.Files, func(f pieces.File) bool { return !f.Xet.IsZero() }) {
			t.Fatal("no file has a Xet hash: the test shows nothing")
		}
		for _, path := range []string{"/api/models/org/model/tree/main?recursive=true&expand=true", "/api/models/org/model?blobs=true"} {
			if body := read(t, d.ask("GET", path)); strings.Contains(strings.ToLower(body), "xet") {
				t.Errorf("%s: %s", path, body)
			}
		}
		form := strings.NewReader("paths=model.safetensors&expand=true")
		if body := read(t, d.send("POST", "/api/models/org/model/paths-info/main", form, "Content-Type: application/x-www-form-urlencoded")); strings.Contains(strings.ToLower(body), "xet") {
			t.Error(body)
		}
	})
}

// X02: a HEAD with Xet headers.
//
// No answer has X-Xet-Hash, X-Xet-Refresh-Route or a Link to xet-auth, whatever
// the Hub sends: no header of the Hub's is passed on.
func TestX02NoXetHeaders(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for _, method := range []string{"GET", "HEAD"} {
			for name, values := range d.ask(method, "/org/model/resolve/main/model.safetensors").Header {
				if strings.Contains(strings.ToLower(fmt.Sprint(name, values)), "xet") || name == "Link" || name == "Location" {
					t.Errorf("%s: %s %q", method, name, values)
				}
			}
		}
	})
}

// X03: a client that knows a file's Xet hash from an older cache.
//
// It asks for a read token here and gets a 404 with a code at once;
// HF_HUB_DISABLE_XET=1 keeps it from asking.
func TestX03XetToken(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		resp := d.ask("GET", "/api/models/org/model/xet-read-token/"+string(mainCommit), "Authorization: Bearer hf_x")
		if resp.StatusCode != 404 || resp.Header.Get("X-Error-Code") == "" || d.looks != 0 {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
}

// A file that fails before its first byte is refused; one that fails in the middle
// breaks off, so that a client goes on later; and nobody gets all of a file that
// turned out wrong.
func TestFailingFile(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		l := d.lands("model.safetensors", noise(1, 300_000))
		l.land(0, &gateway.Refusal{Code: gateway.NoSpace, Message: "no space"})
		resp := d.ask("GET", "/org/model/resolve/main/model.safetensors", "Range: bytes=5-")
		if resp.StatusCode != http.StatusInsufficientStorage || resp.Header.Get("Content-Range") != "" || resp.Header.Get("ETag") != "" || !strings.Contains(read(t, resp), "no space") {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		for _, fault := range []error{&gateway.Refusal{Code: gateway.Busy, Message: "stalled"}, gateway.ErrSpoiled} {
			l.land(299_999, nil)
			resp := d.ask("GET", "/org/model/resolve/main/model.safetensors")
			go func() { time.Sleep(time.Second); l.land(0, fault) }()
			got, err := io.ReadAll(resp.Body)
			if err == nil || len(got) == 300_000 {
				t.Errorf("%v: %d bytes, %v", fault, len(got), err)
			}
		}
	})
}

// More files than are sent at once are put off, not queued.
func TestTooManyReaders(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		d.lands("model.safetensors", noise(1, 300_000)).land(200_000, nil)
		for range 256 {
			if resp := d.ask("GET", "/org/model/resolve/main/model.safetensors"); resp.StatusCode != 200 {
				t.Fatal(resp.Status)
			}
		}
		if resp := d.ask("GET", "/org/model/resolve/main/config.json"); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s", resp.Status)
		}
	})
}

// G20: a file over 50 GB.
//
// The HEAD is answered with the size, and has the file brought into the cache:
// Python's client refuses to GET it, and finds it there the next time.
func TestG20HugeFile(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		f := fileOf("huge.bin", []byte(noise(3, 2000)))
		f.Blob.Size = 60_000_000_000
		m.outline.Files = append(m.outline.Files, f)
		d.lands("huge.bin", "")
		resp := d.ask("HEAD", "/org/model/resolve/main/huge.bin")
		if resp.StatusCode != 200 || resp.ContentLength != f.Blob.Size || !slices.Contains(d.started, "huge.bin") {
			t.Errorf("%s, %d bytes, started %q", resp.Status, resp.ContentLength, d.started)
		}
	})
}

// A body that is announced and does not come, of a request that has none, holds no
// connection: there is only so much room for them.
func TestABodyThatDoesNotCome(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for _, line := range []string{"GET /org/model/resolve/main/config.json", "POST /org/model", "GET /nowhere", "POST /api/models/org/model/paths-info/main"} {
			conn := d.dial(t)
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n", line)
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			began := time.Now()
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("%s: %v after %v", line, err, time.Since(began))
			}
			conn.Close()
		}
	})
}
