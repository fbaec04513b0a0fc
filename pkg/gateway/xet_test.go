package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"p2pagent/pkg/gateway"
	"p2pagent/pkg/pieces"
)

// storeToken asks for a read token as hf_xet does, and returns it.
func (d *desk) storeToken(repo string, header ...string) string {
	d.t.Helper()
	resp := d.ask("GET", "/api/models/"+repo+"/xet-read-token/"+string(mainCommit), header...)
	var body struct {
		AccessToken, CasURL string
		Exp                 int64
	}
	raw := read(d.t, resp)
	if err := json.Unmarshal([]byte(raw), &body); err != nil || resp.StatusCode != 200 || body.CasURL != desktop || resp.Header.Get("X-Xet-Cas-Url") != desktop {
		d.t.Fatalf("%s %s", resp.Status, raw)
	}
	left := time.Until(time.Unix(body.Exp, 0))
	if body.AccessToken != resp.Header.Get("X-Xet-Access-Token") || fmt.Sprint(body.Exp) != resp.Header.Get("X-Xet-Token-Expiration") || left < 5*time.Minute || left > 10*time.Minute {
		d.t.Fatalf("%s %v, good for %v", raw, resp.Header, left)
	}
	return body.AccessToken
}

// recipe is a reconstruction of version 2, as far as it is read here.
type recipe struct {
	Skip  int64 `json:"offset_into_first_range"`
	Xorbs map[string][]struct {
		URL    string
		Ranges []struct{ Bytes struct{ Start, End int64 } }
	}
}

// recipe asks for a reconstruction, and returns it with the path of its one xorb
// and the Range to ask for.
func (d *desk) recipe(token, name string, header ...string) (r recipe, path, ranges string) {
	d.t.Helper()
	resp := d.ask("GET", "/v2/reconstructions/"+name, append(header, "Authorization: Bearer "+token)...)
	if err := json.Unmarshal([]byte(read(d.t, resp)), &r); err != nil || resp.StatusCode != 200 || len(r.Xorbs) != 1 {
		d.t.Fatalf("%s: %+v, %v", resp.Status, r, err)
	}
	for _, x := range r.Xorbs {
		path = strings.TrimPrefix(x[0].URL, desktop)
		ranges = fmt.Sprintf("Range: bytes=%d-%d", x[0].Ranges[0].Bytes.Start, x[0].Ranges[0].Bytes.End)
	}
	return r, path, ranges
}

func offer(x gateway.XetOffer) func(*gateway.Options) {
	return func(o *gateway.Options) { o.Xet = x }
}

// xorbOf is what the store has of a short file: chunks of 128 KiB as they are.
func xorbOf(data string) string {
	var out strings.Builder
	for len(data) > 0 {
		n := min(len(data), 128<<10)
		size := []byte{byte(n), byte(n >> 8), byte(n >> 16)}
		out.WriteString("\x00" + string(size) + "\x00" + string(size) + data[:n])
		data = data[n:]
	}
	return out.String()
}

// X08: a client asks us for Xet.
//
// The gateway is no content-addressed store unless --gateway-xet says so: every
// route of one is a 404 with a code, at once, and nobody is asked anything.
func TestX08StoreIsOffByDefault(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		f, _ := d.model().File("model.safetensors")
		d.lookWait = time.Hour
		began, name := time.Now(), f.Xet.String()
		for _, path := range []string{"/api/models/org/model/xet-read-token/main", "/v1/reconstructions/" + name, "/v2/reconstructions/" + name, "/xorbs/" + name + "?grant=x"} {
			if resp := d.ask("GET", path, "Authorization: Bearer x", "Range: bytes=0-9"); resp.StatusCode != 404 || resp.Header.Get("X-Error-Code") != "RouteNotFound" {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
		if d.looks > 0 || time.Since(began) > 0 {
			t.Errorf("%d look-ups, %v", d.looks, time.Since(began))
		}
	})
}

