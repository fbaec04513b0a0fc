package agent

import (
	"maps"
	"slices"
	"sync/atomic"

	"p2pagent/internal/histogram"
	"p2pagent/pkg/pieces"
)

// Counters are what this agent has done since it started. All but Snapshots only
// grow.
type Counters struct {
	Upstream  int64            // bytes of files from upstream, as they came: those of pieces that never got whole too
	Ended     map[Kind]int64   // jobs by kind of failure; "" is for those that did not fail
	Waits     int64            // waits that the Hub imposed, on this member or by way of another
	Extents   histogram.Counts // how long extents took that came whole from upstream
	Fetches   histogram.Counts // and jobs for more than a file that ended well
	Snapshots []SnapshotCount
}

// SnapshotCount is what jobs did for one commit. There are as many as Jobs shows
// commits: those that run and the last that ended.
type SnapshotCount struct {
	Repo     string
	Commit   string
	Bytes    int64 // of the files that its largest job wants
	Here     int64 // of them here, verified
	Upstream int64 // came from upstream for any of its jobs, each byte once
	Ready    bool  // that job is done
}

type snapshotKey struct{ repo, commit string }

// Counters returns the counters as they are now.
func (a *Agent) Counters() Counters {
	a.mu.Lock()
	all := slices.AppendSeq(slices.Clone(a.recent), maps.Values(a.jobs))
	c := Counters{Upstream: a.brought.Load(), Ended: maps.Clone(a.ended), Waits: a.waits, Extents: a.extents.Read(), Fetches: a.fetches.Read()}
	brought := make([]int64, len(all))
	for i, j := range all {
		if j.brought != nil {
			brought[i] = j.brought.Load()
		}
	}
	a.mu.Unlock()
	bySnapshot := map[snapshotKey]*SnapshotCount{}
	for i, j := range all {
		j.countIn(bySnapshot, brought[i])
	}
	for _, s := range bySnapshot {
		c.Snapshots = append(c.Snapshots, *s)
	}
	return c
}

// countIn adds a job that knows its files to its snapshot. A later job that wants
// as much says more about what is here now.
func (j *job) countIn(to map[snapshotKey]*SnapshotCount, brought int64) {
	j.mu.Lock()
	v := j.view
	j.mu.Unlock()
	if v.Commit == "" || v.Files == 0 {
		return
	}
	key := snapshotKey{j.req.Ref.Repo.String(), v.Commit}
	s := to[key]
	if s == nil {
		s = &SnapshotCount{Repo: key.repo, Commit: key.commit}
		to[key] = s
	}
	s.Upstream = max(s.Upstream, brought)
	if v.Total >= s.Bytes {
		s.Bytes, s.Here, s.Ready = v.Total, v.Completed, v.Status == Done
	}
}

// shareCount returns what counts upstream's bytes for all jobs of the snapshot.
// It lives as long as Jobs shows one of them.
func (a *Agent) shareCount(j *job, commit pieces.Commit) *atomic.Int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := snapshotKey{j.req.Ref.Repo.String(), string(commit)}
	for _, o := range slices.AppendSeq(slices.Clone(a.recent), maps.Values(a.jobs)) {
		if o.brought != nil && o.counted == key {
			j.brought, j.counted = o.brought, key
			return j.brought
		}
	}
	j.brought, j.counted = new(atomic.Int64), key
	return j.brought
}
