package rollout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"p2pagent/internal/desired"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a swarm whose nodes do as the test says.
type world struct {
	mu    sync.Mutex
	nodes []Node
	do    func(ctx context.Context, id string, heard func(Report)) error
	asked map[string]int
	every time.Duration
	now   int // nodes that are asked and have not answered
	most  int
}

func (w *world) Nodes() []Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.nodes)
}

func (w *world) Ask(ctx context.Context, id string, _ Order, every time.Duration, heard func(Report)) error {
	w.mu.Lock()
	w.asked[id]++
	w.every = every
	w.now++
	w.most = max(w.most, w.now)
	w.mu.Unlock()
	answered := sync.OnceFunc(func() { w.mu.Lock(); w.now--; w.mu.Unlock() })
	defer answered()
	return w.do(ctx, id, func(r Report) { answered(); heard(r) })
}

func (w *world) times(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[id]
}

func (w *world) set(change func([]Node) []Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes = change(w.nodes)
}

func node(name string, labels ...string) Node {
	n := Node{ID: "id-" + name, Name: name, Addr: name + ":1", Labels: map[string]string{}}
	for _, l := range labels {
		k, v, _ := strings.Cut(l, "=")
		n.Labels[k] = v
	}
	return n
}

// inWorld runs a rollout over the nodes in virtual time.
func inWorld(t *testing.T, o Options, w *world, limit time.Duration, check func(Table, time.Duration, error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w.asked = map[string]int{}
		ref, err := pieces.ParseRef("org/name")
		if err != nil {
			t.Fatal(err)
		}
		o.Swarm = w
		o.Order = func(context.Context) (Order, string, error) {
			return Order{Ref: ref, Commit: pieces.Commit(strings.Repeat("a", 40))}, "a notice", nil
		}
		if o.Lasting == nil {
			o.Lasting = func(kind string) bool { return kind == "lasting" }
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errLimit)
		defer cancel()
		began := time.Now()
		got, err := Run(ctx, o, func(Table) {})
		check(got, time.Since(began), err)
	})
}

var errLimit = errors.New("the limit of the test")

func text(t Table) string {
	var out []string
	for _, r := range t.Nodes {
		out = append(out, r.Node+" "+string(r.State))
	}
	return strings.Join(out, ", ")
}

// steps reports these states, a second apart.
func steps(ctx context.Context, heard func(Report), states ...State) {
	for _, s := range states {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
			heard(Report{State: s, Total: 100, Completed: 50, Rate: 10})
		}
	}
}

func TestSelector(t *testing.T) {
	w := &world{nodes: []Node{node("a", "pool=x", "zone=1"), node("b", "pool=x"), node("c", "pool=y", "zone=1"), node("d")}}
	w.do = func(ctx context.Context, _ string, heard func(Report)) error { steps(ctx, heard, Here); return nil }
	for selector, want := range map[string]string{
		"": "a here, b here, c here, d here", "pool=x": "a here, b here", "pool=x,zone=1": "a here", "pool=": "", "zone=2": "", "name=a": "",
	} {
		s := Selector{}
		for pair := range strings.SplitSeq(selector, ",") {
			if k, v, ok := strings.Cut(pair, "="); ok {
				s[k] = v
			}
		}
		inWorld(t, Options{Selector: s}, w, time.Minute, func(got Table, _ time.Duration, err error) {
			if text(got) != want || (want == "") != errors.Is(err, ErrNobody) || want != "" && got.Notice != "a notice" {
				t.Errorf("%s: %s, %v", selector, text(got), err)
			}
		})
		if s.String() != selector {
			t.Errorf("%q written %q", selector, s)
		}
	}
}

