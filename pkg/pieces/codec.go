package pieces

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

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
	encodedOutline2 struct {
		_       struct{} `cbor:",toarray"`
		Version int
		Repo    string
		Commit  string
		Files   []encodedFile
		Xet     [][]byte // one for each file, empty for none
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

// An outline is version 2 when it has Xet names, and version 1 as before when it
// has none: what could be said in version 1 has its one encoding there.
const (
	outlineVersion = 1
	xetVersion     = 2
	xetArray       = 0x85 // the first byte of version 2: an array of five
)

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
	if names := xetNames(o.Files); names != nil {
		return marshalWithin(MaxOutlineBytes, encodedOutline2{Version: xetVersion, Repo: e.Repo, Commit: e.Commit, Files: e.Files, Xet: names})
	}
	return marshalWithin(MaxOutlineBytes, e)
}

// xetNames lists the Xet names of files; nil when there is none.
func xetNames(files []File) [][]byte {
	names, some := make([][]byte, len(files)), false
	for i, f := range files {
		if !f.Xet.IsZero() {
			names[i], some = f.Xet.Bytes(), true
		}
	}
	if !some {
		return nil
	}
	return names
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
	e, err := decodeOutline(b)
	if err != nil {
		return nil, fmt.Errorf("parse outline: %w", err)
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
		if e.Xet == nil || len(e.Xet[i]) == 0 {
			continue
		}
		if o.Files[i].Xet, err = digestOf(e.Xet[i]); err != nil {
			return nil, fmt.Errorf("parse outline: file %q: xet name: %w", f.Path, err)
		}
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("parse outline: %w", err)
	}
	return o, nil
}

// decodeOutline reads either version.
func decodeOutline(b []byte) (e encodedOutline2, err error) {
	if len(b) == 0 || b[0] != xetArray {
		var old encodedOutline
		if err := Unmarshal(b, MaxOutlineBytes, &old); err != nil {
			return e, err
		}
		if old.Version != outlineVersion {
			return e, fmt.Errorf("version %d, want %d or %d", old.Version, outlineVersion, xetVersion)
		}
		return encodedOutline2{Repo: old.Repo, Commit: old.Commit, Files: old.Files}, nil
	}
	if err := Unmarshal(b, MaxOutlineBytes, &e); err != nil {
		return e, err
	}
	switch {
	case e.Version != xetVersion:
		return e, fmt.Errorf("version %d, want %d", e.Version, xetVersion)
	case len(e.Xet) != len(e.Files):
		return e, fmt.Errorf("%d xet names for %d files: %w", len(e.Xet), len(e.Files), ErrBadOutline)
	case !slices.ContainsFunc(e.Xet, func(name []byte) bool { return len(name) > 0 }):
		return e, fmt.Errorf("version %d without a xet name: %w", xetVersion, ErrNotCanonical)
	}
	return e, nil
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
