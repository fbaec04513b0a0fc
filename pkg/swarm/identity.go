package swarm

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pagent/pkg/pieces"
)

// identityFile holds the member's Ed25519 key, PKCS#8 in PEM. Who copies it is
// the member: it must not travel to a second machine.
const identityFile = "identity.pem"

// LoadIdentity returns the member's key from dir, making one on the first call.
// On return the key is durable: a member that was seen by others once keeps its
// name over a power cut.
func LoadIdentity(dir *os.Root) (ed25519.PrivateKey, error) {
	key, err := readIdentity(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeIdentity(dir); err == nil {
			key, err = readIdentity(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load identity %s/%s: %w", dir.Name(), identityFile, err)
	}
	return key, nil
}

// IdentityIn returns the peer id of the key in dir. It makes none.
func IdentityIn(dir *os.Root) (peer.ID, error) {
	key, err := readIdentity(dir)
	if err != nil {
		return "", fmt.Errorf("load identity %s/%s: %w", dir.Name(), identityFile, err)
	}
	return PeerOf(pieces.Maker(key.Public().(ed25519.PublicKey)))
}

func readIdentity(dir *os.Root) (ed25519.PrivateKey, error) {
	f, err := dir.Open(identityFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode()&0o077 != 0 {
		return nil, fmt.Errorf("mode %04o lets others take this member's name; chmod 600 it", info.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	return parseIdentity(raw)
}

func parseIdentity(raw []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("no PEM block; remove the file to get a new identity")
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := any.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a %T, want Ed25519", any)
	}
	return key, nil
}

// makeIdentity writes a new key beside its name and links it there, so that of
// two racing starts one wins and both then read the same key.
func makeIdentity(dir *os.Root) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	var nonce [8]byte
	rand.Read(nonce[:])
	temp := identityFile + "." + hex.EncodeToString(nonce[:])
	defer dir.Remove(temp)
	if err := writeSynced(dir, temp, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return err
	}
	if err := dir.Link(temp, identityFile); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeSynced(dir *os.Root, name string, data []byte) error {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// hostKey turns a member's key into libp2p's form.
func hostKey(key ed25519.PrivateKey) (crypto.PrivKey, error) {
	return crypto.UnmarshalEd25519PrivateKey(key)
}

// PeerOf returns the peer id of the member that makes statements as m.
func PeerOf(m pieces.Maker) (peer.ID, error) {
	pub, err := crypto.UnmarshalEd25519PublicKey(m[:])
	if err != nil {
		return "", fmt.Errorf("peer of maker %x: %w", m[:4], err)
	}
	return peer.IDFromPublicKey(pub)
}

// MakerOf returns the public key under which the member p makes statements.
// Peer ids of other key types than Ed25519 have none.
func MakerOf(p peer.ID) (pieces.Maker, error) {
	pub, err := p.ExtractPublicKey()
	if err != nil {
		return pieces.Maker{}, fmt.Errorf("maker of peer %s: %w", p, err)
	}
	raw, err := pub.Raw()
	if err != nil || pub.Type() != crypto.Ed25519 || len(raw) != ed25519.PublicKeySize {
		return pieces.Maker{}, fmt.Errorf("maker of peer %s: not an Ed25519 key", p)
	}
	return pieces.Maker(raw), nil
}
