package pieces

import (
	"errors"
	"reflect"
	"testing"
)

// named is an outline of a git file, an LFS file, and one that the store has.
func named(t testing.TB) *Outline {
	git, lfs := mustDigest(t, gitOfEmpty), mustDigest(t, sha256OfEmpty)
	other := SHA256Digest([32]byte{1})
	return &Outline{Repo: Repo{Name: "org/name"}, Commit: Commit(gitOfEmpty), Files: []File{
		{Path: "a", Blob: Blob{Digest: git}, OID: git},
		{Path: "b", Blob: Blob{Digest: lfs, Size: 1}, OID: git},
		{Path: "c", Blob: Blob{Digest: other, Size: 2}, OID: git, Xet: SHA256Digest([32]byte{9})},
	}}
}

// An outline with Xet names comes back; one without is encoded as before there were any.
func TestOutlineWithXetNames(t *testing.T) {
	o := named(t)
	raw, err := o.Marshal()
	if err != nil || raw[0] != xetArray || raw[1] != xetVersion {
		t.Fatalf("%x, %v", raw, err)
	}
	if back, err := ParseOutline(raw); err != nil || !reflect.DeepEqual(back, o) {
		t.Errorf("%+v, %v", back, err)
	}
	o.Files[2].Xet = Digest{}
	if raw, err = o.Marshal(); err != nil || raw[0] != xetArray-1 || raw[1] != outlineVersion {
		t.Errorf("%x, %v", raw, err)
	}
	o.Files[2].Xet = mustDigest(t, gitOfEmpty)
	if err := o.Validate(); !errors.Is(err, ErrBadOutline) {
		t.Errorf("a name of 20 bytes: %v", err)
	}
	o.Files[2].Xet, o.Files[0].Xet = Digest{}, SHA256Digest([32]byte{9})
	if err := o.Validate(); !errors.Is(err, ErrBadOutline) {
		t.Errorf("a name of a git file: %v", err)
	}
}

func TestXetNamesRefused(t *testing.T) {
	one := make([]byte, 32)
	for why, names := range map[string][][]byte{
		"none at all": {{}, {}, {}}, "too few": {{}, one}, "too many": {{}, {}, one, one}, "short": {{}, {}, one[1:]}, "of a git file": {one, {}, {}},
	} {
		o := named(t)
		e := encodedOutline2{Version: xetVersion, Repo: "org/name", Commit: gitOfEmpty, Xet: names}
		for _, f := range o.Files {
			row := encodedFile{Path: f.Path, Blob: encodedBlob{Digest: f.Blob.Digest, Size: f.Blob.Size}}
			if f.LFS() {
				row.OID = f.OID.Bytes()
			}
			e.Files = append(e.Files, row)
		}
		raw, err := Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseOutline(raw); err == nil {
			t.Errorf("%s: no error", why)
		}
	}
}
