package pieces

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrNotCanonical marks an encoding that means something but is not the one
// byte string for it.
var ErrNotCanonical = errors.New("not canonical")

var (
	canonical = must(encOptions().EncMode())
	strict    = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8,
		MaxArrayElements:  MaxBlobSize / largePiece, // statements of the largest blob
		MaxMapPairs:       64,
	}.DecMode())
)

// encOptions spells nil and empty alike, so that absent has one byte string.
func encOptions() cbor.EncOptions {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	return o
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal encodes v as canonical CBOR.
func Marshal(v any) ([]byte, error) { return canonical.Marshal(v) }

// Unmarshal decodes exactly one canonical value of at most limit bytes into v.
// Errors wrap ErrNotCanonical when v would encode to other bytes.
func Unmarshal(b []byte, limit int, v any) error {
	if len(b) > limit {
		return fmt.Errorf("decode: %d bytes, more than %d", len(b), limit)
	}
	if err := strict.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	again, err := canonical.Marshal(v)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("decode: %w", ErrNotCanonical)
	}
	return nil
}

// MarshalCBOR encodes a digest as its 20 or 32 raw bytes.
func (d Digest) MarshalCBOR() ([]byte, error) { return canonical.Marshal(d.Bytes()) }

// UnmarshalCBOR accepts a byte string of 20 or 32 bytes.
func (d *Digest) UnmarshalCBOR(b []byte) error {
	var raw []byte
	if err := strict.Unmarshal(b, &raw); err != nil {
		return err
	}
	var err error
	*d, err = digestOf(raw)
	return err
}

// The encoded forms: arrays rather than maps, so a row costs its content only.
type (
	encodedBlob struct {
		_      struct{} `cbor:",toarray"`
		Digest Digest
		Size   int64
	}
	encodedFile struct {
		_    struct{} `cbor:",toarray"`
		Path string
		Blob encodedBlob
		OID  []byte // empty for git files, where it is the digest
	}
	encodedOutline struct {
		_       struct{} `cbor:",toarray"`
		Version int
		Repo    string
		Commit  string
		Files   []encodedFile
	}
	encodedStatement struct {
		_     struct{} `cbor:",toarray"`
		Index int
		ID    ID
		Maker Maker
		Sig   [64]byte
		// The border before the piece and the one behind it, or nothing.
		Borders []byte
	}
)

const outlineVersion = 1

// MarshalCBOR encodes the blob as [digest, size].
func (b Blob) MarshalCBOR() ([]byte, error) {
	return canonical.Marshal(encodedBlob{Digest: b.Digest, Size: b.Size})
}

// UnmarshalCBOR refuses sizes below zero or over MaxBlobSize.
func (b *Blob) UnmarshalCBOR(raw []byte) error {
	var e encodedBlob
	if err := strict.Unmarshal(raw, &e); err != nil {
		return err
	}
	if e.Size < 0 || e.Size > MaxBlobSize {
		return fmt.Errorf("blob of %d bytes: %w", e.Size, ErrBadOutline)
	}
	*b = Blob{Digest: e.Digest, Size: e.Size}
	return nil
}

// Marshal encodes a valid outline canonically. It fails when that takes more
// than MaxOutlineBytes.
func (o *Outline) Marshal() ([]byte, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	e := encodedOutline{Version: outlineVersion, Repo: o.Repo.String(), Commit: string(o.Commit), Files: make([]encodedFile, len(o.Files))}
	for i, f := range o.Files {
		e.Files[i] = encodedFile{Path: f.Path, Blob: encodedBlob{Digest: f.Blob.Digest, Size: f.Blob.Size}}
		if f.LFS() {
			e.Files[i].OID = f.OID.Bytes()
		}
	}
	return marshalWithin(MaxOutlineBytes, e)
}

// marshalWithin refuses to encode what the other side would refuse to decode.
func marshalWithin(limit int, v any) ([]byte, error) {
	b, err := canonical.Marshal(v)
	if err == nil && len(b) > limit {
		return nil, fmt.Errorf("encode: %d bytes, more than %d", len(b), limit)
	}
	return b, err
}

// ParseOutline decodes and validates what Outline.Marshal made.
func ParseOutline(b []byte) (*Outline, error) {
	var e encodedOutline
	if err := Unmarshal(b, MaxOutlineBytes, &e); err != nil {
		return nil, fmt.Errorf("parse outline: %w", err)
	}
	if e.Version != outlineVersion {
		return nil, fmt.Errorf("parse outline: version %d, want %d", e.Version, outlineVersion)
	}
	repo, err := ParseRepo(e.Repo)
	if err != nil {
		return nil, fmt.Errorf("parse outline: %w", err)
	}
	o := &Outline{Repo: repo, Commit: Commit(e.Commit), Files: make([]File, len(e.Files))}
	for i, f := range e.Files {
		if o.Files[i], err = f.file(); err != nil {
			return nil, fmt.Errorf("parse outline: file %q: %w", f.Path, err)
		}
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("parse outline: %w", err)
	}
	return o, nil
}

func (e encodedFile) file() (File, error) {
	f := File{Path: e.Path, Blob: Blob{Digest: e.Blob.Digest, Size: e.Blob.Size}, OID: e.Blob.Digest}
	if f.LFS() == (len(e.OID) == 0) {
		return File{}, fmt.Errorf("git id of %d bytes: %w", len(e.OID), ErrBadOutline)
	}
	if !f.LFS() {
		return f, nil
	}
	var err error
	f.OID, err = digestOf(e.OID)
	return f, err
}
