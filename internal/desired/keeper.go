package desired

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"p2pagent/pkg/pieces"
)

// atOnce is how many models are fetched at the same time: more would share the same
// links, and the first would be ready later.
const atOnce = 4

// A try follows a failure after retryMin, doubling up to retryMax, or after
// retryLasting when the same is bound to happen again. Each is spread by a quarter, so
// that members that failed together don't ask together for ever.
const (
	retryMin     = 5 * time.Second
	retryMax     = 5 * time.Minute
	retryLasting = 10 * time.Minute
)

// Options are what a Keeper is made of. Fetch must be set.
type Options struct {
	// Fetch brings the model and returns its commit. It ends what it began when ctx
	// ends. told hears how far it is.
	Fetch func(ctx context.Context, m Model, told func(Progress)) (pieces.Commit, error)
	// Kind names the kind of an error; lasting ones stay when tried again at once.
	Kind func(error) (kind string, lasting bool)
	// Rollouts is told, before a change counts, of all references that rollouts will
	// hold; nil is not told.
	Rollouts func([]pieces.Ref) error
	// Notebook keeps what rollouts told over restarts; nil forgets it.
	Notebook Notebook
	Logger   *slog.Logger
}

// Keeper keeps models on this node while Run runs. It is safe for concurrent use.
type Keeper struct {
	o     Options
	slots chan struct{}
	wake  chan struct{} // one slot: there may be an entry to start

	saving sync.Mutex // held while the notebook is written, before mu

	mu      sync.Mutex // guards the fields below; never held over I/O
	config  []Model
	rollout map[string]Model // by reference
	entries map[string]*entry
}

// entry is a model that is kept.
type entry struct {
	model Model
	state State // guarded by Keeper.mu
	poke  chan struct{}
	named context.Context // ends when nobody names the model any more
	stop  context.CancelFunc
	going bool // its goroutine was started; guarded by Keeper.mu
}

// New reads the notebook. It starts nothing.
func New(o Options) (*Keeper, error) {
	if o.Fetch == nil {
		return nil, errors.New("new keeper: fetch is needed")
	}
	if o.Kind == nil {
		o.Kind = func(error) (string, bool) { return "", false }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Rollouts == nil {
		o.Rollouts = func([]pieces.Ref) error { return nil }
	}
	told, err := loadRollouts(o.Notebook)
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		o: o, slots: make(chan struct{}, atOnce), wake: make(chan struct{}, 1),
		rollout: told, entries: map[string]*entry{},
	}
	k.arrange()
	return k, nil
}

// Run keeps the models until ctx ends. It may be called once.
func (k *Keeper) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for {
		k.mu.Lock()
		for _, e := range k.entries {
			if !e.going {
				e.going = true
				work.Go(func() { k.keep(ctx, e) })
			}
		}
		k.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
	}
}

// Set replaces what the configuration names, and has every branch of it looked up
// again. What leaves the list is not kept any more; a fetch of it that runs ends.
func (k *Keeper) Set(models []Model) Change {
	k.mu.Lock()
	before := k.config
	k.config = slices.Clone(models)
	k.arrange()
	for _, m := range models {
		if e := k.entries[m.Ref.String()]; e != nil && e.state.From == FromConfig {
			poke(e.poke)
		}
	}
	k.mu.Unlock()
	return compare(before, models)
}

func compare(before, after []Model) Change {
	c := Change{Added: []string{}, Removed: []string{}, Changed: []string{}, Unchanged: []string{}}
	for _, m := range after {
		i := slices.IndexFunc(before, func(o Model) bool { return o.Ref == m.Ref })
		to := &c.Unchanged
		switch {
		case i < 0:
			to = &c.Added
		case !before[i].same(m):
			to = &c.Changed
		}
		*to = append(*to, m.Ref.String())
	}
	for _, m := range before {
		if !slices.ContainsFunc(after, func(o Model) bool { return o.Ref == m.Ref }) {
			c.Removed = append(c.Removed, m.Ref.String())
		}
	}
	return c
}

// arrange makes the entries those that are named now. It is called with mu held.
func (k *Keeper) arrange() {
	named := map[string]*entry{}
	for _, m := range k.config {
		named[m.Ref.String()] = newEntry(m, FromConfig)
	}
	for ref, m := range k.rollout {
		named[ref] = newEntry(m, FromRollout)
	}
	for ref, e := range k.entries {
		if n := named[ref]; n != nil && n.model.same(e.model) && n.state.From == e.state.From {
			named[ref] = e
			continue
		}
		e.stop()
	}
	k.entries = named
	poke(k.wake)
}

