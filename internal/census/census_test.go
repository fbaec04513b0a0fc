package census

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/pieces"
)

const commit = "0123456789012345678901234567890123456789"

func row() Row {
	return Row{Repo: "org/name", Commit: commit, Ref: "org/name@main", Size: 10, Held: 5, Upstream: 7}
}

func TestRows(t *testing.T) {
	want := []Row{row(), {Repo: "datasets/a/b", Commit: commit, Ref: "datasets/a/b@refs/pr/1", Size: 1, Held: 1, Ready: true}}
	raw, err := EncodeRows(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRows(raw); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	many := make([]Row, maxRows+10)
	for i := range many {
		many[i] = row()
	}
	if raw, err = EncodeRows(many); err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeRows(raw); err != nil || len(got) != maxRows {
		t.Errorf("%d rows of %d, %v", len(got), len(many), err)
	}
}

// What a member says is shown to people: it is a ref, a commit and sizes, or refused.
func TestDecodeRowsRefuses(t *testing.T) {
	for name, change := range map[string]func(*Row){
		"markup":         func(r *Row) { r.Ref = "org/<script>@main" },
		"another repo":   func(r *Row) { r.Repo = "org/other" },
		"no commit":      func(r *Row) { r.Commit = "main" },
		"negative":       func(r *Row) { r.Held = -1 },
		"huge":           func(r *Row) { r.Upstream = 1 << 60 },
		"long":           func(r *Row) { r.Ref = "org/name@" + strings.Repeat("x", 1<<16) },
		"control":        func(r *Row) { r.Ref = "org/name@a\nb" },
		"empty":          func(r *Row) { r.Ref = "" },
		"reordered text": func(r *Row) { r.Ref = "org/na\u202eme@main" },
	} {
		r := row()
		change(&r)
		raw, err := EncodeRows([]Row{r})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeRows(raw); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	tooMany, err := pieces.Marshal(slices.Repeat([]Row{row()}, maxRows+1))
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"nothing": nil, "garbage": []byte("<html>"), "too many": tooMany, "trailing": append(bytes.Clone(tooMany), 0)} {
		if got, err := DecodeRows(raw); err == nil {
			t.Errorf("%s: %d rows", name, len(got))
		}
	}
}

func TestTopics(t *testing.T) {
	id := ID("datasets/org/name", commit)
	repo, c, ok := ParseLevels(Levels(id))
	if !ok || ID(repo.String(), string(c)) != id {
		t.Errorf("%s, %s, %v", repo, c, ok)
	}
	for _, topic := range []string{"", Holdings, Levels(""), Levels("org/name"), Levels("org/name@main"), Levels("../x@" + commit)} {
		if repo, c, ok := ParseLevels(topic); ok {
			t.Errorf("%q is %s at %s", topic, repo, c)
		}
	}
}

func TestCovers(t *testing.T) {
	encode := func(c Cover) []byte {
		raw, err := EncodeCover(c)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	answers := map[string][]byte{
		"part": encode(Cover{Pieces: 4, Levels: "0099"}), "none": encode(Cover{}), "other": encode(Cover{Pieces: 3, Levels: "999"}),
		"short": encode(Cover{Pieces: 4, Levels: "99"}), "markup": encode(Cover{Pieces: 4, Levels: "9<b>"}), "negative": encode(Cover{Pieces: -1}), "garbage": []byte("x"), "silent": nil,
	}
	for _, own := range []Cover{{Pieces: 4, Levels: "1111"}, {}} {
		got, levels := Covers(own, answers)
		want := map[string]string{"part": "0099", "none": "0000"}
		if own.Pieces == 0 { // who counts as it does can't be told: one for each
			delete(answers, "other")
			got, levels = Covers(own, answers)
			own.Levels = "0000"
		}
		if got.Pieces != 4 || got.Levels != own.Levels || !maps.Equal(levels, want) {
			t.Errorf("%+v: %+v, %v", own, got, levels)
		}
	}
	if got, levels := Covers(Cover{}, nil); got.Pieces != 0 || len(levels) != 0 {
		t.Errorf("nobody knows anything: %+v, %v", got, levels)
	}
}

func TestTotals(t *testing.T) {
	whole := row()
	whole.Ready, whole.Size, whole.Upstream = true, 20, 13
	got := Totals(slices.Values([][]Row{{row()}, nil, {whole}, {row()}}))
	want := Total{Repo: "org/name", Commit: commit, Ref: "org/name@main", Ready: 1, Partly: 2, Upstream: 27, Size: 20}
	if len(got) != 1 || *got[ID("org/name", commit)] != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A survey asks while somebody looks, every five seconds at most, and what one
// member makes up harms its own row alone.
func TestSurvey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, _ := EncodeRows([]Row{row()})
		var rounds atomic.Int32
		s := NewSurvey(func(ctx context.Context, topic string) (map[string][]byte, int, error) {
			round := rounds.Add(1)
			if topic != Holdings {
				t.Errorf("asked about %s", topic)
			}
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a round without a bound")
			}
			if round == 3 {
				return nil, 0, errors.New("stopping")
			}
			return map[string][]byte{"good": rows, "bad": []byte("x")}, 3, nil
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Hour)
		if n := rounds.Load(); n != 0 {
			t.Errorf("%d rounds and nobody looked", n)
		}
		for range 10 {
			s.Look()
			time.Sleep(time.Second)
		}
		found := s.Look()
		if n := rounds.Load(); n < 2 || n > 3 || found.Asked != 3 || len(found.Rows) != 1 || len(found.Rows["good"]) != 1 {
			t.Errorf("%d rounds, found %+v", n, found)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
