package pieces

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// Other encodings of the same meaning, and meanings that no encoder writes.
func TestUnmarshalRefuses(t *testing.T) {
	type row struct {
		_ struct{} `cbor:",toarray"`
		N int
		B []byte
		S string
	}
	good := "8301420102616" + "1" // [1, h'0102', "a"]
	var r row
	if err := Unmarshal(unhex(t, good), 100, &r); err != nil || r.N != 1 || r.S != "a" {
		t.Fatalf("%v, %v", r, err)
	}
	for why, in := range map[string]string{
		"a number in two bytes":      "831801420102" + "6161",
		"a number in nine bytes":     "831b0000000000000001420102" + "6161",
		"a float":                    "83f93c00420102" + "6161",
		"a big number tag":           "83c24101420102" + "6161",
		"a length in two bytes":      "83015802010" + "26161",
		"indefinite bytes":           "83015f41014102ff6161",
		"indefinite text":            "83014201027f6161ff",
		"an indefinite array":        "9f0142010261" + "61ff",
		"null for bytes":             "8301f66161",
		"null for text":              "83014201" + "02f6",
		"null for a number":          "83f64201026161",
		"undefined":                  "83f74201026161",
		"null for everything":        "f6",
		"text for bytes":             "83016201026161",
		"numbers for bytes":          "830182010" + "26161",
		"bytes for text":             "83014201024161",
		"text that is not UTF-8":     "830142010261ff",
		"a row too short":            "8201420102",
		"a row too long":             "84014201026161f6",
		"a map":                      "a1014102",
		"bytes behind the end":       good + "00",
		"a cut":                      good[:len(good)-2],
		"nothing":                    "",
		"an array that is not there": "9b7fffffffffffffff",
		"bytes that are not there":   "83015b7fffffffffffffff",
		"too deep":                   "8181818181818181818181818101",
	} {
		var r row
		if err := Unmarshal(unhex(t, in), 100, &r); err == nil {
			t.Errorf("%s: %s gives %+v", why, in, r)
		}
	}
	if err := Unmarshal(unhex(t, good), len(good)/2-1, &r); err == nil {
		t.Error("over the limit and decoded")
	}
}

func TestMapsHaveOneOrder(t *testing.T) {
	var m map[string]int
	if err := Unmarshal(unhex(t, "a2616101616202"), 100, &m); err != nil || len(m) != 2 {
		t.Errorf("%v, %v", m, err)
	}
	for why, in := range map[string]string{"another order": "a2616202616101", "one key twice": "a2616101616102"} {
		if err := Unmarshal(unhex(t, in), 100, &m); err == nil {
			t.Errorf("%s: %v", why, m)
		}
	}
	if err := Unmarshal(unhex(t, "a2616202616101"), 100, &m); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("another order: %v", err)
	}
}

func TestDecodeBlob(t *testing.T) {
	g := newGolden(t)
	for _, b := range []Blob{g.files[0].Blob, g.files[1].Blob, {g.files[0].Blob.Digest, 0}, {g.files[0].Blob.Digest, MaxBlobSize}} {
		raw, err := Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		var back Blob
		if err := Unmarshal(raw, 100, &back); err != nil || back != b {
			t.Errorf("%v of %d bytes comes back as %v of %d, %v", b, b.Size, back, back.Size, err)
		}
	}
	digest := "54" + gitOfEmpty
	for why, in := range map[string]string{
		"no digest":        "824000",
		"null digest":      "82f600",
		"a short digest":   "8253" + gitOfEmpty[2:] + "00",
		"a long digest":    "825821" + sha256OfEmpty + "0000",
		"a digest in text": "827828" + hex.EncodeToString([]byte(gitOfEmpty)) + "00",
		"a negative size":  "82" + digest + "20",
		"too large":        "82" + digest + "1b0000100000000001",
		"over 63 bits":     "82" + digest + "1bffffffffffffffff",
		"one column":       "81" + digest,
		"three columns":    "83" + digest + "0000",
	} {
		var b Blob
		if err := Unmarshal(unhex(t, in), 200, &b); err == nil {
			t.Errorf("%s: %v of %d bytes", why, b, b.Size)
		}
	}
}

// An absent git id or absent states have one spelling.
func TestAbsentHasOneSpelling(t *testing.T) {
	g := newGolden(t)
	raw, err := g.outline.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	// The first file's column ends in an empty byte string before the second file.
	at := bytes.Index(raw, append([]byte{0x09, 0x40}, 0x83))
	if at < 0 {
		t.Fatalf("no empty git id in %x", raw)
	}
	raw[at+1] = 0xf6
	if _, err := ParseOutline(raw); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("null for an empty git id: %v", err)
	}

	raw, err = g.manifest.Marshal()
	if err != nil || raw[len(raw)-1] != 0x40 {
		t.Fatalf("manifest ends in %x, %v", raw[len(raw)-1], err)
	}
	raw[len(raw)-1] = 0xf6
	if _, err := ParseManifest(raw); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("null for absent borders: %v", err)
	}
	raw[len(raw)-1] = 0x40
	zeros := append(append(raw[:len(raw)-1:len(raw)-1], 0x58, 0x40), make([]byte, 64)...)
	if _, err := ParseManifest(zeros); !errors.Is(err, ErrNotCanonical) {
		t.Errorf("zeros for absent borders: %v", err)
	}
	if _, err := ParseStatements(g.files[1].Blob, []byte{0xf6}); err == nil {
		t.Error("null is a batch of statements")
	}
}

