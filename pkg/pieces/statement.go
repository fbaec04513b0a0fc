package pieces

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// ID is the identity of a piece: the SHA-256 of its bytes.
type ID [sha256.Size]byte

// IDOf hashes a piece.
func IDOf(data []byte) ID { return sha256.Sum256(data) }

// CID returns the id as a CIDv1 with codec raw and multihash sha2-256
// (https://github.com/multiformats/cid).
func (id ID) CID() cid.Cid {
	mh, err := multihash.Encode(id[:], multihash.SHA2_256)
	if err != nil {
		panic(err) // 32 bytes are always a valid sha2-256 multihash
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// ParseID accepts the binary form of such a CID.
func ParseID(c cid.Cid) (ID, error) {
	mh, err := multihash.Decode(c.Hash())
	if err != nil || c.Version() != 1 || c.Type() != cid.Raw || mh.Code != multihash.SHA2_256 || len(mh.Digest) != sha256.Size {
		return ID{}, fmt.Errorf("parse piece id %s: want CIDv1, raw, sha2-256", c)
	}
	return ID(mh.Digest), nil
}

// String returns the CID in its usual base32 form.
func (id ID) String() string { return id.CID().String() }

// Maker is the Ed25519 public key of the member that made a statement.
type Maker [ed25519.PublicKeySize]byte

// Statement says "piece Index of Blob has this Mark", signed by the member that
// cut the piece from upstream. A relay's word about a hash counts for nothing; the
// signature makes a liar attributable.
type Statement struct {
	Blob  Blob
	Index int
	Mark
	Maker Maker
	Sig   [ed25519.SignatureSize]byte
}

// ErrSignature marks a statement that its maker did not sign.
var ErrSignature = errors.New("bad signature")

// signingContext keeps a statement's signature from meaning anything else.
const signingContext = "p2pagent statement v1\x00"

func (s *Statement) message() []byte {
	var b bytes.Buffer
	b.WriteString(signingContext)
	b.WriteByte(s.Blob.Digest.size)
	b.Write(s.Blob.Digest.sum[:])
	var n [16]byte
	binary.BigEndian.PutUint64(n[:8], uint64(s.Blob.Size))
	binary.BigEndian.PutUint64(n[8:], uint64(s.Index))
	b.Write(n[:])
	b.Write(s.ID[:])
	if s.Bordered() {
		b.Write(s.Before[:])
		b.Write(s.After[:])
	}
	return b.Bytes()
}

// Check verifies the range of Index, that borders are where they can be, and the
// signature. Errors wrap ErrSignature when only the signature is wrong.
func (s *Statement) Check() error {
	if s.Blob.Size < 0 || s.Blob.Size > MaxBlobSize || s.Index < 0 || s.Index >= s.Blob.Pieces() {
		return fmt.Errorf("check statement: blob %s of %d bytes has no piece %d", s.Blob, s.Blob.Size, s.Index)
	}
	if !ed25519.Verify(s.Maker[:], s.message(), s.Sig[:]) {
		return fmt.Errorf("check statement on piece %d of %s: %w", s.Index, s.Blob, ErrSignature)
	}
	if s.Bordered() && (!s.Blob.bordered(s.Index) || s.Index == 0 && s.Before != FirstBorder()) {
		return fmt.Errorf("check statement on piece %d of %s: it can't have these borders", s.Index, s.Blob)
	}
	return nil
}

// Signer makes statements in the name of one member. The zero Signer can't sign.
type Signer struct {
	key   ed25519.PrivateKey
	maker Maker
}

// NewSigner returns a signer for a member's identity key.
func NewSigner(key ed25519.PrivateKey) Signer {
	return Signer{key: key, maker: Maker(key.Public().(ed25519.PublicKey))}
}

// Maker returns the public key under which statements are made.
func (s Signer) Maker() Maker { return s.maker }

// State signs "piece index of blob has this mark".
func (s Signer) State(b Blob, index int, m Mark) Statement {
	st := Statement{Blob: b, Index: index, Mark: m, Maker: s.maker}
	st.Sig = [ed25519.SignatureSize]byte(ed25519.Sign(s.key, st.message()))
	return st
}

// Sign signs other canonical bytes of this member (records), under a context
// that separates them from statements and from each other. It panics when the
// context could be mistaken for another.
func (s Signer) Sign(context string, message []byte) []byte {
	return ed25519.Sign(s.key, contextual(context, message))
}

// CheckSign verifies what Sign made. Errors wrap ErrSignature.
func (m Maker) CheckSign(context string, message, sig []byte) error {
	if !ed25519.Verify(m[:], contextual(context, message), sig) {
		return fmt.Errorf("check %s: %w", context, ErrSignature)
	}
	return nil
}

func contextual(context string, message []byte) []byte {
	if strings.Contains(context, "\x00") || "p2pagent "+context+"\x00" == signingContext {
		panic(fmt.Sprintf("pieces: signing context %q", context))
	}
	return append(append([]byte("p2pagent "), context+"\x00"...), message...)
}
