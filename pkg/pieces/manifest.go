package pieces

import (
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multicodec"
	"github.com/multiformats/go-multihash"
)

// Proofs are the statements known about one blob.
type Proofs struct {
	Blob       Blob
	Statements []Statement // ascending by Index, one for each piece at most
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

// MaxManifestBytes bounds an encoded manifest: 10^6 pieces at 210 bytes each.
const MaxManifestBytes = 256 << 20

type (
	encodedProofs struct {
		_          struct{} `cbor:",toarray"`
		Blob       Blob
		Statements []encodedStatement
	}
	encodedManifest struct {
		_       struct{} `cbor:",toarray"`
		Version int
		Outline []byte
		Proofs  []encodedProofs
	}
)

const manifestVersion = 1

// Marshal encodes the manifest canonically. It fails when ParseManifest would
// refuse the result for anything but a signature.
func (m *Manifest) Marshal() ([]byte, error) {
	outline, err := m.Outline.Marshal()
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	e := encodedManifest{Version: manifestVersion, Outline: outline, Proofs: make([]encodedProofs, len(m.Proofs))}
	for i, p := range m.Proofs {
		e.Proofs[i] = encodedProofs{Blob: p.Blob, Statements: encodeStatements(p.Statements)}
	}
	return marshalWithin(MaxManifestBytes, e)
}

// check refuses proofs that don't belong to the outline.
func (m *Manifest) check() error {
	blobs := Blobs(m.Outline.Files)
	if len(m.Proofs) != len(blobs) {
		return fmt.Errorf("proofs for %d of %d blobs", len(m.Proofs), len(blobs))
	}
	for i, p := range m.Proofs {
		if p.Blob != blobs[i] {
			return fmt.Errorf("proofs for %s where %s belongs", p.Blob, blobs[i])
		}
		if err := checkOrder(p.Blob, p.Statements); err != nil {
			return err
		}
	}
	return nil
}

// checkOrder wants statements on pieces of b, ascending by index.
func checkOrder(b Blob, in []Statement) error {
	last := -1
	for _, s := range in {
		if s.Blob != b || s.Index <= last || s.Index >= b.Pieces() {
			return fmt.Errorf("statements of %s out of order or range at %d: %w", b, s.Index, ErrNotCanonical)
		}
		last = s.Index
	}
	return nil
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
	m := &Manifest{Outline: *o, Proofs: make([]Proofs, len(e.Proofs))}
	for i, p := range e.Proofs {
		statements, err := statementsOf(p.Blob, p.Statements)
		if err != nil {
			return nil, fmt.Errorf("parse manifest: %w", err)
		}
		m.Proofs[i] = Proofs{Blob: p.Blob, Statements: statements}
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	for _, p := range m.Proofs {
		if err := checkSignatures(p.Statements); err != nil {
			return nil, fmt.Errorf("parse manifest: %w", err)
		}
	}
	return m, nil
}

func encodeStatements(in []Statement) []encodedStatement {
	out := make([]encodedStatement, len(in))
	for i, s := range in {
		out[i] = encodedStatement{Index: s.Index, ID: s.ID, Maker: s.Maker, Sig: s.Sig}
		if s.Bordered() {
			out[i].Borders = slices.Concat(s.Before[:], s.After[:])
		}
	}
	return out
}

func statementsOf(b Blob, in []encodedStatement) ([]Statement, error) {
	out := make([]Statement, len(in))
	for i, e := range in {
		out[i] = Statement{Blob: b, Index: e.Index, Mark: Mark{ID: e.ID}, Maker: e.Maker, Sig: e.Sig}
		if len(e.Borders) == 0 {
			continue
		}
		if len(e.Borders) != 2*len(Border{}) || allZero(e.Borders) {
			return nil, fmt.Errorf("borders of piece %d of %s: %w", e.Index, b, ErrNotCanonical)
		}
		out[i].Before, out[i].After = Border(e.Borders[:len(Border{})]), Border(e.Borders[len(Border{}):])
	}
	return out, nil
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

func checkSignatures(in []Statement) error {
	for i := range in {
		if err := in[i].Check(); err != nil {
			return err
		}
	}
	return nil
}

// MaxStatementBytes bounds one batch of statements between members.
const MaxStatementBytes = 256 << 10

// MarshalStatements encodes statements on pieces of one blob, ascending by
// Index, as they travel between members. It fails when DecodeStatements would
// refuse the result.
func MarshalStatements(in []Statement) ([]byte, error) {
	if len(in) > 0 {
		if err := checkOrder(in[0].Blob, in); err != nil {
			return nil, fmt.Errorf("encode statements: %w", err)
		}
	}
	return marshalWithin(MaxStatementBytes, encodeStatements(in))
}

// ParseStatements decodes a batch on pieces of b and checks order, range and
// every signature.
func ParseStatements(b Blob, raw []byte) ([]Statement, error) {
	out, err := DecodeStatements(b, raw)
	if err != nil {
		return nil, err
	}
	if err := checkSignatures(out); err != nil {
		return nil, fmt.Errorf("parse statements: %w", err)
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
	out, err := statementsOf(b, e)
	if err == nil {
		err = checkOrder(b, out)
	}
	if err != nil {
		return nil, fmt.Errorf("parse statements: %w", err)
	}
	return out, nil
}
