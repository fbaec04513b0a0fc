package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/pieces"
)

// Eviction says when the agent removes snapshots by itself. The marks are percent
// of the cache's quota or, without one, of its filesystem.
type Eviction struct {
	High int // above it, and for a job that does not fit; 0: never
	Low  int // down to it
	// LastCopies lets the last copy in the swarm go, of what the Hub has.
	LastCopies bool
}

// over is how much is over a mark, in bytes.
func over(r cachefs.Room, mark int) int64 {
	used, whole := r.Used, r.Quota
	if whole == 0 {
		used, whole = r.Disk-r.Free, r.Disk
	}
	return used - whole/100*int64(mark)
}

// lowMark is how much the cache may hold to be at the low mark.
func (a *Agent) lowMark(r cachefs.Room) int64 {
	if a.opt.Eviction.High == 0 {
		return 0
	}
	return max(0, r.Used-over(r, a.opt.Eviction.Low))
}

const (
	// roomEvery is how often the marks are looked at.
	roomEvery = time.Minute
	// stuckEvery is how often it is tried again when nothing more may go.
	stuckEvery = 10 * time.Minute
)

// keepRoom evicts above the high mark, until ctx ends.
func (a *Agent) keepRoom(ctx context.Context) {
	if a.opt.Eviction.High == 0 {
		return
	}
	for wait := roomEvery; pause(ctx, wait) == nil; {
		wait = roomEvery
		if stuck, err := a.evictToMark(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("can't make room", "error", err)
		} else if stuck {
			wait = stuckEvery
		}
	}
}

// evictToMark tells whether the cache is above its high mark still.
func (a *Agent) evictToMark(ctx context.Context) (stuck bool, err error) {
	if err := a.takeTurn(ctx); err != nil {
		return false, err
	}
	defer a.endTurn()
	room, err := a.opt.Cache.Room()
	if err != nil || over(room, a.opt.Eviction.High) <= 0 {
		return false, err
	}
	out, err := a.evict(ctx, over(room, a.opt.Eviction.Low), false, false, nil)
	if err != nil {
		return false, err
	}
	if room, err = a.opt.Cache.Room(); err != nil || over(room, a.opt.Eviction.High) <= 0 {
		return false, err
	}
	a.log.Warn("the cache is above its high mark, and nothing more may go", "used", room.Used, "quota", room.Quota, "free", room.Free, "stays", out.staying())
	return true, nil
}

// makeRoomTries bounds how often a job that does not fit evicts: what is freed may be
// taken by another.
const makeRoomTries = 3

// beginWithRoom is Store.Begin, which evicts what may go when the blobs do not fit.
func (a *Agent) beginWithRoom(ctx context.Context, j *job, repo pieces.Repo, blobs []pieces.Blob) error {
	err := a.opt.Cache.Begin(ctx, repo, blobs)
	if _, full := errors.AsType[*cachefs.NoSpaceError](err); !full {
		return err
	}
	if a.opt.Eviction.High == 0 {
		return &Error{Kind: NoSpace, Message: err.Error(), Err: err, Hint: "free some space with `p2pagent prune`, or set --max-cache or --high-watermark so that the agent does by itself"}
	}
	j.enter(Checking, "room to be made for the files")
	if err := a.takeTurn(ctx); err != nil {
		return err
	}
	defer a.endTurn()
	return a.makeRoom(ctx, repo, blobs)
}

// makeRoom begins the blobs, evicting before as often as it takes. The caller has the
// turn.
func (a *Agent) makeRoom(ctx context.Context, repo pieces.Repo, blobs []pieces.Blob) error {
	for try := 1; ; try++ {
		err := a.opt.Cache.Begin(ctx, repo, blobs) // another job may have made room meanwhile
		full, ok := errors.AsType[*cachefs.NoSpaceError](err)
		if !ok {
			return err
		}
		need := full.Need - full.Free
		out, everr := a.evict(ctx, need, false, true, nil) // nothing goes in vain
		if everr == nil && out.Freed >= need {
			out, everr = a.evict(ctx, need, false, false, nil)
		}
		if everr != nil {
			return errors.Join(err, everr)
		}
		if out.Freed == 0 || out.DryRun || try == makeRoomTries {
			return &Error{Kind: NoSpace, Message: fmt.Sprintf("%v; what is here stays: %s", err, out.staying()), Err: err,
				Hint: "`p2pagent prune --dry-run` says what stays and why; unpin or remove something, or raise --max-cache"}
		}
	}
}

// staying sums up what was not evicted, by reason.
func (p Pruned) staying() string {
	sums := map[Reason]int64{}
	for _, v := range p.Verdicts {
		sums[v.Stays] += v.Size
	}
	var out []string
	for _, r := range []Reason{StaysPinned, StaysKept, StaysDesired, StaysInUse, StaysRecent, StaysLastCopy, StaysForeign, StaysFailed} {
		if sums[r] > 0 {
			out = append(out, fmt.Sprintf("%d bytes %s", sums[r], strings.ReplaceAll(string(r), "_", " ")))
		}
	}
	if len(out) == 0 {
		return "nothing is left that could go"
	}
	return strings.Join(out, ", ")
}
