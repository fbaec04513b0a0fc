package plan

import (
	"time"
)

// The simulated network moves bytes as a fluid, in steps of virtual time. A
// flow's rate is its fair part of the sender's uplink or of the receiver's
// downlink, whichever is less; what is left over of both is shared out a few
// times more. Messages take one or two steps.

// ends is one machine's link, or the Hub's.
type ends struct {
	up, down         float64 // bytes a second
	sends, receives  int     // flows
	freeUp, freeDown float64
	sent             float64 // bytes
}

// flow is bytes on their way.
type flow struct {
	from, to *ends
	left     float64
	rate     float64
	at       int // index in network.flows
	done     func()
	progress func(bytes float64) // may be nil
}

type network struct {
	now   time.Time
	step  time.Duration
	flows []*flow
	ended []*flow
	mail  [4][]func() // delivered in so many steps
	tick  int
}

func newNetwork(step time.Duration) *network {
	return &network{now: time.Unix(1_700_000_000, 0), step: step}
}

// post has f run after about two milliseconds.
func (n *network) post(f func()) {
	slot := (n.tick + max(1, int(2*time.Millisecond/n.step))) % len(n.mail)
	n.mail[slot] = append(n.mail[slot], f)
}

func (n *network) start(f *flow) {
	f.at = len(n.flows)
	n.flows = append(n.flows, f)
	f.from.sends++
	f.to.receives++
}

func (n *network) stop(f *flow) {
	if f.at < 0 {
		return
	}
	last := n.flows[len(n.flows)-1]
	n.flows[f.at], last.at = last, f.at
	n.flows = n.flows[:len(n.flows)-1]
	f.at = -1
	f.from.sends--
	f.to.receives--
}

// advance moves time on by one step: bytes flow, then mail is delivered.
func (n *network) advance() {
	n.now = n.now.Add(n.step)
	n.share()
	seconds := n.step.Seconds()
	for _, f := range n.flows {
		bytes := min(f.rate*seconds, f.left)
		f.left -= bytes
		f.from.sent += bytes
		if f.progress != nil {
			f.progress(bytes)
		}
		if f.left < 1 {
			n.ended = append(n.ended, f)
		}
	}
	for _, f := range n.ended {
		n.stop(f)
		f.done()
	}
	n.ended = n.ended[:0]
	n.tick++
	slot := n.tick % len(n.mail)
	mail := n.mail[slot]
	n.mail[slot] = nil
	for _, f := range mail {
		f()
	}
}

func (n *network) share() {
	for _, f := range n.flows {
		f.rate = 0
		f.from.freeUp, f.to.freeDown = f.from.up, f.to.down
	}
	for range 3 {
		for _, f := range n.flows {
			f.rate += max(0, min(f.from.freeUp/float64(f.from.sends), f.to.freeDown/float64(f.to.receives)))
		}
		for _, f := range n.flows {
			f.from.freeUp, f.to.freeDown = f.from.up, f.to.down
		}
		for _, f := range n.flows {
			f.from.freeUp -= f.rate
			f.to.freeDown -= f.rate
		}
	}
}
