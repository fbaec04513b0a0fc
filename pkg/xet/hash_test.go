package xet

import (
	"encoding/hex"
	"strings"
	"testing"
)

func raw(t *testing.T, s string) (h Hash) {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		t.Fatalf("%q: %v", s, err)
	}
	return Hash(b)
}

func parsed(t testing.TB, s string) Hash {
	t.Helper()
	h, err := ParseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The first pair is of draft-denis-xet, the second of xet-core's data_hash.rs.
func TestHashText(t *testing.T) {
	for plain, text := range map[string]string{
		"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f": "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918",
		"16af3a84044b83d6be998a42e20399f2cc5650eaf99950639f50418aece7954e": "d6834b04843aaf16f29903e2428a99be635099f9ea5056cc4e95e7ec8a41509f",
	} {
		h := raw(t, plain)
		if h.String() != text {
			t.Errorf("%s: got %s, want %s", plain, h, text)
		}
		if got := parsed(t, strings.ToUpper(text)); got != h {
			t.Errorf("%s: read back as %x", text, got)
		}
	}
	good := strings.Repeat("0", 64)
	for _, bad := range []string{"", good[1:], good + "0", good[1:] + "g", "+" + good[1:], good[:16] + "+" + good[17:], good[:20] + "_" + good[21:], "redacted"} {
		if _, err := ParseHash(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestChunkHash(t *testing.T) {
	if got := ChunkHash([]byte("Hello World!")).String(); got != "d8d408e608fb9ca213b9909a65d86d725f2de4d8d540324be8a363e7a6e228cb" {
		t.Error(got)
	}
}

func TestRootOfTwo(t *testing.T) {
	children := []Node{
		{parsed(t, "c28f58387a60d4aa200c311cda7c7f77f686614864f5869eadebf765d0a14a69"), 100},
		{parsed(t, "6e4e3263e073ce2c0e78cc770c361e2778db3b054b98ab65e277fc084fa70f22"), 200},
	}
	if got := Root(children).String(); got != "be64c7003ccd3cf4357364750e04c9592b3c36705dee76a71590c011766b6c14" {
		t.Error(got)
	}
	if got := Root(children[:1]); got != children[0].Hash {
		t.Errorf("one chunk: %s", got)
	}
	if !(Root(nil) == Hash{} && FileHash(nil) == Hash{}) {
		t.Error("no chunks: no zero hash")
	}
}

// Files whose names the Rust implementation computed, and one that was uploaded to
// the real Hub by its own client.
func TestWholeFiles(t *testing.T) {
	for _, test := range []struct {
		name       string
		data       []byte
		chunks     int
		xorb, file string
	}{
		{"i*7+13", ramp(200_000, 7, 13), 2,
			"f0755d96ee199d4f01e83da9fe2c38353de7fd38fb79a320a7d50be510026f74", "d88d9e0b760f32c90b7c6592b4cb85251c01bb797371e3c637087b96ac578723"},
		{"i*13+37", ramp(1_000_000, 13, 37), 8,
			"7be289d851485c40dcde52dbcf37a7823a5ef0bfcdf1ca1c5a32ad9594c71571", "041a50f3639f4a080a89237025d643e2a3e22935ca5d7dbc1a38f5c1e859f859"},
		{"on the Hub", pcg(20260925, 1<<20), 20,
			"4d0f481619ea3d1aa279c2e894319320ab68a58428ec9e6c71ac56f401d938d7", "f857c20483a87a6737b06f718d340429fc080f73c00f6d46b2030b58734a61e4"},
	} {
		chunks := chunksOf(Current, test.data)
		if len(chunks) != test.chunks || Root(chunks).String() != test.xorb || FileHash(chunks).String() != test.file {
			t.Errorf("%s: %d chunks, xorb %s, file %s", test.name, len(chunks), Root(chunks), FileHash(chunks))
		}
	}
}

func ramp(n, factor, offset int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(i*factor + offset)
	}
	return out
}
