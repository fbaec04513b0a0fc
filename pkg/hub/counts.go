package hub

import (
	"net/http"
	"sync/atomic"
)

// Counts are what a client has met since it was made. They only grow.
type Counts struct {
	// Requests by the first digit of their status: 2 for 200 to 299, and 0 for
	// those that got no answer.
	Requests [6]int64
	Waits    int64 // times the Hub asked for a pause (429)
	Stalls   int64 // answers and bodies that were given up because bytes stopped
}

type counts struct {
	requests      [6]atomic.Int64
	waits, stalls atomic.Int64
}

// answered counts a request; resp is nil when it got no answer.
func (c *counts) answered(resp *http.Response) {
	class := 0
	if resp != nil && resp.StatusCode >= 100 && resp.StatusCode < 600 {
		class = resp.StatusCode / 100
	}
	c.requests[class].Add(1)
}

// Counts returns the counts as they are now.
func (c *Client) Counts() Counts {
	out := Counts{Waits: c.count.waits.Load(), Stalls: c.count.stalls.Load()}
	for i := range c.count.requests {
		out.Requests[i] = c.count.requests[i].Load()
	}
	return out
}
