package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/scripts/internal/testmodel"
)

// serveModel starts a server with a folder on disk and a generated repository.
func serveModel(t *testing.T) (endpoint, control string, files []testmodel.File) {
	t.Helper()
	dir := t.TempDir()
	files, err := testmodel.Write(dir, testmodel.Options{Size: 5 << 20, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	o := options{listen: "127.0.0.1:0", cdn: "127.0.0.1:0", control: "127.0.0.1:0", xet: true,
		models: list{"demo/model=" + dir, "demo/model@refs/pr/1=" + dir}, generated: list{"demo/made=3MiB:1:2"}}
	hub, err := newHub(o)
	if err != nil {
		t.Fatal(err)
	}
	model, err := fill(hub, o)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{hub: hub, log: newLog(), faults: &faults{}, model: model, failed: make(chan error, 3)}
	if err := s.listen(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	var cdn string
	if _, err := fmt.Sscanf(s.ready, "ready endpoint=%s cdn=%s control=%s", &endpoint, &cdn, &control); err != nil {
		t.Fatal(err)
	}
	return endpoint, control, files
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	for err == nil && resp.StatusCode/100 == 3 {
		location, e := resp.Location()
		resp.Body.Close()
		if e != nil {
			return nil, e
		}
		req.URL = location
		resp, err = http.DefaultTransport.RoundTrip(req)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

func ask[T any](t *testing.T, url string) (v T) {
	t.Helper()
	body, err := get(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCountsEveryByteOfContentAndNothingElse(t *testing.T) {
	endpoint, control, files := serveModel(t)
	var want int64
	for _, f := range files {
		body, err := get(t.Context(), endpoint+"/demo/model/resolve/main/"+f.Path)
		if err != nil || int64(len(body)) != f.Size {
			t.Fatalf("%s: %d bytes, %v; want %d", f.Path, len(body), err, f.Size)
		}
		want += f.Size
	}
	for _, path := range []string{"/api/models/demo/model/revision/refs%2Fpr%2F1", "/demo/model/resolve/main/none"} {
		if _, err := get(t.Context(), endpoint+path); err != nil {
			t.Fatal(err)
		}
	}
	s := ask[stats](t, control+"/stats")
	if s.Body != want || s.Clients["127.0.0.1"] != want || s.Calls[hubtest.Info] != 1 {
		t.Errorf("counted %d, by client %v, calls %v; want %d bytes", s.Body, s.Clients, s.Calls, want)
	}
	if made := int64(3<<20 + 200 + 977); s.Model != want+made {
		t.Errorf("the repositories hold %d bytes, want %d", s.Model, want+made)
	}
}

func TestCountsWhatTheStoreSends(t *testing.T) {
	endpoint, control, _ := serveModel(t)
	before := ask[stats](t, control+"/stats")
	if made := int64(3 << 20); before.Store < made || before.Store > before.Model+1<<20 {
		t.Errorf("the store has %d bytes of %d", before.Store, before.Model)
	}
	name := head(t, endpoint+"/demo/made/resolve/main/model-00001-of-00001.safetensors").Get("X-Xet-Hash")
	grant := ask[struct{ AccessToken, CASURL string }](t, endpoint+"/api/models/demo/made/xet-read-token/main")
	var plan struct {
		Xorbs map[string][]struct {
			URL    string
			Ranges []struct{ Bytes struct{ Start, End int64 } }
		}
	}
	if err := json.Unmarshal(fetch(t, grant.CASURL+"/v2/reconstructions/"+name, "Bearer "+grant.AccessToken, ""), &plan); err != nil {
		t.Fatal(err)
	}
	var want int64
	for _, xorbs := range plan.Xorbs {
		for _, x := range xorbs {
			r := x.Ranges[0].Bytes
			want += int64(len(fetch(t, x.URL, "", fmt.Sprintf("bytes=%d-%d", r.Start, r.End))))
		}
	}
	if s := ask[stats](t, control+"/stats"); want < 3<<20 || s.Stored != want || s.Body != want || s.Calls[hubtest.Token] != 1 {
		t.Errorf("counted %d stored bytes of %d and calls %v, want %d", s.Stored, s.Body, s.Calls, want)
	}
}

func head(t *testing.T, url string) http.Header {
	t.Helper()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, url, nil)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header
}

func fetch(t *testing.T, url, token, span string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": token, "Range": span} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return body
}

func TestStallsAtAnOffsetWithTheSocketOpen(t *testing.T) {
	endpoint, control, _ := serveModel(t)
	const after = 1<<20 + 12345
	url := endpoint + "/demo/made/resolve/main/model-00001-of-00001.safetensors"
	resp, err := http.Post(control+fmt.Sprintf("/stall?path=model-00001-of-00001.safetensors&after=%d", after), "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := get(ctx, url)
		done <- err
	}()
	entry := waitStalled(t, control)
	if entry.Sent != after || entry.To != 3<<20-1 || entry.Ended != 0 {
		t.Errorf("stalled after %d of 0-%d, ended %v; want %d and open", entry.Sent, entry.To, entry.Ended, after)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the stalled request gave %v", err)
	}
	if body, err := get(t.Context(), url); err != nil || len(body) != 3<<20 {
		t.Errorf("the next request gave %d bytes, %v", len(body), err)
	}
}

// waitStalled asks again and again, until the test's own deadline.
func waitStalled(t *testing.T, control string) entry {
	t.Helper()
	for t.Context().Err() == nil {
		for _, e := range ask[[]entry](t, control+"/requests") {
			if e.Stalled > 0 {
				return e
			}
		}
	}
	return entry{}
}

func TestRefusesWhatItCannotServe(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, o := range []options{
		{models: list{"demo/model=" + none}}, {models: list{"demo/model"}}, {models: list{"a/b/c=" + os.TempDir()}},
		{generated: list{"demo/m=1GiB"}}, {generated: list{"demo/m=1GiB:0"}}, {generated: list{"demo/m=x:1"}},
	} {
		if _, err := fill(hubtest.New(hubtest.Options{}), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
