package swarm

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/hashicorp/memberlist"
)

const (
	// maxBroadcast is the longest message: memberlist sends only what fits one
	// packet of 1,400 bytes beside its own news, and keeps the rest for ever.
	maxBroadcast = 1 << 10
	// maxQueued bounds messages waiting to be sent or passed on: at 1 KiB each,
	// what three packets every 200 ms carry in half a minute.
	maxQueued = 512
	// maxSeen is how many messages are remembered to pass each on once.
	maxSeen = 8 << 10
	// retransmits is memberlist's factor: every member sends one message
	// 4*ceil(log10(n+1)) times to members chosen at random. In a swarm of 16 that
	// is 128 in all, and one member misses it with (14/15)^128 = 0.015 %; with a
	// factor of 2 it was 1.2 %, one broadcast in six did not reach all (measured).
	retransmits = 4
)

var errTooLong = errors.New("too long for gossip")

// gossip is the queue of broadcasts. memberlist sends one to a few members
// only; it reaches all because every receiver passes it on once.
type gossip struct {
	queue *memberlist.TransmitLimitedQueue
	inbox chan []byte

	mu   sync.Mutex // guards seen
	seen *recent
}

func newGossip(members func() int) *gossip {
	return &gossip{
		queue: &memberlist.TransmitLimitedQueue{NumNodes: members, RetransmitMult: retransmits},
		inbox: make(chan []byte, 256),
		seen:  newRecent(maxSeen),
	}
}

// broadcast queues a message of this member.
func (g *gossip) broadcast(msg []byte) error {
	if len(msg) == 0 || len(msg) > maxBroadcast {
		return fmt.Errorf("broadcast %d bytes, want 1 to %d: %w", len(msg), maxBroadcast, errTooLong)
	}
	if g.first(msg) {
		g.pass(append([]byte(nil), msg...))
	}
	return nil
}

// receive takes a message of another member: the first time it is delivered and
// passed on. When nobody takes deliveries it is dropped here, yet passed on.
func (g *gossip) receive(msg []byte) {
	if len(msg) == 0 || len(msg) > maxBroadcast || !g.first(msg) {
		return
	}
	g.pass(append([]byte(nil), msg...))
	select {
	case g.inbox <- append([]byte(nil), msg...):
	default:
	}
}

func (g *gossip) first(msg []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen.add(msg)
}

func (g *gossip) pass(msg []byte) {
	g.queue.QueueBroadcast(rumour(msg))
	g.queue.Prune(maxQueued)
}

// rumour is one broadcast in memberlist's queue.
type rumour []byte

// Invalidates is false: no message replaces another.
func (rumour) Invalidates(memberlist.Broadcast) bool { return false }

// Message returns the bytes.
func (r rumour) Message() []byte { return r }

// Finished does nothing.
func (rumour) Finished() {}

// UniqueBroadcast saves memberlist the search for what it replaces.
func (rumour) UniqueBroadcast() {}

// recent remembers the last n messages by their hash, under a secret seed so
// that nobody can make two collide.
type recent struct {
	seed maphash.Seed
	has  map[uint64]bool
	ring []uint64
	next int
}

func newRecent(n int) *recent {
	return &recent{seed: maphash.MakeSeed(), has: make(map[uint64]bool), ring: make([]uint64, 0, n)}
}

// add reports whether msg is new, and remembers it.
func (r *recent) add(msg []byte) bool {
	h := maphash.Bytes(r.seed, msg)
	if r.has[h] {
		return false
	}
	if len(r.ring) < cap(r.ring) {
		r.ring = append(r.ring, h)
	} else {
		delete(r.has, r.ring[r.next])
		r.ring[r.next] = h
		r.next = (r.next + 1) % len(r.ring)
	}
	r.has[h] = true
	return true
}
