package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRedactor(t *testing.T) {
	key := strings.Repeat("0123456789abcdef", 4)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"HF_TOKEN": "odd-token-of-a-mirror"}
	s := &settings{env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
	s.SwarmKeyFile = file
	redact := s.redactor()
	for in, want := range map[string]string{
		"token odd-token-of-a-mirror.":                         "token REDACTED.",
		"key=" + key:                                           "key=REDACTED",
		"hf_abcdefghijkl and hf_home":                          "REDACTED and hf_home",
		"Authorization: Bearer abc.def-ghi_jkl":                "Authorization: REDACTED",
		"proxy http://user:pw@proxy:3128 used":                 "proxy http://REDACTED@proxy:3128 used",
		`"https://cdn.example/x?X-Amz-Signature=ab&b=c" tail`:  `"https://cdn.example/x?REDACTED" tail`,
		"/v1/snapshot?ref=org/name and 12D3KooWJzCyDGcyYB7WTU": "/v1/snapshot?ref=org/name and 12D3KooWJzCyDGcyYB7WTU",
	} {
		if got := string(redact([]byte(in))); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", in, got, want)
		}
	}
}

// The tail is whole lines, the last ones, and bounded however much is written.
func TestTail(t *testing.T) {
	tl := newTail(100)
	var all bytes.Buffer
	for i := range 1000 {
		line := fmt.Sprintf("line %d\n", i)
		all.WriteString(line)
		fmt.Fprint(tl, line)
		got := tl.Bytes()
		if len(got) > 100 || !bytes.HasSuffix(all.Bytes(), got) || !bytes.HasPrefix(got, []byte("line ")) || len(got) < min(all.Len(), 80) {
			t.Fatalf("after line %d: %q", i, got)
		}
	}
	if cap(tl.buf) > 1000 {
		t.Errorf("holds %d bytes", cap(tl.buf))
	}
}
