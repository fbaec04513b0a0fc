package swarm

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// testKey's derived values are pinned: changing them cuts every running swarm
// in two.
func testKey() Key {
	var k Key
	for i := range k.b {
		k.b[i] = byte(i + 1)
	}
	return k
}

func TestReadKeyFile(t *testing.T) {
	k := testKey()
	raw := k.b[:]
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		fault   string
	}{
		"hex":             {content: k.Encode()},
		"hex with lines":  {content: "\n  " + strings.ToUpper(k.Encode()) + "\r\n\n"},
		"base64":          {content: base64.StdEncoding.EncodeToString(raw) + "\n"},
		"base64 unpadded": {content: base64.RawURLEncoding.EncodeToString(raw)},
		"raw":             {content: string(raw)},
		"raw and newline": {content: string(raw) + "\n"},
		"group may read":  {content: k.Encode(), mode: 0o640},
		"short hex":       {content: k.Encode()[:62], fault: "found 62 characters"},
		"half hex":        {content: k.Encode()[:32], fault: "found 32 characters"},
		"long hex":        {content: k.Encode() + "00", fault: "found 66 characters"},
		"pass phrase":     {content: "correct horse battery staple ok!", fault: "found 32 characters"},
		"empty":           {content: "", fault: "p2pagent keygen"},
		"zeros":           {content: strings.Repeat("0", 64), fault: "all zeros"},
		"huge":            {content: strings.Repeat("a", 1<<20), fault: "not a swarm key"},
		"open to all":     {content: k.Encode(), mode: 0o644, fault: "mode 0644"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "swarm.key")
			if c.mode == 0 {
				c.mode = 0o600
			}
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			got, err := ReadKeyFile(path)
			if c.fault == "" {
				if err != nil || got != k {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), path) {
				t.Fatalf("error %v, want one that names the file and %q", err, c.fault)
			}
			if c.mode == 0o600 && !errors.Is(err, ErrBadKey) {
				t.Errorf("%v does not wrap ErrBadKey", err)
			}
			if len(c.content) > 8 && strings.Contains(err.Error(), c.content[:8]) {
				t.Errorf("the message holds part of the key: %v", err)
			}
		})
	}
	if _, err := ReadKeyFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func TestKeyNeverPrintsItself(t *testing.T) {
	k := testKey()
	secret := [][]byte{k.b[:4], []byte(k.Encode()[:8]), []byte("1 2 3 4")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c"} {
		for _, v := range []any{k, &k, struct{ Key Key }{k}, MemberOptions{Key: k}} {
			out := fmt.Sprintf(verb, v)
			for _, s := range secret {
				if bytes.Contains([]byte(out), s) {
					t.Errorf("%s of %T prints the key", verb, v)
				}
			}
		}
	}
}

func TestKeyDerivation(t *testing.T) {
	k := testKey()
	p := testPeer(t, 1)
	for what, c := range map[string]struct{ got, want string }{
		"gossip":      {hex.EncodeToString(k.gossip()), goldenGossip},
		"proof":       {hex.EncodeToString(k.Proof("a peer id")), goldenProof},
		"fingerprint": {k.Fingerprint(), goldenFingerprint},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", what, c.got, c.want)
		}
	}
	proof := k.Proof(p)
	if !k.CheckProof(p, proof) {
		t.Error("own proof refused")
	}
	other := k
	other.b[31]++
	for what, ok := range map[string]bool{
		"of another member": k.CheckProof(testPeer(t, 2), proof),
		"under another key": other.CheckProof(p, proof),
		"cut short":         k.CheckProof(p, proof[:31]),
		"empty":             k.CheckProof(p, nil),
	} {
		if ok {
			t.Errorf("proof %s accepted", what)
		}
	}
	if open := (Key{}); open.Proof(p) != nil || open.gossip() != nil || !open.CheckProof(p, nil) {
		t.Error("an open swarm asks for proofs")
	}
}

func testPeer(t *testing.T, seed byte) peer.ID {
	t.Helper()
	p, err := peer.IDFromPublicKey(testIdentity(t, seed).GetPublic())
	if err != nil {
		t.Fatal(err)
	}
	return p
}
