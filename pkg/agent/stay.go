package agent

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Reason is why a snapshot stays when room is needed. Reasons cross the control
// API, so their values never change.
type Reason string

// The reasons, in the order in which they are looked at: the first that holds is
// told.
const (
	StaysPinned   Reason = "pinned"    // pin, the settings or a rollout
	StaysKept     Reason = "kept"      // seed: told to hold it
	StaysDesired  Reason = "desired"   // a model that is to be here
	StaysForeign  Reason = "not_ours"  // only a Hub client ever asked for it
	StaysInUse    Reason = "in_use"    // a job, a client or a process works with it
	StaysRecent   Reason = "recent"    // it was used a moment ago
	StaysLastCopy Reason = "last_copy" // no other member in sight holds it
	StaysUnneeded Reason = "unneeded"  // there is room enough without
	StaysFailed   Reason = "failed"    // it could not be removed
)

// grace is how long after its last use a snapshot stays: who is about to open its
// files one by one has none of them open now and then.
const grace = 10 * time.Minute

// stays is the first reason for which a snapshot must not be evicted whatever the
// swarm has, or "". force passes over what is only recent.
func (a *Agent) stays(h *cachefs.Holding, force bool) (Reason, string) {
	s := &h.Snapshot
	if by := a.pinnedBy(s); len(by) > 0 {
		return StaysPinned, "by " + holders(by)
	}
	if a.isKept(s) {
		return StaysKept, "told to hold it"
	}
	if a.isDesired(s) {
		return StaysDesired, "a model that is to be here"
	}
	if !h.Ours {
		return StaysForeign, "a Hub client brought it, and nobody asked this agent for it"
	}
	if why := a.busyWith(s.Repo, s.Commit); why != "" {
		return StaysInUse, why
	}
	if ago := time.Since(a.lastUse(h)); ago < grace && !force {
		return StaysRecent, "used " + ageOf(ago) + " ago"
	}
	return "", ""
}

func holders(by []Holder) string {
	out := make([]string, len(by))
	for i, h := range by {
		out[i] = string(h)
	}
	return strings.Join(out, ", ")
}

func (a *Agent) isKept(s *cachefs.Snapshot) bool {
	for _, r := range namesOf(s) {
		if _, ok := a.kept(pieces.Ref{Repo: s.Repo, Revision: r}); ok {
			return true
		}
	}
	return false
}

func (a *Agent) isDesired(s *cachefs.Snapshot) bool {
	if a.opt.Desired == nil {
		return false
	}
	names := map[string]bool{}
	for _, r := range namesOf(s) {
		names[pieces.Ref{Repo: s.Repo, Revision: r}.String()] = true
	}
	for _, d := range a.opt.Desired() {
		if names[d.Ref] {
			return true
		}
	}
	return false
}

// busyWith says who works with a commit, or "". Jobs on other commits of the
// repository are no reason: what they need stays by itself.
func (a *Agent) busyWith(repo pieces.Repo, commit pieces.Commit) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.busyLocked(repo, commit)
}

// busyLocked is called with a.mu held.
func (a *Agent) busyLocked(repo pieces.Repo, commit pieces.Commit) string {
	if n := a.readers[useKey(repo, commit)]; n > 0 {
		return "a client of the gateway reads it"
	}
	for _, j := range a.jobs {
		if at, _ := j.aim(); j.req.Ref.Repo == repo && at == commit {
			return "a job on " + j.req.Ref.String() + " is running"
		}
	}
	return ""
}

// aim returns the commit that a job brings, once it is known, and its blobs, once it
// asks the cache for them.
func (j *job) aim() (pieces.Commit, []pieces.Blob) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return pieces.Commit(j.view.Commit), j.wanted
}

// wantedByJobs are the blobs that running jobs bring.
func (a *Agent) wantedByJobs() map[pieces.Blob]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wantedLocked()
}

// wantedLocked is called with a.mu held.
func (a *Agent) wantedLocked() map[pieces.Blob]bool {
	out := map[pieces.Blob]bool{}
	for _, j := range a.jobs {
		_, blobs := j.aim()
		for _, b := range blobs {
			out[b] = true
		}
	}
	return out
}

// useEvery is how exact the time of a snapshot's last use is after a restart.
const useEvery = time.Hour

// touch notes that somebody asked for a snapshot, and tells whether that is worth
// writing down.
func (a *Agent) touch(repo pieces.Repo, commit pieces.Commit) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key, now := useKey(repo, commit), time.Now().UTC().Truncate(time.Second)
	due := now.Sub(a.used[key]) >= useEvery
	a.used[key] = now
	return due
}

// reading counts a reader of a snapshot until done is called.
func (a *Agent) reading(repo pieces.Repo, commit pieces.Commit) (done func()) {
	a.touch(repo, commit)
	key := useKey(repo, commit)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.readers[key]++
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.readers[key]--; a.readers[key] == 0 {
			delete(a.readers, key)
		}
	})
}

func useKey(repo pieces.Repo, commit pieces.Commit) string {
	return pieces.Ref{Repo: repo, Revision: string(commit)}.String()
}

// lastUse is the later of what the filesystem and this agent know.
func (a *Agent) lastUse(h *cachefs.Holding) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := a.used[useKey(h.Repo, h.Commit)]; at.After(h.Read) {
		return at
	}
	return h.Read
}

// forgetUse drops what is known of snapshots that are gone.
func (a *Agent) forgetUse(there []cachefs.Holding) {
	known := map[string]bool{}
	for _, h := range there {
		known[useKey(h.Repo, h.Commit)] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.used {
		if !known[k] {
			delete(a.used, k)
		}
	}
}

// closeRepo keeps jobs from touching a repository until open is called, unless
// somebody is at work with the commit, or another removal is: then it says so.
func (a *Agent) closeRepo(repo pieces.Repo, commit pieces.Commit) (open func(), busy string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why := a.busyLocked(repo, commit); why != "" {
		return nil, why
	}
	if a.closed[repo] != nil {
		return nil, "something of " + repo.String() + " is being removed"
	}
	done := make(chan struct{})
	a.closed[repo] = done
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.closed, repo)
		close(done)
	}, ""
}

// drop is a partial blob that is being dropped.
type drop struct {
	blob pieces.Blob
	done chan struct{}
}

// closeBlob keeps jobs that want a blob waiting until open is called, unless one is
// after it already. It is for who has the turn to evict: one blob goes at a time.
func (a *Agent) closeBlob(b pieces.Blob) (open func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wantedLocked()[b] {
		return nil, false
	}
	a.drop = &drop{b, make(chan struct{})}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		close(a.drop.done)
		a.drop = nil
	}, true
}

// gate returns what a job waits for, or nil. It is called with a.mu held.
func (a *Agent) gate(repo pieces.Repo, wanted []pieces.Blob) <-chan struct{} {
	if a.drop != nil && slices.Contains(wanted, a.drop.blob) {
		return a.drop.done
	}
	return a.closed[repo]
}

// passGate waits until nothing of the job's repository, and none of its blobs, is being
// removed, which the disk bounds, and from then on keeps what the job wants from going.
func (a *Agent) passGate(ctx context.Context, j *job, wanted []pieces.Blob) error {
	for {
		a.mu.Lock()
		closed := a.gate(j.req.Ref.Repo, wanted)
		if closed == nil {
			j.mu.Lock()
			j.wanted = wanted
			j.mu.Unlock()
		}
		a.mu.Unlock()
		if closed == nil {
			return nil
		}
		select {
		case <-closed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