// Without Wait a rollout ends with the first word of each node, with Wait when nothing
// more is to be hoped for.
func TestWait(t *testing.T) {
	w := &world{nodes: []Node{node("fast"), node("failed"), node("refuses"), node("flaky")}}
	w.do = func(ctx context.Context, id string, heard func(Report)) error {
		switch id {
		case "id-fast":
			steps(ctx, heard, Waiting, Fetching, Here)
		case "id-failed":
			steps(ctx, heard, Fetching)
			heard(Report{State: Failed, Kind: "lasting"})
			<-ctx.Done()
		case "id-refuses":
			heard(Report{State: Refused, Kind: "denied"})
		case "id-flaky":
			steps(ctx, heard, Waiting)
			heard(Report{State: Failed, Kind: "passing"})
			steps(ctx, heard, Fetching, Fetching, Fetching, Here)
		}
		return nil
	}
	inWorld(t, Options{}, w, time.Minute, func(got Table, took time.Duration, err error) {
		if s := text(got); err != nil || s != "failed fetching, fast waiting, flaky waiting, refuses refused" || took != time.Second {
			t.Errorf("%s after %v, %v", s, took, err)
		}
		if got.Told != 3 || got.Here != 0 || got.Failed != 1 || got.Nodes[0].Seconds != 5 {
			t.Errorf("%+v", got)
		}
	})
	inWorld(t, Options{Wait: true}, w, time.Minute, func(got Table, took time.Duration, err error) {
		if s := text(got); err != nil || s != "failed failed, fast here, flaky here, refuses refused" || took != 5*time.Second {
			t.Errorf("%s after %v, %v", s, took, err)
		}
		if got.Told != 3 || got.Here != 2 || got.Failed != 2 || got.Nodes[0].Completed != 50 {
			t.Errorf("%+v", got)
		}
	})
	w.do = func(ctx context.Context, _ string, heard func(Report)) error {
		heard(Report{State: Fetching})
		<-ctx.Done()
		return context.Cause(ctx)
	}
	inWorld(t, Options{Wait: true}, w, time.Minute, func(got Table, took time.Duration, err error) {
		if !errors.Is(err, errLimit) || took != time.Minute || len(got.Nodes) != 4 || w.asked["id-fast"] != 1 {
			t.Errorf("%s after %v, %v, asked %v", text(got), took, err, w.asked)
		}
	})
}

// F05: nodes that can't be asked, break off, come back as another, or come late.
//
// One that can't be asked is missing, asked again every two seconds, and waited for a minute. One whose
// stream breaks is asked again at once, one that is back under another identity counts once, and one that
// comes while the rollout runs is asked too.
func TestF05NodesThatCannotBeAsked(t *testing.T) {
	gone, replaced, back := node("gone"), node("replaced"), node("replaced")
	gone.Lost, replaced.Lost, back.ID = true, true, "id-back"
	w := &world{nodes: []Node{gone, replaced, back, node("broken"), node("restarts")}}
	breaks := errors.New("connection reset")
	w.do = func(ctx context.Context, id string, heard func(Report)) error {
		switch {
		case id == "id-broken":
			return breaks
		case id == "id-restarts" && w.times(id) == 1:
			steps(ctx, heard, Fetching)
			w.set(func(n []Node) []Node { return append(n, node("late")) })
			return breaks
		}
		steps(ctx, heard, Here)
		return nil
	}
	inWorld(t, Options{Wait: true}, w, time.Hour, func(got Table, took time.Duration, err error) {
		if s := text(got); err != nil || s != "broken missing, gone missing, late here, replaced here, restarts here" || got.Failed != 2 {
			t.Errorf("%s, %v", s, err)
		}
		if r := got.Nodes[0].Reason; took < time.Minute || took > 70*time.Second || r != "connection reset" {
			t.Errorf("after %v, %s", took, r)
		}
		if n := w.asked["id-broken"]; n < 20 || n > 40 || w.asked["id-gone"] != 0 || w.asked["id-restarts"] != 2 {
			t.Errorf("asked %v", w.asked)
		}
	})
	w.nodes = w.nodes[:5]
	inWorld(t, Options{}, w, time.Hour, func(got Table, took time.Duration, err error) {
		s := strings.Replace(text(got), "late here, ", "", 1) // it may come when all others have answered
		if err != nil || s != "broken missing, gone missing, replaced here, restarts fetching" || took > 5*time.Second {
			t.Errorf("%s after %v, %v", s, took, err)
		}
	})
}

// A thousand nodes: few are dialled at once, and each is asked for so few reports that
// who asked takes 200 a second.
func TestThousand(t *testing.T) {
	w := &world{}
	for i := range 1000 {
		w.nodes = append(w.nodes, node(fmt.Sprintf("n%04d", i)))
	}
	w.do = func(ctx context.Context, _ string, heard func(Report)) error {
		steps(ctx, heard, Waiting, Fetching, Here)
		return nil
	}
	inWorld(t, Options{Wait: true}, w, time.Hour, func(got Table, _ time.Duration, err error) {
		if err != nil || got.Here != 1000 || w.most != dialsAtOnce || w.every != 5*time.Second {
			t.Errorf("%d here, %d at once, every %v, %v", got.Here, w.most, w.every, err)
		}
	})
	for n, want := range map[int]time.Duration{1: 1, 200: 1, 400: 2, 100_000: 30} {
		if got := interval(n); got != want*time.Second {
			t.Errorf("%d nodes report every %v", n, got)
		}
	}
}

