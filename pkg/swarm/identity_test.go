package swarm

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/pkg/pieces"
)

func testIdentity(t testing.TB, seed byte) crypto.PrivKey {
	t.Helper()
	k, err := hostKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func TestIdentityIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	keys := make([]ed25519.PrivateKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = LoadIdentity(root); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if !k.Equal(keys[0]) {
			t.Fatal("two identities in one folder")
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
	if info, _ := entries[0].Info(); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestBadIdentityIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		fault   string
	}{
		"not PEM":    {"secret stuff", 0o600, "no PEM block"},
		"empty":      {"", 0o600, "no PEM block"},
		"not a key":  {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "asn1"},
		"readable":   {"", 0o644, "mode 0644"},
		"group read": {"", 0o640, "mode 0640"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, identityFile)
			if err := os.WriteFile(path, []byte(c.content), c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadIdentity(openRoot(t, dir))
			if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want one that names the file and %q", err, c.fault)
			}
			if got, _ := os.ReadFile(path); string(got) != c.content {
				t.Error("the file was replaced")
			}
		})
	}
}

func TestMakerAndPeerAreOne(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	maker := pieces.NewSigner(key).Maker()
	p, err := PeerOf(maker)
	if err != nil {
		t.Fatal(err)
	}
	if want := testPeer(t, 7); p != want {
		t.Errorf("peer %s, want %s", p, want)
	}
	back, err := MakerOf(p)
	if err != nil || back != maker {
		t.Errorf("maker %x, %v", back, err)
	}
	if _, err := MakerOf("nonsense"); err == nil {
		t.Error("nonsense has a maker")
	}
	_, pub, err := crypto.GenerateECDSAKeyPair(neverEnds{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MakerOf(other); err == nil {
		t.Error("an ECDSA peer has a maker")
	}
}

// neverEnds is a source of bytes for keys that only have to exist.
type neverEnds struct{}

func (neverEnds) Read(b []byte) (int, error) { return len(b), nil }
