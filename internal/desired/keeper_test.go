package desired

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"p2pagent/pkg/pieces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is where models come from: it counts who asked when.
type world struct {
	mu    sync.Mutex
	asked map[string][]time.Duration // since the start
	fails map[string]error
	slow  map[string]time.Duration
	now   int // fetches that run
	most  int
	start time.Time
}

func newWorld() *world {
	return &world{asked: map[string][]time.Duration{}, fails: map[string]error{}, slow: map[string]time.Duration{}, start: time.Now()}
}

var errGated = errors.New("gated")

func (w *world) fetch(ctx context.Context, m Model, told func(Progress)) (pieces.Commit, error) {
	ref := m.Ref.String()
	w.mu.Lock()
	w.asked[ref] = append(w.asked[ref], time.Since(w.start))
	err, slow := w.fails[ref], w.slow[ref]
	w.now++
	w.most = max(w.most, w.now)
	w.mu.Unlock()
	defer func() { w.mu.Lock(); w.now--; w.mu.Unlock() }()
	told(Progress{Doing: "fetching", Total: 10, Completed: 5})
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", err
	}
	return pieces.Commit(strings.Repeat("a", 40)), nil
}

func (w *world) times(ref string) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked[ref])
}

// atMost is how many fetches ever ran at the same time.
func (w *world) atMost() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most
}

func (w *world) fail(ref string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails[ref] = err
}

func model(t *testing.T, ref string) Model {
	t.Helper()
	r, err := pieces.ParseRef(ref)
	if err != nil {
		t.Fatal(err)
	}
	return Model{Ref: r}
}

// inWorld runs test with a keeper in virtual time.
func inWorld(t *testing.T, nb Notebook, test func(t *testing.T, w *world, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		k, err := New(Options{Fetch: w.fetch, Notebook: nb, Kind: func(err error) (string, bool) { return "x", errors.Is(err, errGated) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() {
			if err := k.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		test(t, w, k)
		cancel()
		run.Wait()
	})
}

func phases(k *Keeper) string {
	var out []string
	for _, s := range k.States() {
		out = append(out, fmt.Sprintf("%s %s", s.Ref, s.Phase))
	}
	return strings.Join(out, ", ")
}

// F07: of the models that a node should have, some can't be had.
//
// They hold up no other. What fails is tried again after five seconds, then less and less often up to every
// five minutes; what will fail again, because it is gated or there is no room, about every ten minutes. The reason is told
// until it is here.
func TestF07FailuresDoNotBlock(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, k *Keeper) {
		w.fails["org/gated@main"], w.fails["org/flaky@main"] = errGated, errors.New("reset")
		k.Set([]Model{model(t, "org/gated"), model(t, "org/flaky"), model(t, "org/good")})
		synctest.Wait()
		if got := phases(k); got != "org/flaky@main failed, org/gated@main failed, org/good@main here" {
			t.Error(got)
		}
		s := k.States()[1]
		if s.Reason != "gated" || s.Kind != "x" || s.Tries != 1 || time.Until(s.Again) < 8*time.Minute {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		if n := len(w.times("org/gated@main")); n < 5 || n > 8 {
			t.Errorf("asked %d times in an hour for what stays as it is", n)
		}
		if at := w.times("org/flaky@main"); len(at) < 15 || len(at) > 25 || at[1] < 4*time.Second || at[1] > 6*time.Second {
			t.Errorf("asked at %v", at)
		}
		if n := len(w.times("org/good@main")); n != 1 {
			t.Errorf("asked %d times for what is here", n)
		}
		w.fail("org/flaky@main", nil)
		time.Sleep(6 * time.Minute)
		if s := k.States()[0]; s.Phase != Here || s.Tries != 0 || s.Reason != "" || s.Completed != 10 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSet(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, k *Keeper) {
		a, b, c := model(t, "org/a"), model(t, "org/b"), model(t, "org/c")
		w.slow["org/b@main"] = time.Hour
		k.Set([]Model{a, b})
		synctest.Wait()
		if got := phases(k); got != "org/a@main here, org/b@main fetching" {
			t.Error(got)
		}
		a.Pin = true
		got := k.Set([]Model{a, c})
		if fmt.Sprint(got) != "{[org/c@main] [org/b@main] [org/a@main] []}" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if got := phases(k); got != "org/a@main here, org/c@main here" || w.now != 0 {
			t.Errorf("%s, %d running", got, w.now)
		}
		// Read again, a branch is looked up again.
		if got := k.Set([]Model{a, c}); fmt.Sprint(got) != "{[] [] [] [org/a@main org/c@main]}" {
			t.Errorf("%+v", got)
		}
		synctest.Wait()
		if n := len(w.times("org/c@main")); n != 2 {
			t.Errorf("asked %d times", n)
		}
		// What somebody removes is not here any more, until the list is read again.
		k.Removed(c.Ref.Repo, pieces.Commit(strings.Repeat("a", 40)))
		if got := phases(k); got != "org/a@main here, org/c@main gone" {
			t.Error(got)
		}
		k.Set([]Model{a, c})
		synctest.Wait()
		if got := phases(k); got != "org/a@main here, org/c@main here" {
			t.Error(got)
		}
	})
}

func TestAFewAtOnce(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, k *Keeper) {
		var all []Model
		for i := range 20 {
			m := model(t, fmt.Sprintf("org/m%02d", i))
			w.slow[m.Ref.String()] = time.Minute
			all = append(all, m)
		}
		k.Set(all)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if got, most := phases(k), w.atMost(); most != atOnce || strings.Count(got, "here") != atOnce {
			t.Errorf("%d at once: %s", most, got)
		}
		time.Sleep(time.Hour)
		if got := phases(k); strings.Count(got, "here") != 20 {
			t.Error(got)
		}
	})
}

// Members that started at different times look a branch up in the same moment.
func TestRefreshIsAligned(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, k *Keeper) {
		time.Sleep(rand.N(2 * time.Hour))
		began := time.Since(w.start)
		m, fixed := model(t, "org/a"), model(t, "org/a@"+strings.Repeat("b", 40))
		m.Refresh = time.Hour
		k.Set([]Model{m, fixed})
		time.Sleep(3 * time.Hour)
		at := w.times("org/a@main")
		if len(at) != 4 || at[0] != began {
			t.Fatalf("asked at %v", at)
		}
		for _, d := range at[1:] {
			if r := w.start.Add(d); !r.Equal(r.Truncate(time.Hour)) {
				t.Errorf("asked at %v", r)
			}
		}
		if n := len(w.times(fixed.Ref.String())); n != 1 {
			t.Errorf("a commit was asked for %d times", n)
		}
	})
}

