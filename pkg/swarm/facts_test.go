package swarm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"

	"p2pagent/pkg/pieces"
)

func testFacts(t testing.TB) Facts {
	return Facts{
		Name: "node-17.example", Addrs: []string{"10.1.2.3:4001", "[fd00::17]:4001"}, Proof: testKey().Proof("p"),
		Labels: map[string]string{"zone": "a", "rack": "r7"}, Free: 1 << 42, Upstream: true, Version: ProtocolVersion, Software: "p2pagent/0.1.0",
	}
}

func TestFactsRoundTrip(t *testing.T) {
	for _, f := range []Facts{testFacts(t), {Version: ProtocolVersion, Addrs: []string{}, Proof: []byte{}, Labels: map[string]string{}}} {
		b, err := f.Encode()
		if err != nil {
			t.Fatal(err)
		}
		f.Peer = testPeer(t, 1)
		got, err := DecodeFacts(f.Peer, b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, f) {
			t.Errorf("got  %#v\nwant %#v", got, f)
		}
	}
	b, _ := testFacts(t).Encode()
	if got := hex.EncodeToString(b); got != goldenFacts {
		t.Errorf("encoding changed: %s", got)
	}
}

func TestFactsThatDontFitLoseLabels(t *testing.T) {
	f := testFacts(t)
	f.Labels = map[string]string{}
	for i := range 12 {
		f.Labels[fmt.Sprintf("label-%02d", i)] = strings.Repeat("x", 40)
	}
	before := maps.Clone(f.Labels)
	b, err := f.Encode()
	if !errors.Is(err, ErrFactsTooLong) || !strings.Contains(err.Error(), "label-11") || strings.Contains(err.Error(), "label-00") {
		t.Fatalf("error %v", err)
	}
	if !maps.Equal(before, f.Labels) {
		t.Error("the caller's labels were changed")
	}
	got, err := DecodeFacts("", b)
	if err != nil || len(b) > maxFactsBytes || len(got.Labels) == 0 || got.Labels["label-00"] == "" {
		t.Errorf("%d bytes, %+v, %v", len(b), got, err)
	}
}

func TestFactsLimits(t *testing.T) {
	for name, spoil := range map[string]func(*Facts){
		"escape in name":   func(f *Facts) { f.Name = "n\x1b]0;x" },
		"long name":        func(f *Facts) { f.Name = strings.Repeat("n", 65) },
		"name not utf-8":   func(f *Facts) { f.Name = "n\xff" },
		"no port":          func(f *Facts) { f.Addrs = []string{"10.0.0.1"} },
		"port 0":           func(f *Facts) { f.Addrs = []string{"10.0.0.1:0"} },
		"host name":        func(f *Facts) { f.Addrs = []string{"example.com:80"} },
		"unspecified":      func(f *Facts) { f.Addrs = []string{"0.0.0.0:80"} },
		"five addresses":   func(f *Facts) { f.Addrs = []string{"1.1.1.1:1", "1.1.1.1:2", "1.1.1.1:3", "1.1.1.1:4", "1.1.1.1:5"} },
		"negative space":   func(f *Facts) { f.Free = -1 },
		"label with line":  func(f *Facts) { f.Labels = map[string]string{"a": "b\nc"} },
		"label without":    func(f *Facts) { f.Labels = map[string]string{"": "b"} },
		"long software":    func(f *Facts) { f.Software = strings.Repeat("s", 33) },
		"proof too long":   func(f *Facts) { f.Proof = make([]byte, 65) },
		"seventeen labels": func(f *Facts) { f.Labels = manyLabels(17) },
	} {
		f := testFacts(t)
		spoil(&f)
		if b, err := f.Encode(); err == nil || b != nil {
			t.Errorf("%s: encoded", name)
		}
		e := encodedFacts{Version: f.Version, Name: f.Name, Addrs: f.Addrs, Proof: f.Proof, Labels: f.Labels, Free: f.Free, Upstream: f.Upstream, Software: f.Software}
		b, err := pieces.Marshal(e)
		if err != nil {
			continue // no encoding at all
		}
		if _, err := DecodeFacts("", b); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func manyLabels(n int) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprint(i)] = "x"
	}
	return out
}

func TestFactsOfAnotherVersion(t *testing.T) {
	b, err := pieces.Marshal([]any{uint64(9), "whatever", map[string]int{"else": 1}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := DecodeFacts("p", b)
	if !errors.Is(err, ErrVersion) || !strings.Contains(err.Error(), "version 9") || f.Version != 9 || f.Peer != "p" {
		t.Errorf("%+v, %v", f, err)
	}
}

func FuzzDecodeFacts(f *testing.F) {
	b, err := testFacts(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0x81, 0x02})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeFacts("p", b)
		if err != nil {
			return
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x decodes to %+v, which encodes to %x (%v)", b, got, again, err)
		}
	})
}
