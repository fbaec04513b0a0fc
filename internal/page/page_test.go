package page

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// source is what the page is shown over; the test changes it.
type source struct {
	mu     sync.Mutex // guards err and counts where a goroutine of the page runs
	view   View
	counts Counts
	holds  Map
	err    error
	asked  int
	mapped int
}

func (s *source) View(ctx context.Context) (View, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		return View{}, errors.New("asked without a bound")
	}
	s.asked++
	return s.view, s.err
}

func (s *source) Counts(context.Context) (Counts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts, s.err
}

func (s *source) set(c Counts, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts, s.err = c, err
}

func (s *source) Map(context.Context, string) (Map, error) { s.mapped++; return s.holds, s.err }

const ugly = "<script>alert(1)</script>\u202e\"'&\n"

// small is a swarm of a few members, one of them with a name that is markup.
func small() *source {
	return &source{view: View{
		Self:    Self{ID: "self", Name: ugly},
		Models:  []Model{{ID: "b", Ref: "org/b@main"}, {ID: "a", Ref: ugly, Reason: ugly, ETA: 1.25, Rate: 123456}},
		Members: []Member{{ID: "2", Name: "two"}, {ID: "1", Name: ugly, Fault: ugly, Banned: ugly, Rate: 987654}},
	}}
}

func get(p *Page, path string, header ...string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	p.ServeHTTP(w, r)
	return w
}

type shown struct {
	Epoch, Version uint64
	Full           bool
	Self           Self
	Models         []Model
	Members        []Member
	GoneModels     []string `json:"gone_models"`
	GoneMembers    []string `json:"gone_members"`
	Hidden         hidden
	Samples        [][4]int64
}

func ask(t *testing.T, p *Page, have shown) shown {
	t.Helper()
	w := get(p, fmt.Sprintf("/page/state?epoch=%d&since=%d", have.Epoch, have.Version))
	var out shown
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		t.Fatalf("%d, %v: %s", w.Code, err, w.Body)
	}
	return out
}

// Every text arrives as it is, in JSON that no parser of HTML takes for markup, and
// rows are in the order of their ids.
func TestStateIsSortedAndHarmless(t *testing.T) {
	p := New(small())
	w := get(p, "/page/state")
	if body := w.Body.String(); strings.ContainsAny(body, "<>&\u2028") || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s: %s", w.Header().Get("Content-Type"), body)
	}
	s := ask(t, p, shown{})
	if !s.Full || s.Self.Name != ugly || len(s.Models) != 2 || s.Models[0].Ref != ugly || s.Models[1].ID != "b" || s.Members[0].Banned != ugly || s.Members[1].Name != "two" {
		t.Errorf("%+v", s)
	}
	if s.Members[0].Rate != 990_000 || s.Models[0].Rate != 120_000 || s.Models[0].ETA != 1 {
		t.Errorf("rates tremble: %+v", s)
	}
	if again := get(p, "/page/state"); again.Body.String() != w.Body.String() {
		t.Errorf("not stable:\n%s\n%s", w.Body, again.Body)
	}
}

// A viewer gets what changed since it asked; one of another process, and one that
// makes a version up, gets everything.
func TestStateHasWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := small()
		p := New(src)
		first := ask(t, p, shown{})
		same := ask(t, p, first)
		if same.Full || len(same.Models)+len(same.Members) != 0 || src.asked != 1 {
			t.Errorf("nothing is new: %+v, asked %d times", same, src.asked)
		}
		src.view.Members = []Member{{ID: "2", Name: "two", In: 5}, {ID: "3", Name: "three"}}
		src.view.Models = src.view.Models[:1]
		time.Sleep(refreshEvery)
		next := ask(t, p, first)
		if next.Full || len(next.Models) != 0 || len(next.Members) != 2 || !slices.Equal(next.GoneMembers, []string{"1"}) || !slices.Equal(next.GoneModels, []string{"a"}) {
			t.Errorf("new: %+v", next)
		}
		src.view.Members = append(src.view.Members, Member{ID: "1", Name: "back"})
		time.Sleep(refreshEvery)
		if back := ask(t, p, next); len(back.GoneMembers) != 0 || len(back.Members) != 1 || back.Members[0].Name != "back" {
			t.Errorf("back: %+v", back)
		}
		for _, have := range []shown{{}, {Epoch: first.Epoch + 1, Version: 1}, {Epoch: first.Epoch, Version: 99}} {
			if s := ask(t, p, have); !s.Full || len(s.Members) != 3 {
				t.Errorf("%+v gets %+v", have, s)
			}
		}
	})
}

// Many viewers cost the agent one look a second, whatever they know.
func TestManyViewersAreCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := small()
		src.holds = Map{Pieces: 2, Cells: 2, Strips: []Strip{{ID: "1", Name: ugly, Levels: "09"}}}
		p := New(src)
		for range 10 {
			for i := range 100 {
				ask(t, p, shown{Epoch: p.board.epoch, Version: uint64(i % 3)})
				if w := get(p, "/page/map?model=a"); w.Code != 200 {
					t.Fatal(w.Code, w.Body)
				}
			}
			time.Sleep(refreshEvery)
		}
		if src.asked != 10 || src.mapped > 10 {
			t.Errorf("asked %d times, for maps %d times", src.asked, src.mapped)
		}
		if n := len(p.board.answers); n > maxKept {
			t.Errorf("%d answers kept", n)
		}
	})
}

