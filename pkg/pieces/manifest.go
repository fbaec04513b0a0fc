package pieces

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

// Proofs are the statements known about one blob.
type Proofs struct {
	Blob       Blob
	Statements []Statement // ascending by Index, one for each piece at most
	// States leaves room for the SHA-256 states at piece borders, 32 bytes each,
	// that would prove pieces against the Hub's own digest. Not written yet.
	States []byte
}

// Manifest is an outline with the statements known so far.
type Manifest struct {
	Outline Outline
	Proofs  []Proofs // one for each distinct blob of the outline, in its order
}

// Full tells whether every piece of every blob has a statement.
func (m *Manifest) Full() bool {
	for _, p := range m.Proofs {
		if len(p.Statements) != p.Blob.Pieces() {
			return false
		}
	}
	return len(m.Proofs) == len(Blobs(m.Outline.Files))
}

// MaxManifestBytes bounds an encoded manifest: 10^6 pieces at 140 bytes each.
const MaxManifestBytes = 192 << 20

type (
	encodedProofs struct {
		_          struct{} `cbor:",toarray"`
		Blob       Blob
		Statements []encodedStatement
		States     []byte
	}
	encodedManifest struct {
		_       struct{} `cbor:",toarray"`
		Version int
		Outline []byte
		Proofs  []encodedProofs
	}
)

const manifestVersion = 1

// Marshal encodes the manifest canonically.
func (m *Manifest) Marshal() ([]byte, error) {
	outline, err := m.Outline.Marshal()
	if err != nil {
		return nil, err
	}
	e := encodedManifest{Version: manifestVersion, Outline: outline, Proofs: make([]encodedProofs, len(m.Proofs))}
	for i, p := range m.Proofs {
		e.Proofs[i] = encodedProofs{Blob: p.Blob, Statements: encodeStatements(p.Statements), States: p.States}
	}
	return canonical.Marshal(e)
}

// ManifestCID returns the name of the encoded manifest: CIDv1, codec cbor, sha2-256.
func ManifestCID(encoded []byte) cid.Cid {
	mh, err := multihash.Sum(encoded, multihash.SHA2_256, -1)
	if err != nil {
		panic(err) // sha2-256 is always registered
	}
	return cid.NewCidV1(uint64(multicodec.Cbor), mh)
}

// ParseManifest decodes what Manifest.Marshal made. It checks the order and range
// of the statements and every signature.
func ParseManifest(b []byte) (*Manifest, error) {
	var e encodedManifest
	if err := Unmarshal(b, MaxManifestBytes, &e); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if e.Version != manifestVersion {
		return nil, fmt.Errorf("parse manifest: version %d, want %d", e.Version, manifestVersion)
	}
	o, err := ParseOutline(e.Outline)
	if err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	m := &Manifest{Outline: *o}
	blobs := Blobs(o.Files)
	if len(e.Proofs) != len(blobs) {
		return nil, fmt.Errorf("parse manifest: proofs for %d of %d blobs", len(e.Proofs), len(blobs))
	}
	for i, p := range e.Proofs {
		if p.Blob != blobs[i] {
			return nil, fmt.Errorf("parse manifest: proofs for %s where %s belongs", p.Blob, blobs[i])
		}
		statements, err := checkedStatements(p.Blob, p.Statements)
		if err != nil {
			return nil, fmt.Errorf("parse manifest: %w", err)
		}
		m.Proofs = append(m.Proofs, Proofs{Blob: p.Blob, Statements: statements, States: p.States})
	}
	return m, nil
}

func encodeStatements(in []Statement) []encodedStatement {
	out := make([]encodedStatement, len(in))
	for i, s := range in {
		out[i] = encodedStatement{Index: s.Index, ID: s.ID, Maker: s.Maker, Sig: s.Sig}
	}
	return out
}

func decodeStatements(b Blob, in []encodedStatement) ([]Statement, error) {
	out := make([]Statement, len(in))
	last := -1
	for i, e := range in {
		out[i] = Statement{Blob: b, Index: e.Index, ID: e.ID, Maker: e.Maker, Sig: e.Sig}
		if e.Index <= last || e.Index >= b.Pieces() {
			return nil, fmt.Errorf("statements of %s out of order or range at %d: %w", b, e.Index, ErrNotCanonical)
		}
		last = e.Index
	}
	return out, nil
}

// MarshalStatements encodes statements on pieces of one blob, ascending by
// Index, as they travel between members.
func MarshalStatements(in []Statement) ([]byte, error) {
	return canonical.Marshal(encodeStatements(in))
}

// MaxStatementBytes bounds one batch of statements between members.
const MaxStatementBytes = 256 << 10

// ParseStatements decodes a batch on pieces of b and checks order, range and
// every signature.
func ParseStatements(b Blob, raw []byte) ([]Statement, error) {
	var e []encodedStatement
	if err := Unmarshal(raw, MaxStatementBytes, &e); err != nil {
		return nil, fmt.Errorf("parse statements: %w", err)
	}
	return checkedStatements(b, e)
}

func checkedStatements(b Blob, in []encodedStatement) ([]Statement, error) {
	out, err := decodeStatements(b, in)
	if err != nil {
		return nil, err
	}
	for i := range out {
		if err := out[i].Check(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// DecodeStatements is ParseStatements without the signatures, for a caller that
// knows most of the statements already and checks the others itself. Order and
// range are checked.
func DecodeStatements(b Blob, raw []byte) ([]Statement, error) {
	var e []encodedStatement
	if err := Unmarshal(raw, MaxStatementBytes, &e); err != nil {
		return nil, fmt.Errorf("parse statements: %w", err)
	}
	return decodeStatements(b, e)
}
