package swarm

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// KeySize is the length of a swarm key.
const KeySize = 32

// maxKeyFile bounds what ReadKeyFile reads: 64 hex digits and generous white
// space. A wrong path to something huge must not be read whole.
const maxKeyFile = 4 << 10

// ErrBadKey marks a key file that does not hold a swarm key.
var ErrBadKey = errors.New("not a swarm key")

// Key is the secret that makes a swarm: who holds it may join. The zero Key
// means an open swarm (no encryption of gossip, anybody is admitted).
//
// A Key never prints itself: every fmt verb gives a redacted form.
type Key struct{ b [KeySize]byte }

// NewKey makes a random key.
func NewKey() Key {
	var k Key
	rand.Read(k.b[:]) // never fails since Go 1.24
	return k
}

// ReadKeyFile reads a key: 64 hex digits, the base64 of 32 bytes, or 32 raw
// bytes, with white space around allowed. A file that everybody on the machine
// can read is refused, unless systemd handed it to this service alone. Errors
// name the file; those about the content wrap ErrBadKey.
func ReadKeyFile(path string) (Key, error) {
	raw, mode, err := readSmall(path)
	if err != nil {
		return Key{}, fmt.Errorf("read swarm key: %w", err)
	}
	if mode&0o006 != 0 && !systemdCredential(path) {
		return Key{}, fmt.Errorf("read swarm key %s: mode %04o lets every user of this machine join the swarm; chmod 600 it (Kubernetes secret: defaultMode 0400)", path, mode.Perm())
	}
	k, err := parseKey(raw)
	if err != nil {
		return Key{}, fmt.Errorf("read swarm key %s: %w", path, err)
	}
	return k, nil
}

func readSmall(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	return raw, info.Mode(), err
}

// systemdCredential reports whether path is below systemd's credential store,
// which only the one service can see whatever the mode says.
func systemdCredential(path string) bool {
	abs, err := filepath.Abs(path)
	return err == nil && strings.HasPrefix(abs, "/run/credentials/")
}

func parseKey(raw []byte) (Key, error) {
	if body, ok := rawKey(raw); ok {
		return checkKey(body)
	}
	text := strings.TrimSpace(string(raw))
	if b, err := hex.DecodeString(text); err == nil && len(b) == KeySize {
		return checkKey(b)
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil && len(b) == KeySize {
			return checkKey(b)
		}
	}
	return Key{}, fmt.Errorf("%w: want the 64 hex digits that `p2pagent keygen` prints (32 bytes), found %d characters", ErrBadKey, len(text))
}

// rawKey recognises 32 binary bytes, and one line end that an editor put there.
// 32 printable characters are text (a short hex key, a pass phrase) and no key:
// random bytes look like that once in 10^14.
func rawKey(raw []byte) ([]byte, bool) {
	if len(raw) == KeySize+1 && raw[KeySize] == '\n' {
		raw = raw[:KeySize]
	}
	if len(raw) != KeySize {
		return nil, false
	}
	for _, c := range raw {
		if c < ' ' || c > '~' {
			return raw, true
		}
	}
	return nil, false
}

func checkKey(b []byte) (Key, error) {
	k := Key{b: [KeySize]byte(b)}
	if k.IsZero() {
		return Key{}, fmt.Errorf("%w: it is all zeros; `p2pagent keygen` makes one", ErrBadKey)
	}
	return k, nil
}

// IsZero reports whether k is the zero Key, that of an open swarm.
func (k Key) IsZero() bool { return k == Key{} }

// Encode returns the 64 hex digits that ReadKeyFile accepts. It is the secret
// itself: for `p2pagent keygen` alone.
func (k Key) Encode() string { return hex.EncodeToString(k.b[:]) }

// Fingerprint returns 8 hex digits that tell two keys apart and give nothing
// of the key away. An open swarm's is "open".
func (k Key) Fingerprint() string {
	if k.IsZero() {
		return "open"
	}
	return hex.EncodeToString(k.derive("fingerprint", 4))
}

// String returns the key's fingerprint, never the key.
func (k Key) String() string { return "swarm key " + k.Fingerprint() }

// Format makes every fmt verb print String, %x and %#v included.
func (k Key) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

// LogValue keeps the key out of structured logs.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// derive makes an independent secret of n bytes for one purpose.
func (k Key) derive(purpose string, n int) []byte {
	out, err := hkdf.Key(sha256.New, k.b[:], nil, "p2pagent swarm v1 "+purpose, n)
	if err != nil {
		panic(err) // only for n over 8160
	}
	return out
}

// gossip returns memberlist's AES-256 key, nil for an open swarm.
func (k Key) gossip() []byte {
	if k.IsZero() {
		return nil
	}
	return k.derive("gossip", 32)
}

// Proof returns the bytes by which the member p shows that it holds the key;
// nil in an open swarm. A proof is worth nothing to another member, because
// libp2p proves who owns a peer id.
func (k Key) Proof(p peer.ID) []byte {
	if k.IsZero() {
		return nil
	}
	mac := hmac.New(sha256.New, k.derive("membership", 32))
	io.WriteString(mac, string(p))
	return mac.Sum(nil)
}

// CheckProof reports, in constant time, whether proof is Proof(p). An open
// swarm believes everybody.
func (k Key) CheckProof(p peer.ID, proof []byte) bool {
	return k.IsZero() || hmac.Equal(k.Proof(p), proof)
}
