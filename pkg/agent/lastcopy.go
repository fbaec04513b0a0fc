package agent

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Two members that evict the same snapshot at the same instant must not each count
// on the other. So a member first says that its copy is leaving, and answers nobody
// any more that it holds it; then it asks the others; and only when one of them
// says that it holds all of it, and is not leaving, the copy goes. Of members that
// would all remove theirs, each counts on one that began to leave after it had
// answered: the last of them has nobody to count on, and keeps it.
//
// Both directions of the question travel as records (swarm.Node.Record):
//
//	copy/REPO/COMMIT/FILES/ASKER      "1" from a member that holds these files and keeps them
//	leaving/REPO/COMMIT/FILES/ASKER   "1" from a member whose copy is leaving
//
// FILES is "all", or the listed files that matter as bits in hexadecimal. ASKER
// makes the key one question's alone: an answer to an earlier one must not be taken
// for this one's, and no member passes it on.
const (
	copyRecord    = "copy"
	leavingRecord = "leaving"
)

// answerAge is how old an answer may be. It counts from when it arrives.
const answerAge = time.Second

// askerTurns is after how many questions about a snapshot ASKER comes again: enough
// that no answer to the first is about any more, and few enough for those who
// remember what they were asked.
const askerTurns = 32

// allFiles stands for a whole snapshot.
const allFiles = "all"

// maxFileBits bounds FILES: a key has 512 bytes at most. A part of a larger listing
// counts as held only where all of it is.
const maxFileBits = 1024

// filesKey says which files of the listing are here.
func filesKey(s *cachefs.Snapshot) string {
	if s.Outline == nil || s.Complete || len(s.Outline.Files) > maxFileBits {
		return allFiles
	}
	here := make(map[string]bool, len(s.Files))
	for _, f := range s.Files {
		here[f.Path] = true
	}
	bits := make([]byte, (len(s.Outline.Files)+7)/8)
	for i, f := range s.Outline.Files {
		if here[f.Path] {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return hex.EncodeToString(bits)
}

// holdsFiles tells whether the snapshot here has the files that a key means.
func holdsFiles(s *cachefs.Snapshot, files string) bool {
	if s.Outline == nil || files == allFiles || s.Complete {
		return s.Complete
	}
	bits, err := hex.DecodeString(files)
	if err != nil || len(bits) != (len(s.Outline.Files)+7)/8 {
		return false
	}
	here := make(map[string]bool, len(s.Files))
	for _, f := range s.Files {
		here[f.Path] = true
	}
	for i, f := range s.Outline.Files {
		if bits[i/8]&(1<<(i%8)) != 0 && !here[f.Path] {
			return false
		}
	}
	return true
}

// nextTurn makes an ASKER for one question.
func (a *Agent) nextTurn(s *cachefs.Snapshot) string {
	use := useKey(s.Repo, s.Commit)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[use] = (a.asked[use] + 1) % askerTurns
	return a.asker + "-" + strconv.Itoa(a.asked[use])
}

// onlyLooking is the turn of questions after which nothing is removed.
const onlyLooking = "-look"

// copyQuestion is what such a key asks.
type copyQuestion struct {
	repo   pieces.Repo
	commit pieces.Commit
	files  string
	asker  string
}

func parseCopyQuestion(rest string) (q copyQuestion, err error) {
	parts := strings.Split(rest, "/")
	if len(parts) < 4 {
		return q, errUnknownRecord
	}
	n := len(parts)
	if q.repo, err = pieces.ParseRepo(strings.Join(parts[:n-3], "/")); err != nil {
		return q, err
	}
	q.commit, err = pieces.ParseCommit(parts[n-3])
	q.files, q.asker = parts[n-2], parts[n-1]
	return q, err
}

// copyAnswer answers a member that wants to remove its copy.
func (a *Agent) copyAnswer(kind, rest string) ([]byte, error) {
	q, err := parseCopyQuestion(rest)
	if err != nil {
		return nil, err
	}
	if asker, _, _ := strings.Cut(q.asker, "-"); asker == a.asker {
		return nil, errUnknownRecord // this member's own question is for others
	}
	if a.isLeaving(q.repo, q.commit) != (kind == leavingRecord) {
		return nil, errUnknownRecord
	}
	s, err := a.opt.Cache.Snapshot(pieces.Ref{Repo: q.repo, Revision: string(q.commit)})
	if err != nil {
		return nil, err
	}
	// Looked at again: a copy that began to leave meanwhile must not be counted on.
	if !holdsFiles(s, q.files) || !a.hasAll(s) || a.isLeaving(q.repo, q.commit) != (kind == leavingRecord) {
		return nil, errUnknownRecord
	}
	return []byte("1"), nil
}

// hasAll tells whether the files are as they were found right.
func (a *Agent) hasAll(s *cachefs.Snapshot) bool {
	for _, f := range s.Files {
		if !a.opt.Cache.Has(s.Repo, f.Blob) {
			return false
		}
	}
	return true
}

func (a *Agent) isLeaving(repo pieces.Repo, commit pieces.Commit) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leaving[useKey(repo, commit)]
}

// beginLeaving stops counting this member's copy as one, until stay is called.
func (a *Agent) beginLeaving(s *cachefs.Snapshot) (stay func()) {
	key := useKey(s.Repo, s.Commit)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leaving[key] = true
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.leaving, key)
	}
}

// askWait bounds a round of questions, which has its own bound as long as the swarm
// is not stuck.
const askWait = 10 * time.Second

// anyoneSays tells whether another member answers yes.
func (a *Agent) anyoneSays(ctx context.Context, kind string, s *cachefs.Snapshot, asker string) (bool, error) {
	if !a.running.Load() {
		return false, nil // a command that only looks at the cache has no part in a swarm
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askWait, Errorf(Stalled, "no answer from the swarm in %v", askWait))
	defer cancel()
	key := strings.Join([]string{kind, s.Repo.String(), string(s.Commit), filesKey(s), asker}, "/")
	_, err := a.opt.Swarm.Record(ctx, key, answerAge, nil)
	if err != nil && a.is(err, NotFound) {
		return false, nil
	}
	return err == nil, err
}

// elsewhere tells whether another member holds what is here of a snapshot; it may
// not do so for long.
func (a *Agent) elsewhere(ctx context.Context, s *cachefs.Snapshot) (bool, error) {
	return a.anyoneSays(ctx, copyRecord, s, a.asker+onlyLooking)
}

// Of members that meet each other leaving, each stays for a moment of its own
// length and tries again.
const (
	leaveTries = 3
	leaveWait  = 2 * time.Second
)

// letGo begins to leave and tells whether another member keeps a copy. If so, the
// caller may remove this one's, and calls stay when it is gone, or after all not.
func (a *Agent) letGo(ctx context.Context, s *cachefs.Snapshot) (stay func(), ok bool, err error) {
	for try := 1; ; try++ {
		stay = a.beginLeaving(s)
		if ok, err = a.anyoneSays(ctx, copyRecord, s, a.nextTurn(s)); ok {
			return stay, true, nil
		}
		others := false
		if err == nil {
			others, err = a.anyoneSays(ctx, leavingRecord, s, a.nextTurn(s))
		}
		stay()
		if !others || err != nil || try == leaveTries {
			return nil, false, err
		}
		if err := pause(ctx, leaveWait/10+rand.N(leaveWait)); err != nil {
			return nil, false, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