func newEntry(m Model, from string) *entry {
	named, stop := context.WithCancel(context.Background())
	return &entry{
		model: m, poke: make(chan struct{}, 1), named: named, stop: stop,
		state: State{Ref: m.Ref.String(), Commit: string(m.Commit), From: from, Pin: m.Pin, Include: m.Include, Exclude: m.Exclude, Phase: Waiting},
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keep works on one model until ctx ends or nobody names it any more.
func (k *Keeper) keep(ctx context.Context, e *entry) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.named, cancel)()
	for ctx.Err() == nil {
		timer := time.NewTimer(k.attempt(ctx, e))
		select {
		case <-ctx.Done():
		case <-e.poke:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// forever is a pause that ends only when the model is asked about anew.
const forever time.Duration = 1<<63 - 1

// attempt brings the model once, and returns after which pause to do it again.
func (k *Keeper) attempt(ctx context.Context, e *entry) time.Duration {
	select {
	case k.slots <- struct{}{}:
	case <-ctx.Done():
		return forever
	}
	defer func() { <-k.slots }()
	select {
	case <-e.poke: // whoever asked until now is answered by this
	default:
	}
	k.update(e, func(s *State) { s.Phase, s.Progress, s.Again = Fetching, Progress{}, time.Time{} })
	commit, err := k.o.Fetch(ctx, e.model, func(p Progress) {
		k.update(e, func(s *State) { s.Progress = p })
	})
	if ctx.Err() != nil {
		return forever
	}
	if err != nil {
		return k.failed(e, err)
	}
	k.update(e, func(s *State) {
		s.Phase, s.Commit, s.Tries, s.Kind, s.Reason = Here, string(commit), 0, "", ""
		s.Doing, s.Rate, s.Completed = "", 0, s.Total
	})
	return e.model.untilRefresh(time.Now())
}

// untilRefresh is how long a branch may mean what it means.
func (m Model) untilRefresh(now time.Time) time.Duration {
	if m.Refresh == 0 || !m.moves() {
		return forever
	}
	return now.Truncate(m.Refresh).Add(m.Refresh).Sub(now)
}

func (k *Keeper) failed(e *entry, err error) time.Duration {
	kind, lasting := k.o.Kind(err)
	var pause time.Duration
	k.update(e, func(s *State) {
		s.Tries++
		pause = backOff(s.Tries, lasting)
		s.Phase, s.Kind, s.Reason = Failed, kind, err.Error()
		s.Again, s.Doing, s.Rate = time.Now().Add(pause).UTC().Truncate(time.Second), "", 0
	})
	k.o.Logger.Warn("desired model is not here", "ref", e.model.Ref.String(), "kind", kind, "again_in", pause.Round(time.Second), "error", err)
	return pause
}

func backOff(tries int, lasting bool) time.Duration {
	pause := min(retryMin<<min(tries-1, 10), retryMax)
	if lasting {
		pause = retryLasting
	}
	return pause - pause/8 + rand.N(pause/4)
}

// Removed tells that a commit was taken out of the cache. What a rollout told of it
// ends; what the configuration names is fetched again when that is next read.
func (k *Keeper) Removed(repo pieces.Repo, commit pieces.Commit) {
	k.mu.Lock()
	var over []pieces.Ref
	for _, e := range k.entries {
		switch {
		case e.model.Ref.Repo != repo || e.state.Commit != string(commit):
		case e.state.From == FromRollout:
			over = append(over, e.model.Ref)
		case e.state.Phase == Here:
			e.state.Phase = Gone
		}
	}
	k.mu.Unlock()
	if len(over) == 0 {
		return
	}
	if err := k.Forget(over...); err != nil {
		k.o.Logger.Warn("rollout of a model that was removed is not forgotten", "error", err)
	}
}

func (k *Keeper) update(e *entry, change func(*State)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change(&e.state)
}

// State says how it stands with one.
func (k *Keeper) State(ref string) (State, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[ref]
	if e == nil {
		return State{}, false
	}
	return e.state, true
}

// States says how it stands with every model, by reference.
func (k *Keeper) States() []State {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make([]State, 0, len(k.entries))
	for _, e := range k.entries {
		out = append(out, e.state)
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.Ref, b.Ref) })
	return out
}