// A git file's id is its digest, and an LFS file has one of its own.
func TestOutlineRefusesOddGitIDs(t *testing.T) {
	g := newGolden(t)
	for why, ids := range map[string][2][]byte{
		"a git file with an id":          {g.files[0].OID.Bytes(), g.files[1].OID.Bytes()},
		"a git file with another id":     {g.files[1].OID.Bytes(), g.files[1].OID.Bytes()},
		"an LFS file without an id":      {nil, nil},
		"an LFS file with a sha256":      {nil, g.files[1].Blob.Digest.Bytes()},
		"an LFS file with half of an id": {nil, g.files[1].OID.Bytes()[:10]},
	} {
		e := encodedOutline{Version: outlineVersion, Repo: "org/name", Commit: gitOfEmpty}
		for i, f := range g.files {
			e.Files = append(e.Files, encodedFile{Path: f.Path, Blob: encodedBlob{Digest: f.Blob.Digest, Size: f.Blob.Size}, OID: ids[i]})
		}
		raw, err := canonical.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := ParseOutline(raw); err == nil {
			t.Errorf("%s: parsed to %+v", why, o)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	for why, change := range map[string]func(m *Manifest){
		"no proofs":                  func(m *Manifest) { m.Proofs = nil },
		"proofs of one blob only":    func(m *Manifest) { m.Proofs = m.Proofs[:1] },
		"proofs of a third blob":     func(m *Manifest) { m.Proofs = append(m.Proofs, m.Proofs[0]) },
		"proofs in another order":    func(m *Manifest) { m.Proofs[0], m.Proofs[1] = m.Proofs[1], m.Proofs[0] },
		"statements out of order":    func(m *Manifest) { s := m.Proofs[1].Statements; s[0], s[1] = s[1], s[0] },
		"one statement twice":        func(m *Manifest) { s := m.Proofs[1].Statements; s[1] = s[0] },
		"a statement behind the end": func(m *Manifest) { m.Proofs[1].Statements[1].Index = 3 },
	} {
		g := newGolden(t)
		change(&g.manifest)
		if _, err := g.manifest.Marshal(); err == nil {
			t.Errorf("%s: encoded", why)
		}
		if m, err := ParseManifest(forged(t, g)); err == nil {
			t.Errorf("%s: parsed to %+v", why, m)
		}
	}
	g := newGolden(t)
	g.manifest.Proofs[1].Statements[1].Sig[5] ^= 1
	if _, err := ParseManifest(forged(t, g)); !errors.Is(err, ErrSignature) {
		t.Errorf("a forged signature: %v", err)
	}
	for _, n := range []int{1, 32, 63, 65, 128} {
		e := encodeStatements(g.statements[:1])
		e[0].Borders = bytes.Repeat([]byte{1}, n)
		raw, err := canonical.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeStatements(g.files[1].Blob, raw); !errors.Is(err, ErrNotCanonical) {
			t.Errorf("borders of %d bytes: %v", n, err)
		}
	}
}

// forged encodes a manifest without the checks of Marshal.
func forged(t *testing.T, g golden) []byte {
	t.Helper()
	outline, err := g.manifest.Outline.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	e := encodedManifest{Version: manifestVersion, Outline: outline}
	for _, p := range g.manifest.Proofs {
		e.Proofs = append(e.Proofs, encodedProofs{Blob: p.Blob, Statements: encodeStatements(p.Statements)})
	}
	raw, err := canonical.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestOtherVersionsAreRefused(t *testing.T) {
	g := newGolden(t)
	outline, _ := g.outline.Marshal()
	manifest, _ := g.manifest.Marshal()
	for _, version := range []byte{0, 2, 0x17} {
		outline[1], manifest[1] = version, version
		if _, err := ParseOutline(outline); err == nil {
			t.Errorf("outline of version %d parsed", version)
		}
		if _, err := ParseManifest(manifest); err == nil {
			t.Errorf("manifest of version %d parsed", version)
		}
	}
}

// The largest blob has as many statements as an array may be long.
func TestManifestOfTheLargestBlobFits(t *testing.T) {
	b := Blob{Size: MaxBlobSize}
	raw := make([]byte, 0, b.Pieces()+5)
	raw = append(raw, 0x9a, 0, 0x10, 0, 0) // 2^20 zeros
	raw = append(raw, make([]byte, b.Pieces())...)
	var in []int
	if err := Unmarshal(raw, len(raw), &in); err != nil || len(in) != b.Pieces() {
		t.Errorf("%d elements, %v", len(in), err)
	}
	raw[4] = 1
	if err := Unmarshal(append(raw, 0), len(raw)+1, &in); err == nil {
		t.Error("one element more is accepted")
	}
}