// X08: hf_xet reads from the gateway.
//
// With --gateway-xet the listing and the HEAD name the file in the Hub's store
// and a token of ours; its reconstruction, in both versions, leads to ranges that
// are made of the file's bytes, the same while it lands and when it is here.
func TestX08StoreServes(t *testing.T) {
	for _, state := range []string{"whole", "landing"} {
		t.Run(state, func(t *testing.T) {
			atDesk(t, func(t *testing.T, d *desk) {
				data := noise(1, 300_000)
				f, _ := d.model().File("model.safetensors")
				name := f.Xet.String()
				if state == "landing" {
					l := d.lands("model.safetensors", data)
					go func() {
						for n := int64(0); n < 300_000; n += 50_000 {
							time.Sleep(20 * time.Second) // longer than a plain GET waits
							l.land(n+50_000, nil)
						}
					}()
				}
				head := d.ask("HEAD", "/org/model/resolve/main/model.safetensors").Header
				if want := "<" + desktop + "/api/models/org/model/xet-read-token/" + string(mainCommit) + `>; rel="xet-auth"`; head.Get("X-Xet-Hash") != name || head.Get("Link") != want {
					t.Errorf("HEAD: %v", head)
				}
				if body := read(t, d.ask("GET", "/api/models/org/model/tree/main?recursive=true")); strings.Count(body, "xetHash") != 1 || !strings.Contains(body, name) {
					t.Error(body)
				}
				token := d.storeToken("org/model")
				_, path, ranges := d.recipe(token, name)
				if resp := d.ask("GET", path, ranges); resp.StatusCode != 206 || read(t, resp) != xorbOf(data) {
					t.Errorf("whole: %s", resp.Status)
				}
				r, path, ranges := d.recipe(token, name, "Range: bytes=131073-200000")
				if resp := d.ask("GET", path, ranges); r.Skip != 1 || read(t, resp) != xorbOf(data[128<<10:256<<10]) {
					t.Errorf("a part: %s, skip %d", resp.Status, r.Skip)
				}
				if body := read(t, d.ask("GET", "/v1/reconstructions/"+name, "Authorization: Bearer "+token)); !strings.Contains(body, "fetch_info") || strings.Contains(body, `"xorbs"`) {
					t.Error(body)
				}
				for spec, status := range map[string]int{"bytes=300000-": 416, "bytes=x-": 416, "bytes=5-4": 416, "bytes=299999-400000": 200, "bytes=5-": 200} {
					if resp := d.ask("GET", "/v2/reconstructions/"+name, "Authorization: Bearer "+token, "Range: "+spec); resp.StatusCode != status {
						t.Errorf("%s: %s", spec, resp.Status)
					}
				}
			}, offer(gateway.XetAll))
		})
	}
}

// Only files that plain HTTP can't bring are offered, unless all are; but what a
// client learned of a file elsewhere is answered.
func TestXetHuge(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		small, _ := m.File("model.safetensors")
		huge := fileOf("zz-huge.bin", []byte(noise(3, 2000)))
		huge.Blob.Size = 60_000_000_000
		plain := huge // not in the Hub's store
		plain.Path, plain.Xet = "zz-plain.bin", pieces.Digest{}
		m.outline.Files = append(m.outline.Files, huge, plain)
		d.lands("zz-huge.bin", "")
		d.lands("zz-plain.bin", "")
		for path, want := range map[string]string{"model.safetensors": "", "zz-huge.bin": huge.Xet.String(), "zz-plain.bin": ""} {
			if got := d.ask("HEAD", "/org/model/resolve/main/"+path).Header; got.Get("X-Xet-Hash") != want || (got.Get("Link") != "") != (want != "") {
				t.Errorf("%s: %v", path, got)
			}
		}
		if body := read(t, d.ask("GET", "/api/models/org/model/tree/main?recursive=true")); strings.Count(body, "xetHash") != 1 || !strings.Contains(body, huge.Xet.String()) {
			t.Error(body)
		}
		token := d.storeToken("org/model")
		for spec, status := range map[string]int{"bytes=0-": 400, fmt.Sprintf("bytes=%d-", int64(58_000_000_000)): 200} {
			if resp := d.ask("GET", "/v2/reconstructions/"+huge.Xet.String(), "Authorization: Bearer "+token, "Range: "+spec); resp.StatusCode != status {
				t.Errorf("%s of 60 GB: %s", spec, resp.Status)
			}
		}
		_, path, ranges := d.recipe(token, small.Xet.String())
		if resp := d.ask("GET", path, ranges); resp.StatusCode != 206 {
			t.Errorf("a small file: %s", resp.Status)
		}
	}, offer(gateway.XetHuge))
}

