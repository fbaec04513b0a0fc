package pieces

import (
	"bytes"
	"strings"
	"testing"
)

// What a decoder accepts has to encode to the very bytes it came from, or two
// byte strings would mean one thing and a hash over them nothing.

func FuzzParseOutline(f *testing.F) {
	f.Add(unhex(f, vectors(f)["outline"]))
	f.Fuzz(func(t *testing.T, in []byte) {
		o, err := ParseOutline(in)
		if err != nil {
			return
		}
		if err := o.Validate(); err != nil {
			t.Errorf("parsed but not valid: %v", err)
		}
		if out, err := o.Marshal(); err != nil || !bytes.Equal(out, in) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	raw := unhex(f, vectors(f)["manifest"])
	f.Add(raw)
	withBorders := append(raw[:len(raw)-1:len(raw)-1], 0x58, 64) // in the place of none
	f.Add(append(withBorders, bytes.Repeat([]byte{1}, 64)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseManifest(in)
		if err != nil {
			return
		}
		if out, err := m.Marshal(); err != nil || !bytes.Equal(out, in) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
		for _, p := range m.Proofs {
			for _, s := range p.Statements {
				if err := s.Check(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func FuzzParseStatements(f *testing.F) {
	v := vectors(f)
	b := Blob{Digest: mustDigest(f, v["weights-digest"]), Size: 2*smallPiece + 5}
	f.Add(unhex(f, v["statements"]))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, in []byte) {
		decoded, err := DecodeStatements(b, in)
		parsed, parseErr := ParseStatements(b, in)
		if err != nil {
			if parseErr == nil {
				t.Errorf("%x is parsed but not decoded: %v", in, err)
			}
			return
		}
		if out, err := MarshalStatements(decoded); err != nil || !bytes.Equal(out, in) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
		if parseErr == nil && len(parsed) != len(decoded) {
			t.Errorf("%d statements parsed, %d decoded", len(parsed), len(decoded))
		}
	})
}

func FuzzDecodeBlob(f *testing.F) {
	for _, digest := range []string{sha256OfEmpty, gitOfEmpty} {
		raw, err := Marshal(Blob{Digest: mustDigest(f, digest), Size: 1 << 30})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var b Blob
		if Unmarshal(in, 1<<10, &b) != nil {
			return
		}
		if b.Digest.IsZero() || b.Size < 0 || b.Size > MaxBlobSize {
			t.Errorf("%x gives %s of %d bytes", in, b, b.Size)
		}
		if out, err := Marshal(b); err != nil || !bytes.Equal(out, in) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
	})
}

func FuzzParseSet(f *testing.F) {
	for _, s := range []string{"", "\x00\x01", "\x00\x03", "\x01\x01\x02\x05\x01", "\xac\x02\x02", "\x03", "\x00\x00"} {
		f.Add(uint16(1000), []byte(s))
	}
	f.Fuzz(func(t *testing.T, n uint16, in []byte) {
		s, err := ParseSet(int(n), in)
		if err != nil {
			return
		}
		if s.Len() != int(n) || s.Count() != len(collect(s.All())) {
			t.Errorf("%x of %d: %d of %d", in, n, s.Count(), s.Len())
		}
		if out, err := s.MarshalBinary(); err != nil || !bytes.Equal(out, in) {
			t.Errorf("%x encodes to %x, %v", in, out, err)
		}
	})
}

func FuzzParseRef(f *testing.F) {
	for _, s := range append([]string{"org/name", "hf://datasets/org/name@refs/pr/7", "models/x@main"}, uglyRefs...) {
		if len(s) < 1000 {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		ref, err := ParseRef(in)
		if err != nil {
			return
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("%q is %q, which is %q, %v", in, ref, again, err)
		}
		if repo, err := ParseFolder(ref.Repo.Folder()); err != nil || repo != ref.Repo {
			t.Errorf("%q lies in %q, which is %q, %v", in, ref.Repo.Folder(), repo, err)
		}
		if CheckPath(ref.Repo.Folder()) != nil || strings.Contains(ref.Repo.Folder(), "/") || CheckPath(ref.Revision) != nil {
			t.Errorf("%q: unsafe names %q, %q", in, ref.Repo.Folder(), ref.Revision)
		}
	})
}

func FuzzParseFolder(f *testing.F) {
	for _, s := range []string{"models--org--name", "datasets--x", "models--datasets--x", "models--a----b", ".locks"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if repo, err := ParseFolder(in); err == nil && repo.Folder() != in {
			t.Errorf("%q is %q, whose folder is %q", in, repo, repo.Folder())
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	f.Add(sha256OfEmpty)
	f.Add(gitOfEmpty)
	f.Fuzz(func(t *testing.T, in string) {
		if d, err := ParseDigest(in); err == nil && d.String() != in {
			t.Errorf("%q prints as %q", in, d)
		}
	})
}

func FuzzCheckPath(f *testing.F) {
	for _, p := range append(corpus(f, "hostile-paths.txt"), corpus(f, "ordinary-paths.txt")...) {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if CheckPath(in) != nil {
			return
		}
		for segment := range strings.SplitSeq(in, "/") {
			if segment == "" || segment == "." || segment == ".." || len(segment) > 255 || strings.ContainsAny(segment, "\x00\\\n") {
				t.Errorf("%q is accepted", in)
			}
		}
	})
}