// notebook fails when it is told to.
type notebook struct {
	raw  []byte
	full bool
}

func (n *notebook) Load() ([]byte, error) { return n.raw, nil }

func (n *notebook) Save(raw []byte) error {
	if n.full {
		return errors.New("no space")
	}
	n.raw = raw
	return nil
}

// What a rollout told stands over restarts, and comes before the configuration.
func TestRollouts(t *testing.T) {
	nb := &notebook{}
	order := model(t, "org/a")
	order.Commit, order.Pin, order.Include = pieces.Commit(strings.Repeat("c", 40)), true, []string{"*.json"}
	inWorld(t, nb, func(t *testing.T, w *world, k *Keeper) {
		k.Set([]Model{model(t, "org/a"), model(t, "org/b")})
		synctest.Wait()
		for range 2 { // told twice, it is done once
			if err := k.Add(order); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if s := k.States()[0]; s.From != FromRollout || s.Phase != Here || !s.Pin || len(w.times("org/a@main")) != 2 {
			t.Errorf("%+v, asked %v", s, w.times("org/a@main"))
		}
		nb.full = true
		if err := k.Add(model(t, "org/z")); err == nil || strings.Contains(phases(k), "org/z") {
			t.Errorf("what was not written down: %v, %s", err, phases(k))
		}
		nb.full = false
	})
	inWorld(t, nb, func(t *testing.T, w *world, k *Keeper) {
		synctest.Wait()
		if s := k.States(); len(s) != 1 || s[0].From != FromRollout || s[0].Commit != strings.Repeat("a", 40) || !slices.Equal(s[0].Include, order.Include) {
			t.Errorf("after a restart: %+v", s)
		}
		k.Set([]Model{model(t, "org/a")})
		k.Removed(order.Ref.Repo, pieces.Commit(strings.Repeat("a", 40)))
		synctest.Wait()
		if s := k.States()[0]; s.From != FromConfig || s.Phase != Here || len(w.times("org/a@main")) != 2 {
			t.Errorf("%+v", s)
		}
	})
	inWorld(t, nb, func(t *testing.T, _ *world, k *Keeper) {
		for i := range MaxRollouts + 1 {
			if err := k.Add(model(t, fmt.Sprintf("org/m%d", i))); (err != nil) != (i == MaxRollouts) {
				t.Fatal(i, err)
			}
		}
	})
	for _, raw := range []string{`{`, `{"schema_version":2}`, `{"schema_version":1,"rollouts":[{"ref":"org/a","commit":"x"}]}`} {
		if _, err := New(Options{Fetch: newWorld().fetch, Notebook: &notebook{raw: []byte(raw)}}); err == nil {
			t.Errorf("%s was taken", raw)
		}
	}
}
