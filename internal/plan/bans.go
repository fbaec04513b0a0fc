package plan

import (
	"slices"
	"strings"
	"time"
)

// Ban says why nothing is taken from a member any more, and until when.
type Ban struct {
	Peer   Peer
	Reason string
	Since  time.Time
	Until  time.Time
}

// Bans remembers misbehaviour. A banned member may still take pieces from us:
// flaky memory makes liars of honest machines, and cutting it off would send it
// upstream for a copy of its own.
type Bans struct {
	length time.Duration
	bans   map[Peer]Ban
	count  map[Peer]int
}

// NewBans returns an empty list whose first ban of a member lasts length; each
// further one lasts twice as long as the one before, up to a day.
func NewBans(length time.Duration) *Bans {
	return &Bans{length: length, bans: map[Peer]Ban{}, count: map[Peer]int{}}
}

// Add bans p from now on and returns the ban.
func (b *Bans) Add(now time.Time, p Peer, reason string) Ban {
	length := min(b.length<<min(b.count[p], 16), 24*time.Hour)
	b.count[p]++
	b.bans[p] = Ban{Peer: p, Reason: reason, Since: now, Until: now.Add(length)}
	return b.bans[p]
}

// Banned tells whether p is banned at this time.
func (b *Bans) Banned(now time.Time, p Peer) bool {
	ban, ok := b.bans[p]
	return ok && now.Before(ban.Until)
}

// List returns the bans in force, ordered by peer.
func (b *Bans) List(now time.Time) []Ban {
	var out []Ban
	for _, ban := range b.bans {
		if now.Before(ban.Until) {
			out = append(out, ban)
		}
	}
	slices.SortFunc(out, func(x, y Ban) int { return strings.Compare(string(x.Peer), string(y.Peer)) })
	return out
}