// What has to be asked first is not silent, and its failure is the rollout's.
func TestOrderFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := 0
		_, err := Run(t.Context(), Options{Order: func(context.Context) (Order, string, error) {
			time.Sleep(10 * time.Second)
			return Order{}, "", errLimit
		}}, func(Table) { seen++ })
		if !errors.Is(err, errLimit) || seen < 9 {
			t.Errorf("%v, seen %d times", err, seen)
		}
	})
}

// What a member asks for is checked as if a caller had.
func TestOrderIsChecked(t *testing.T) {
	commit, other := strings.Repeat("a", 40), strings.Repeat("b", 40)
	bad := errors.New("bad pattern")
	f := NewFleet(FleetOptions{Check: func(include, _ []string) error {
		if len(include) > 0 {
			return bad
		}
		return nil
	}})
	for _, w := range []wire.Rollout{
		{Ref: "a/b/c/d", Commit: pieces.Commit(commit)}, {Ref: "org/name", Commit: "x"}, {Ref: "../x", Commit: pieces.Commit(commit)},
		{Ref: "org/name@" + other, Commit: pieces.Commit(commit)}, {Ref: "org/name", Commit: pieces.Commit(commit), Include: []string{"["}},
	} {
		if o, err := f.orderOf(w); err == nil {
			t.Errorf("%+v was taken as %+v", w, o)
		}
	}
	for _, ref := range []string{"org/name@" + commit, "datasets/org/name@refs/pr/1"} {
		if o, err := f.orderOf(wire.Rollout{Ref: ref, Commit: pieces.Commit(commit)}); err != nil || o.Ref.String() != ref || string(o.Commit) != commit {
			t.Errorf("%+v, %v", o, err)
		}
	}
}

// stateKeeper keeps one model, and takes everything.
type stateKeeper desired.State

func (k stateKeeper) Add(desired.Model) error { return nil }

func (k stateKeeper) State(ref string) (desired.State, bool) { return desired.State(k), ref == k.Ref }

// What another rollout, or a hand, made of a model is not what this rollout asked for.
func TestReplaced(t *testing.T) {
	commit := strings.Repeat("a", 40)
	ref, err := pieces.ParseRef("org/name")
	if err != nil {
		t.Fatal(err)
	}
	o := Order{Ref: ref, Commit: pieces.Commit(commit), Include: []string{"*.json"}}
	here := desired.State{Ref: "org/name@main", Commit: commit, From: desired.FromRollout, Include: o.Include, Phase: desired.Here}
	for what, c := range map[string]struct {
		change func(*desired.State)
		want   State
	}{
		"as asked":            {func(*desired.State) {}, Here},
		"all of it":           {func(s *desired.State) { s.Include = nil }, Refused},
		"another part":        {func(s *desired.State) { s.Exclude = []string{"b.json"} }, Refused},
		"another commit":      {func(s *desired.State) { s.Commit = strings.Repeat("b", 40) }, Refused},
		"of the settings":     {func(s *desired.State) { s.From = desired.FromConfig }, Refused},
		"not kept any more":   {func(s *desired.State) { s.Ref = "" }, Refused},
		"removed by a client": {func(s *desired.State) { s.Phase = desired.Gone }, Refused},
	} {
		s := here
		c.change(&s)
		var got Report
		err := take(t.Context(), stateKeeper(s), o, time.Hour, nil, func(r Report) error { got = r; return nil })
		if err != nil || got.State != c.want {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
}

// A reason of any length fits a frame.
func TestReasonFits(t *testing.T) {
	for _, n := range []int{0, 1, wire.MaxReason - 1, wire.MaxReason, 10 * wire.MaxReason} {
		r := Report{State: Failed, Kind: "denied", Reason: strings.Repeat("ü", n)}
		w := wireReport(r)
		if _, err := wire.Append(nil, &w); err != nil {
			t.Errorf("%d: %v", n, err)
		}
		if got := reportOf(w); got.State != Failed || got.Kind != "denied" || !strings.HasPrefix(r.Reason, strings.TrimSuffix(got.Reason, "…")) {
			t.Errorf("%d: %+v", n, got)
		}
	}
}
