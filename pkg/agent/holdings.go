package agent

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Ready and Partly are the states of a commit in the cache that no job is about.
const (
	Ready  State = "ready"
	Partly State = "part"
)

// Holding is what this node has of one commit, and where its last jobs got it.
type Holding struct {
	Repo, Commit string // Commit is empty until the revision is resolved
	Ref          string
	State        State // of the job; Ready or Partly when there is none
	Waiting      string
	Reason       string // of a failure
	Total        int64  // bytes of the wanted files, 0 when not known
	Completed    int64  // of them here, verified
	Here         int64  // were here before
	Upstream     int64  // came from upstream
	Peers        int64  // came from members
	Cost         int64  // bytes that upstream sent for it, each once, those that came to nothing too
	Rate         int64  // bytes a second
	ETA          float64
}

// listEvery is how often the cache is read for Holdings: a walk over all files.
const listEvery = 5 * time.Second

// listed remembers what the cache had a moment ago.
type listed struct {
	mu   sync.Mutex
	at   time.Time
	list []cachefs.Snapshot
}

func (l *listed) read(list func() ([]cachefs.Snapshot, error)) ([]cachefs.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.at) < listEvery {
		return l.list, nil
	}
	now, err := list()
	if err == nil {
		l.list, l.at = now, time.Now()
	}
	return now, err
}

// Holdings returns what the cache has and what jobs are about, by repository and
// commit. What the cache has may be five seconds old.
func (a *Agent) Holdings() ([]Holding, error) {
	list, err := a.listed.read(a.opt.Cache.List)
	if err != nil {
		return nil, err
	}
	all := make(map[snapshotKey]*Holding, len(list))
	for i := range list {
		s := &list[i]
		all[snapshotKey{s.Repo.String(), string(s.Commit)}] = cached(s)
	}
	jobs, costs := a.Jobs(), a.costs()
	slices.Reverse(jobs) // the running ones last: they say more
	for _, j := range jobs {
		j.holdIn(all)
	}
	out := make([]Holding, 0, len(all))
	for key, h := range all {
		h.Cost = costs[key]
		out = append(out, *h)
	}
	slices.SortFunc(out, func(a, b Holding) int {
		return cmp.Or(cmp.Compare(a.Repo, b.Repo), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Commit, b.Commit))
	})
	return out, nil
}

// cached describes a commit by what is in the cache.
func cached(s *cachefs.Snapshot) *Holding {
	h := &Holding{Repo: s.Repo.String(), Commit: string(s.Commit), State: Partly, Completed: s.Size, Here: s.Size}
	revision := string(s.Commit)
	if len(s.Revisions) > 0 {
		revision = s.Revisions[0]
	}
	h.Ref = pieces.Ref{Repo: s.Repo, Revision: revision}.String()
	if s.Outline != nil {
		h.Total = sizeOf(pieces.Blobs(s.Outline.Files))
	}
	if s.Complete {
		h.State, h.Total = Ready, s.Size
	}
	return h
}

// holdIn adds what a job says of its commit. A job for one file, of which a client
// of the gateway starts many, adds to what the cache has; one for more replaces it.
func (j Job) holdIn(all map[snapshotKey]*Holding) {
	ref, err := pieces.ParseRef(j.Ref)
	if err != nil {
		return
	}
	key := snapshotKey{ref.Repo.String(), j.Commit}
	if j.Commit == "" {
		key.commit = j.Ref // not a commit, and so no other's key
	}
	h := all[key]
	switch {
	case h == nil && j.Status == Done && time.Since(j.Finished) > 2*listEvery:
		return // it was removed since
	case h == nil:
		h = &Holding{Repo: key.repo, Commit: j.Commit}
		all[key] = h
	case j.File != "" && h.Total > j.Total:
		h.Upstream, h.Peers = h.Upstream+j.Upstream, h.Peers+j.FromPeers()
		h.Here = max(0, h.Here-j.Upstream-j.FromPeers())
		if !j.Ended() {
			h.State, h.Rate = j.Status, h.Rate+j.Rate
		}
		return
	case j.Status == Failed && h.State != Partly, j.Status == Done && j.Total < h.Total:
		return // what is here says more
	}
	h.Ref, h.State, h.Waiting, h.Reason = j.Ref, j.Status, j.Waiting, j.Reason
	h.Total, h.Completed, h.Here, h.Upstream, h.Peers = j.Total, j.Completed, j.Here, j.Upstream, j.FromPeers()
	h.Rate, h.ETA = j.Rate, j.ETA
}

// costs returns what upstream sent for the commits of the last jobs.
func (a *Agent) costs() map[snapshotKey]int64 {
	out := map[snapshotKey]int64{}
	for _, s := range a.Counters().Snapshots {
		out[snapshotKey{s.Repo, s.Commit}] = s.Upstream
	}
	return out
}

// Levels tells how much of a commit is here: its pieces in the order of its files,
// cut into at most cells stretches, each as a digit from 0, nothing, to 9, all. It
// is empty for a commit of which this node does not know the files.
func (a *Agent) Levels(repo pieces.Repo, commit pieces.Commit, cells int) (levels string, count int) {
	o := a.outlineOf(repo, commit)
	if o == nil {
		return "", 0
	}
	blobs := pieces.Blobs(o.Files)
	for _, b := range blobs {
		count += b.Pieces()
	}
	cells = min(cells, count)
	sums, sizes, at := make([]int, cells), make([]int, cells), 0
	for _, b := range blobs {
		held := a.opt.Cache.Held(b)
		whole := a.opt.Cache.Has(repo, b)
		for i := range b.Pieces() {
			cell := at * cells / count
			at++
			sizes[cell]++
			if whole || held != nil && held.Has(i) {
				sums[cell]++
			}
		}
	}
	out := make([]byte, cells)
	for i := range out {
		out[i] = '0' + byte(9*sums[i]/sizes[i])
		if out[i] == '0' && sums[i] > 0 {
			out[i] = '1' // a little is not nothing
		}
	}
	return string(out), count
}

// outlineOf returns the outline of a commit that a job is about or the cache has.
func (a *Agent) outlineOf(repo pieces.Repo, commit pieces.Commit) *pieces.Outline {
	a.mu.Lock()
	for _, j := range a.jobs {
		if o := j.outline; o != nil && o.Repo == repo && o.Commit == commit {
			a.mu.Unlock()
			return o
		}
	}
	a.mu.Unlock()
	if s, err := a.opt.Cache.Snapshot(pieces.Ref{Repo: repo, Revision: string(commit)}); err == nil {
		return s.Outline
	}
	return nil
}