// X08: who may read from our store.
//
// A token is for one commit and ends after ten minutes; an address is for one
// file of it. Neither can be made up, or used for the other. Of a gated repository
// only those get a token whom the Hub lets; the Hub goes on being asked, and when
// it says no the token ends.
func TestX08StoreAccess(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		m.secret, m.token = true, "hf_good"
		f, _ := m.File("model.safetensors")
		name := f.Xet.String()
		if resp := d.ask("GET", "/api/models/org/model/xet-read-token/main", "Authorization: Bearer hf_bad"); resp.StatusCode != 403 || resp.Header.Get("X-Xet-Access-Token") != "" {
			t.Errorf("a token for a stranger: %s", resp.Status)
		}
		token := d.storeToken("org/model", "Authorization: Bearer hf_good")
		_, path, ranges := d.recipe(token, name)
		grant := path[strings.Index(path, "grant=")+6:]
		other := strings.Repeat("ab", 32)
		refused := func(what string, status int, path string, header ...string) {
			t.Helper()
			resp := d.ask("GET", path, header...)
			if body := read(t, resp); resp.StatusCode != status || strings.Contains(body, token) || strings.Contains(body, grant) {
				t.Errorf("%s: %s %s", what, resp.Status, body)
			}
		}
		good := "Authorization: Bearer " + token
		refused("no token", 401, "/v2/reconstructions/"+name)
		refused("the Hub's token", 401, "/v2/reconstructions/"+name, "Authorization: Bearer hf_good")
		refused("an address as token", 401, "/v2/reconstructions/"+name, "Authorization: Bearer "+grant)
		refused("another file", 404, "/v2/reconstructions/"+other, good)
		refused("a token as address", 403, strings.Replace(path, grant, url.QueryEscape(token), 1), ranges)
		refused("no grant", 403, path[:strings.Index(path, "?")], ranges)
		refused("a changed grant", 403, path[:len(path)-3]+"AAA", ranges)
		refused("no range", 403, path)
		refused("two ranges", 403, path, "Range: bytes=0-1,5-6")
		refused("another xorb", 404, "/xorbs/"+other+"?grant="+grant, ranges)
		refused("another host", 403, path, ranges, "Host: evil.example")
		refused("no name of a xorb", 404, "/xorbs/short?grant="+grant, ranges)
		time.Sleep(9 * time.Minute)
		if resp := d.ask("GET", path, ranges); resp.StatusCode != 206 {
			t.Errorf("after nine minutes: %s", resp.Status)
		}
		time.Sleep(2 * time.Minute)
		refused("an old address", 403, path, ranges)
		refused("an old token", 401, "/v2/reconstructions/"+name, good)
	}, offer(gateway.XetAll))
	atDesk(t, func(t *testing.T, d *desk) {
		m := d.model()
		m.secret, m.token = true, "hf_good"
		f, _ := m.File("model.safetensors")
		d.ask("HEAD", "/org/model/resolve/main/config.json", "Authorization: Bearer hf_good") // the Hub is asked, for ten minutes
		time.Sleep(5 * time.Minute)
		token := d.storeToken("org/model", "Authorization: Bearer hf_good")
		_, path, ranges := d.recipe(token, f.Xet.String())
		if strings.Contains(token+path, "hf_good") {
			t.Error("the caller's token can be read")
		}
		time.Sleep(6 * time.Minute)
		m.token = "hf_new"
		if resp := d.ask("GET", path, ranges); resp.StatusCode != 403 {
			t.Errorf("after the Hub has changed its mind: %s", resp.Status)
		}
		_, path, ranges = d.recipe(d.storeToken("org/model", "Authorization: Bearer hf_new"), f.Xet.String())
		if resp := d.ask("GET", path, ranges); resp.StatusCode != 206 {
			t.Errorf("another caller: %s", resp.Status)
		}
	}, offer(gateway.XetAll))
}

// X08: bytes that hf_xet has turn out wrong.
//
// It compares nothing, and asks for parts; so from then on everything that was
// promised before is refused for good, the download fails, and the next one
// begins anew.
func TestX08StoreTakesBack(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		f, _ := d.model().File("model.safetensors")
		name := f.Xet.String()
		l := d.lands("model.safetensors", noise(1, 300_000))
		l.land(200_000, nil)
		token := d.storeToken("org/model")
		_, path, ranges := d.recipe(token, name)
		resp := d.ask("GET", path, ranges)
		if _, err := io.ReadFull(resp.Body, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		d.takenBack.Add(1)
		l.land(300_000, nil) // it has come again, right
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("the body that was under way ended well")
		}
		for path, header := range map[string][]string{path: {ranges}, "/v2/reconstructions/" + name: {"Authorization: Bearer " + token}} {
			if resp := d.ask("GET", path, header...); resp.StatusCode != http.StatusGone {
				t.Errorf("%s: %s", path, resp.Status)
			}
		}
		_, path, ranges = d.recipe(d.storeToken("org/model"), name)
		if resp := d.ask("GET", path, ranges); read(t, resp) != xorbOf(noise(1, 300_000)) {
			t.Errorf("anew: %s", resp.Status)
		}
	}, offer(gateway.XetAll))
}

// A range of which no byte comes is put off before hf_xet gives up, and in words
// that it repeats.
func TestXorbWaits(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		f, _ := d.model().File("model.safetensors")
		d.lands("model.safetensors", noise(1, 300_000))
		_, path, ranges := d.recipe(d.storeToken("org/model"), f.Xet.String())
		began := time.Now()
		resp := d.ask("GET", path, ranges)
		if took := time.Since(began); resp.StatusCode != 429 || took < time.Minute || took > 4*time.Minute {
			t.Errorf("%s after %v", resp.Status, took)
		}
	}, offer(gateway.XetAll))
}

// X08: the agent is started again while hf_xet reads from it.
//
// What the client was given is good by the same key, which the member's identity
// gives; by another it is not. The client's own retries reach over the gap.
func TestX08StoreAfterARestart(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		f, _ := d.model().File("model.safetensors")
		token := d.storeToken("org/model")
		for key, status := range map[byte]int{0: 200, 1: 401} {
			next := gateway.New(gateway.Options{Node: d.shelf, Xet: gateway.XetAll, Key: [32]byte{key}})
			req := httptest.NewRequest("GET", desktop+"/v2/reconstructions/"+f.Xet.String(), nil)
			req.Header.Set("Authorization", "Bearer "+token)
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			if answer.Code != status {
				t.Errorf("key %d: %d %s", key, answer.Code, answer.Body)
			}
		}
	}, offer(gateway.XetAll))
}