// A swarm larger than any, with texts longer than any, makes an answer of bounded
// size that counts what it leaves out; of 1,000 members it is small.
func TestStateIsBounded(t *testing.T) {
	src := &source{}
	for i := range 10 * maxMembers {
		src.view.Members = append(src.view.Members, Member{ID: fmt.Sprintf("%012d", i), Name: strings.Repeat("é<", 2000)})
		src.view.Models = append(src.view.Models, Model{ID: fmt.Sprintf("org/%d", i), Ref: strings.Repeat("x", 5000)})
		src.holds.Strips = append(src.holds.Strips, Strip{ID: fmt.Sprint(i), Levels: strings.Repeat("9", MaxCells)})
	}
	src.holds.Cells = MaxCells
	p := New(src)
	s := ask(t, p, shown{})
	if len(s.Members) != maxMembers || len(s.Models) != maxModels || s.Hidden.Members != 9*maxMembers || s.Hidden.Models != 10*maxMembers-maxModels || len(s.Members[0].Name) > maxName {
		t.Errorf("%d members, %d models, hidden %+v", len(s.Members), len(s.Models), s.Hidden)
	}
	if w := get(p, "/page/map?model=org/0"); w.Code != 200 || w.Body.Len() > maxMembers*(MaxCells+64) {
		t.Errorf("map: %d, %d bytes", w.Code, w.Body.Len())
	}

	src.view = View{}
	for i := range 1000 {
		src.view.Members = append(src.view.Members, Member{ID: fmt.Sprintf("%012x", i*7919), Name: fmt.Sprintf("gpu-%d", i), Near: i%4 == 0})
	}
	w := get(New(src), "/page/state", "Accept-Encoding", "gzip")
	if w.Header().Get("Content-Encoding") != "gzip" || w.Body.Len() > 20_000 {
		t.Errorf("1,000 members are %d bytes", w.Body.Len())
	}
	z, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(z); err != nil || !json.Valid(raw) {
		t.Errorf("%v: %.100s", err, raw)
	}
}

// Who holds what is told of models that the page shows, and of no other; strips
// that do not fit the rest are left out.
func TestMap(t *testing.T) {
	src := small()
	src.holds = Map{Pieces: 7, Cells: 2, Strips: []Strip{{ID: "1", Name: ugly, Levels: "09"}, {ID: "2", Name: "two", Levels: "099"}}}
	p := New(src)
	ask(t, p, shown{})
	var got mapAnswer
	w := get(p, "/page/map?model=a")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Pieces != 7 || len(got.Strips) != 1 || got.Strips[0] != [3]string{"1", ugly, "09"} {
		t.Errorf("%v: %s", err, w.Body)
	}
	for _, path := range []string{"/page/map", "/page/map?model=c", "/page/map?model=../a"} {
		if w := get(p, path); w.Code != 404 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if src.mapped != 1 {
		t.Errorf("asked %d times", src.mapped)
	}
}

func TestSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := small()
		p := New(src)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		first := ask(t, p, shown{})
		src.set(Counts{Upstream: 500, In: 1000, Out: 50}, nil)
		time.Sleep(sampleEvery + time.Second)
		if s := ask(t, p, first); len(s.Samples) != 1 || [3]int64(s.Samples[0][1:]) != [3]int64{100, 200, 10} {
			t.Errorf("samples %v", s.Samples)
		}
		src.set(src.counts, errors.New("stopping"))
		time.Sleep(2 * sampleEvery)
		src.set(src.counts, nil)
		time.Sleep(time.Hour)
		if s := ask(t, p, shown{}); len(s.Samples) != maxSamples {
			t.Errorf("%d samples", len(s.Samples))
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The page is whole: what it names is there, comes from itself, and may do nothing
// but what it needs.
func TestFiles(t *testing.T) {
	p := New(small())
	total := 0
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page/page.css": "text/css; charset=utf-8", "/page/page.js": "text/javascript; charset=utf-8",
		"/page/draw.js": "text/javascript; charset=utf-8", "/page/text.js": "text/javascript; charset=utf-8", "/page/icon.svg": "image/svg+xml",
	} {
		w := get(p, path, "Accept-Encoding", "gzip")
		total += w.Body.Len()
		if w.Code != 200 || w.Header().Get("Content-Type") != kind || !strings.HasPrefix(w.Header().Get("Content-Security-Policy"), "default-src 'self'; ") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		raw := get(p, path).Body.String()
		for _, bad := range []string{"http://", "https://", "innerHTML", " style=", "eval("} {
			if strings.Contains(strings.ReplaceAll(raw, "http://www.w3.org/2000/svg", ""), bad) {
				t.Errorf("%s has %s", path, bad)
			}
		}
		if w := get(p, path, "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s again: %d", path, w.Code)
		}
	}
	if total > 40_000 {
		t.Errorf("the page is %d bytes", total)
	}
	for _, path := range []string{"/page", "/page/", "/page/static/page.js", "/page/../page.go", "/etc/passwd", "/page/%2e%2e/%2e%2e/etc/passwd"} {
		if w := get(p, path); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestAnAgentThatDoesNotAnswer(t *testing.T) {
	src := small()
	src.err = errors.New("stopping")
	if w := get(New(src), "/page/state"); w.Code != 503 || w.Body.String() != "stopping\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRound(t *testing.T) {
	for in, want := range map[int64]int64{0: 0, 7: 7, 99: 99, 994: 990, 995: 1000, 123456: 120000, 1<<62 - 1: 4600000000000000000} {
		if got := round(in); got != want {
			t.Errorf("%d: %d, want %d", in, got, want)
		}
	}
}
