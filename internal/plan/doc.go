// Package plan decides who does what: which piece to ask of whom next, who
// fetches which extent upstream, when a claim is taken over, who is banned.
//
// It is pure: no I/O, no goroutine, no timer; time is an argument and
// randomness a seed, so that a transcript of events replays to the same
// decisions. Three planners stand side by side:
//
//   - Swap picks pieces and the members to ask for them;
//   - Seats shares the upstream fetching out and settles who claims what;
//   - Bans remembers who misbehaved and for how long that counts;
//
// and Pace says how many extents one member fetches at once.
//
// None is safe for concurrent use: the swarm's owner loop calls them.
package plan

import (
	"crypto/sha256"
	"encoding/binary"

	"p2pagent/pkg/pieces"
)

// Peer names a member. The planners only compare and hash it.
type Peer string

// Score ranks a peer for something named by key: the highest score comes first
// (rendezvous hashing, Thaler and Ravishankar 1998). It depends on its two
// arguments alone, so members with different views of the swarm still agree on
// which of two peers comes before the other.
func Score(p Peer, key []byte) uint64 {
	h := sha256.New()
	h.Write([]byte(p))
	h.Write([]byte{0})
	h.Write(key)
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// Piece is one piece of one blob.
type Piece struct {
	Blob  pieces.Blob
	Index int
}

// Size returns the piece's length in bytes.
func (p Piece) Size() int64 {
	_, n := p.Blob.Piece(p.Index)
	return n
}
