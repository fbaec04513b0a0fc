package pieces

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

func TestStatementCheck(t *testing.T) {
	g := newGolden(t)
	good := g.statements[1]
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	other := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32))).Maker()
	for why, change := range map[string]func(s *Statement){
		"another piece":       func(s *Statement) { s.Index = 0 },
		"another id":          func(s *Statement) { s.ID[31] ^= 1 },
		"another blob":        func(s *Statement) { s.Blob.Digest = mustDigest(t, sha256OfEmpty) },
		"another size":        func(s *Statement) { s.Blob.Size++ },
		"a git digest":        func(s *Statement) { s.Blob.Digest.size = 20 },
		"another maker":       func(s *Statement) { s.Maker = other },
		"no maker":            func(s *Statement) { s.Maker = Maker{} },
		"a flipped signature": func(s *Statement) { s.Sig[0] ^= 1 },
		"no signature":        func(s *Statement) { s.Sig = [64]byte{} },
	} {
		s := good
		change(&s)
		if err := s.Check(); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", why, err)
		}
	}
	for why, change := range map[string]func(s *Statement){
		"a piece behind the end":  func(s *Statement) { s.Index = 3 },
		"a piece before the blob": func(s *Statement) { s.Index = -1 },
		"a negative size":         func(s *Statement) { s.Blob.Size = -1 },
		"an empty blob":           func(s *Statement) { s.Blob.Size, s.Index = 0, 0 },
		"a size over the limit":   func(s *Statement) { s.Blob.Size = MaxBlobSize + 1 },
		"another first border":    func(s *Statement) { s.Index, s.Before = 0, Border{1} },
		"a border after the last": func(s *Statement) { s.Index, s.After = 2, Border{1} },
		"borders in a git blob": func(s *Statement) {
			s.Blob.Digest, s.Before, s.After = gitDigest(nil), FirstBorder(), Border{1}
		},
	} {
		s := good
		change(&s)
		s = testSigner().State(s.Blob, s.Index, s.Mark) // the maker itself lies
		if err := s.Check(); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// A signature under one context never counts under another.
func TestSignContextsAreApart(t *testing.T) {
	s, message := testSigner(), []byte("message")
	sig := s.Sign("record v1", message)
	if err := s.Maker().CheckSign("record v1", message, sig); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		s.Maker().CheckSign("record v2", message, sig),
		s.Maker().CheckSign("record v1", append(message, 0), sig),
		s.Maker().CheckSign("record v1", message, append(slices.Clone(sig), 0)),
		s.Maker().CheckSign("record v1", message, nil),
		Maker{}.CheckSign("record v1", message, sig),
	} {
		if !errors.Is(err, ErrSignature) {
			t.Errorf("error is %v", err)
		}
	}
	for _, context := range []string{"statement v1", "record\x00v1", "\x00"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("signed under context %q", context)
				}
			}()
			s.Sign(context, message)
		}()
	}
}

func TestParseID(t *testing.T) {
	id := IDOf([]byte("x"))
	if back, err := ParseID(id.CID()); err != nil || back != id {
		t.Errorf("ParseID(%s) = %s, %v", id, back, err)
	}
	sum := func(code uint64, length int) multihash.Multihash {
		mh, err := multihash.Sum([]byte("x"), code, length)
		if err != nil {
			t.Fatal(err)
		}
		return mh
	}
	for why, c := range map[string]cid.Cid{
		"none":                     cid.Undef,
		"version 0":                cid.NewCidV0(sum(multihash.SHA2_256, -1)),
		"another codec":            cid.NewCidV1(cid.DagCBOR, sum(multihash.SHA2_256, -1)),
		"sha1":                     cid.NewCidV1(cid.Raw, sum(multihash.SHA1, -1)),
		"sha2-512":                 cid.NewCidV1(cid.Raw, sum(multihash.SHA2_512, -1)),
		"32 bytes of another hash": cid.NewCidV1(cid.Raw, sum(multihash.SHA2_512, 32)),
		"cut short":                cid.NewCidV1(cid.Raw, sum(multihash.SHA2_256, 20)),
		"identity":                 cid.NewCidV1(cid.Raw, sum(multihash.IDENTITY, -1)),
	} {
		if id, err := ParseID(c); err == nil {
			t.Errorf("%s: ParseID gives %s", why, id)
		}
	}
}

func TestStatementBatchLimits(t *testing.T) {
	b := blobNumber(1, 1<<40)
	var in []Statement
	for i := range 1800 { // 141 bytes each
		in = append(in, Statement{Blob: b, Index: i * 30})
	}
	raw, err := MarshalStatements(in)
	if err != nil || len(raw) > MaxStatementBytes {
		t.Fatalf("1,800 statements are %d bytes, %v", len(raw), err)
	}
	if out, err := DecodeStatements(b, raw); err != nil || !slices.Equal(out, in) {
		t.Errorf("decoded %d statements, %v", len(out), err)
	}
	if _, err := ParseStatements(b, raw); !errors.Is(err, ErrSignature) {
		t.Errorf("unsigned statements: %v", err)
	}
	for i := range 100 {
		in = append(in, Statement{Blob: b, Index: 60_000 + i})
	}
	if raw, err := MarshalStatements(in); err == nil {
		t.Errorf("1,900 statements are %d bytes", len(raw))
	}
}

func TestStatementBatchesHaveOneOrder(t *testing.T) {
	g := newGolden(t)
	b, s := g.files[1].Blob, g.statements
	behind := s[2]
	behind.Index = 3
	before := s[0]
	before.Index = -1
	foreign := s[2]
	foreign.Blob = g.files[0].Blob
	for why, in := range map[string][]Statement{
		"descending": {s[1], s[0]}, "twice": {s[0], s[0]}, "behind the end": {s[0], behind}, "before the blob": {before, s[0]}, "another blob": {s[0], foreign},
	} {
		if raw, err := MarshalStatements(in); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: encoded to %x, %v", why, raw, err)
		}
		if why == "another blob" { // which the encoding leaves out
			continue
		}
		raw, err := canonical.Marshal(encodeStatements(in)) // as a liar would
		if err != nil {
			t.Fatal(err)
		}
		if out, err := DecodeStatements(b, raw); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("%s: decoded to %v, %v", why, out, err)
		}
	}
	raw, err := MarshalStatements(nil)
	if out, err2 := ParseStatements(b, raw); err != nil || err2 != nil || len(out) != 0 {
		t.Errorf("none: %v, %v, %v", out, err, err2)
	}
}
