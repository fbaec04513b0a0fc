package minicas_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"p2pagent/internal/minicas"
)

var made = time.Unix(1_800_000_000, 0)

func aGrant() minicas.Grant {
	return minicas.Grant{Repo: "acme/model", Commit: "1111111111111111111111111111111111111111", Caller: "hf_secret", File: "ab", Round: 7, Made: made.Unix()}
}

// A grant is read as it was written, until it expires, by the Mint that signed it.
func TestGrant(t *testing.T) {
	m := minicas.NewMint([32]byte{1})
	text := m.Seal(aGrant())
	if g, err := m.Open(text, made); err != nil || !reflect.DeepEqual(g, aGrant()) {
		t.Fatalf("%+v, %v", g, err)
	}
	if _, err := m.Open(text, made.Add(minicas.GrantLife-time.Second)); err != nil {
		t.Error(err)
	}
	if again := m.Seal(aGrant()); again == text || strings.Contains(text, "hf_secret") {
		t.Errorf("%s, %s", text, again)
	}
	for what, err := range map[string]error{
		"expired":      second(m.Open(text, made.Add(minicas.GrantLife))),
		"another mint": second(minicas.NewMint([32]byte{2}).Open(text, made)),
		"empty":        second(m.Open("", made)),
		"cut":          second(m.Open(text[:len(text)/2], made)),
	} {
		if !errors.Is(err, minicas.ErrNoGrant) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func second(_ minicas.Grant, err error) error { return err }

// What opens is what was sealed, whatever was changed about the text.
func FuzzOpenGrant(f *testing.F) {
	m := minicas.NewMint([32]byte{1})
	good := m.Seal(aGrant())
	for i := range good {
		f.Add(good[:i] + "A" + good[i+1:])
	}
	f.Fuzz(func(t *testing.T, text string) {
		if g, err := m.Open(text, made); err == nil && !reflect.DeepEqual(g, aGrant()) {
			t.Errorf("%q: %+v", text, g)
		}
	})
}
