package cachefs

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p2pagent/pkg/pieces"
)

func journalSample(t testing.TB) (pieces.Blob, []pieces.Statement, []byte) {
	t.Helper()
	b := pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1, 2, 3}), Size: 5<<22 + 7}
	var list []pieces.Statement
	for _, i := range []int{0, 5, 2, 3} {
		list = append(list, signer(3).State(b, i, pieces.Mark{ID: pieces.ID{byte(i)}, Before: pieces.Border{1, byte(i)}, After: pieces.Border{2, byte(i)}}))
	}
	return b, list, encodeJournal(b, 42, list)
}

func TestJournalRoundTrip(t *testing.T) {
	b, list, raw := journalSample(t)
	j, err := parseJournal(raw)
	if err != nil || j.blob != b || j.nonce != 42 || j.good != len(raw) || !slices.Equal(j.statements, list) {
		t.Errorf("%+v, %v", j, err)
	}
	git := pieces.Blob{Digest: gitFile("", nil).Blob.Digest, Size: 1 << 23}
	if j, err := parseJournal(encodeJournal(git, 1, nil)); err != nil || j.blob != git {
		t.Errorf("git digest: %+v, %v", j, err)
	}
}

// A flipped bit anywhere ends what is believed at the record that it hit; nothing
// after it counts and nothing before it is lost.
func TestJournalBitFlips(t *testing.T) {
	_, list, raw := journalSample(t)
	for bit := range len(raw) * 8 {
		bad := slices.Clone(raw)
		bad[bit/8] ^= 1 << (bit % 8)
		j, err := parseJournal(bad)
		if bit/8 < headerSize {
			if err == nil {
				t.Fatalf("bit %d of the header was ignored", bit)
			}
			continue
		}
		whole := (bit/8 - headerSize) / recordSize
		if err != nil || !slices.Equal(j.statements, list[:whole]) || j.good != headerSize+whole*recordSize {
			t.Fatalf("bit %d: %d records, %v", bit, len(j.statements), err)
		}
	}
}

func TestJournalTornTail(t *testing.T) {
	_, list, raw := journalSample(t)
	for n := range len(raw) {
		j, err := parseJournal(raw[:n])
		if n < headerSize {
			if err == nil {
				t.Fatalf("%d bytes were a header", n)
			}
			continue
		}
		if whole := (n - headerSize) / recordSize; err != nil || !slices.Equal(j.statements, list[:whole]) {
			t.Fatalf("%d bytes: %d records, %v", n, len(j.statements), err)
		}
	}
}

// A record of another blob, or of an earlier attempt at the same one, counts for
// nothing.
func TestJournalRecordsBelongToTheirHeader(t *testing.T) {
	b, list, _ := journalSample(t)
	other := encodeJournal(b, 43, list)
	mixed := append(encodeJournal(b, 42, nil), other[headerSize:]...)
	if j, err := parseJournal(mixed); err != nil || len(j.statements) != 0 {
		t.Errorf("believed %d foreign records, %v", len(j.statements), err)
	}
}

func FuzzJournal(f *testing.F) {
	b, list, raw := journalSample(f)
	f.Add(raw)
	f.Add(raw[:headerSize])
	_, seed := appendHeader(nil, journalMagic, b, 42)
	state, _ := digestRecord(3, []byte("state"))
	f.Add(appendRecord(slices.Clone(raw), seed, state))
	f.Add(encodeJournal(pieces.Blob{Digest: b.Digest}, 1, nil))
	f.Add([]byte(journalMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		j, err := parseJournal(in)
		if err != nil {
			return
		}
		if j.good < headerSize || j.good > len(in) || j.hashed > j.blob.Pieces() {
			t.Fatalf("good %d of %d, hashed %d", j.good, len(in), j.hashed)
		}
		// What was believed says the same when it is written down again.
		again, err := parseJournal(in[:j.good])
		if err != nil || again.good != j.good || !slices.Equal(again.statements, j.statements) {
			t.Fatalf("not stable: %v", err)
		}
		if j.state == nil && !bytes.Equal(encodeJournal(j.blob, j.nonce, j.statements), in[:j.good]) {
			t.Fatal("one meaning, two encodings")
		}
		if len(j.statements) > len(list)+1000 {
			return
		}
		j.partial() // must not panic, whatever the state says
	})
}

func proofSample(t testing.TB) *proof {
	t.Helper()
	b := pieces.Blob{Digest: pieces.SHA256Digest([32]byte{9}), Size: 2<<22 + 1}
	p := &proof{blob: b, places: []place{{"models--a--b", stamp{1, 2, 3}}, {"datasets--c", stamp{4, 5, -6}}}}
	for i := range b.Pieces() {
		p.statements = append(p.statements, signer(3).State(b, i, pieces.Mark{ID: pieces.ID{byte(i)}, Before: pieces.Border{1, byte(i)}, After: pieces.Border{2, byte(i)}}))
	}
	return p
}

func TestProofRoundTrip(t *testing.T) {
	p := proofSample(t)
	raw := p.encode()
	got, err := parseProof(raw)
	if err != nil || got.blob != p.blob || !slices.Equal(got.places, p.places) || !slices.Equal(got.statements, p.statements) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range raw {
		bad := slices.Clone(raw)
		bad[i] ^= 0x10
		if _, err := parseProof(bad); err == nil {
			t.Fatalf("a flipped bit in byte %d was ignored", i)
		}
		if _, err := parseProof(raw[:i]); err == nil {
			t.Fatalf("the first %d bytes were a proof", i)
		}
	}
}

// The longest name that a proof has room for is no reason to read elsewhere.
func TestProofOfALongName(t *testing.T) {
	p := proofSample(t)
	p.places[0].name = strings.Repeat("a", 1<<16-1)
	if got, err := parseProof(p.encode()); err != nil || !slices.Equal(got.places, p.places) {
		t.Error(err)
	}
}

func FuzzProof(f *testing.F) {
	f.Add(proofSample(f).encode())
	f.Add((&proof{blob: gitFile("", nil).Blob}).encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := parseProof(in)
		if err == nil && !bytes.Equal(p.encode(), in) {
			t.Fatal("one meaning, two encodings")
		}
	})
}

// rot flips a bit in a file.
func rot(t testing.TB, path string, at int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[at] ^= 4
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

// onlyFile returns the one file in a folder that a pattern matches.
func onlyFile(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}
	return found[0]
}
