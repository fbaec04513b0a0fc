package minicas

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"p2pagent/pkg/pieces"
)

// GrantLife is how long a grant is good. Clients ask for a new token 30 s before
// the end, and for new addresses when they are refused.
const GrantLife = 10 * time.Minute

// Grant is the right to read: all files that a commit has in the store when it is
// a token, one of them when it is in an address.
type Grant struct {
	Repo   string        `json:"r"` // as pieces.Repo writes it
	Commit pieces.Commit `json:"c"`
	Caller string        `json:"w,omitempty"` // the caller's own token for the Hub, of a restricted repository
	File   string        `json:"f,omitempty"` // of an address: the file's name in the store
	Round  uint64        `json:"n"`           // what was read in another round may be wrong
	Made   int64         `json:"t"`           // Unix seconds
}

// Expires is when the grant ends.
func (g Grant) Expires() time.Time { return time.Unix(g.Made, 0).Add(GrantLife) }

// Mint seals grants: who does not have its key can't make one, change one, or read
// what is in it.
type Mint struct{ aead cipher.AEAD }

// NewMint returns a Mint with a secret key (AES-256-GCM).
func NewMint(key [32]byte) *Mint {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // so has the block
	}
	return &Mint{aead}
}

var encoding = base64.RawURLEncoding.Strict()

// Seal writes a grant as text for headers and addresses.
func (m *Mint) Seal(g Grant) string {
	raw, err := json.Marshal(g)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return encoding.EncodeToString(m.aead.Seal(nil, nil, raw, nil))
}

// ErrNoGrant tells that a text is no grant of this Mint, or an old one.
var ErrNoGrant = errors.New("no grant, or one that has expired")

// Open reads what Seal wrote, until it expires.
func (m *Mint) Open(text string, now time.Time) (g Grant, err error) {
	sealed, err := encoding.DecodeString(text)
	if err != nil {
		return Grant{}, ErrNoGrant
	}
	raw, err := m.aead.Open(nil, nil, sealed, nil)
	if err != nil || json.Unmarshal(raw, &g) != nil || !now.Before(g.Expires()) {
		return Grant{}, ErrNoGrant
	}
	return g, nil
}
