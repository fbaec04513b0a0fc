package size_test

import (
	"testing"

	"p2pagent/scripts/internal/size"
)

func TestBytes(t *testing.T) {
	for text, want := range map[string]size.Bytes{"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "512MiB": 512 << 20, "8GiB": 8 << 30, "1TiB": 1 << 40} {
		var got size.Bytes
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v; want %d", text, got, err, want)
		}
		var back size.Bytes
		if err := back.Set(want.String()); err != nil || back != want {
			t.Errorf("%s printed as %s, read as %d, %v", text, want, back, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "1MB", "9999999TiB", "1.5GiB"} {
		var b size.Bytes
		if err := b.Set(text); err == nil {
			t.Errorf("%q was read as %d", text, b)
		}
	}
}
