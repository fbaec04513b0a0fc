package swarm

import (
	"p2pagent/internal/histogram"
	"p2pagent/internal/plan"
)

// Counters are what this member has seen and done since it was made. They only
// grow, and none is of one peer or blob: what they are few of stays so in a
// swarm of any size.
type Counters struct {
	In, Out    int64 // bytes of verified pieces from members, and sent to them
	Cut        int64 // pieces that this member cut itself, from upstream
	Copied     int64 // bytes of pieces that were here already, in other files
	Taken      int64 // pieces from members that matched their statement
	Refused    int64 // pieces from members that did not
	Duplicates int64 // pieces of both that came twice, or when no job wanted them any more
	Bans       int64
	Claims     int64            // extents that this member began to fetch upstream
	Takeovers  int64            // times it asked for one that another member had claimed and got no further with
	Deaf       int64            // neighbours given up because they said nothing
	Took       histogram.Counts // how long the pieces took that members sent, from asking to the last byte
}

// arrival counts a piece that went into the store, and what of it was here: perhaps
// all.
func (c *Counters) arrival(own, wanted bool, here int64, all bool) {
	c.Copied += here
	switch {
	case !wanted:
		c.Duplicates++
	case all:
	case own:
		c.Cut++
	default:
		c.Taken++
	}
}

func (c *Counters) asked(list []plan.Ask) {
	for _, a := range list {
		if a.Takeover {
			c.Takeovers++
		}
	}
}

// counters adds the traffic with every member that was ever met.
func (n *Node) counters() Counters {
	c := n.count
	c.Took = n.took.Read()
	for _, t := range n.stats {
		c.In += t.In
		c.Out += t.Out
	}
	return c
}
