package swarm

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// deadStream is a stream that can only be ended.
type deadStream struct{ network.Stream }

func (deadStream) Reset() error { return nil }

// newcomer is a neighbour of a node that does nothing.
func newcomer() (*Node, *link) {
	l := &link{
		peer: "neighbour", stream: deadStream{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		wants: map[pieces.Blob]bool{}, upstream: map[pieces.Blob]bool{}, asks: map[plan.Key]ask{}, told: map[plan.Key]bool{},
	}
	return &Node{
		links: map[plan.Peer]*link{l.peer: l}, records: map[string]*record{},
		swap: plan.NewSwap("self", plan.SwapOptions{}), seats: plan.NewSeats("self", plan.SeatOptions{}),
	}, l
}

// A neighbour that asks for many records in the course of time got most of them
// itself, and said no more of them: so does who learns what the files of large
// repositories are made of. It stays, and what it asked for last is remembered.
func TestManyRecordsAreAskedFor(t *testing.T) {
	n, l := newcomer()
	for i := range 2 * maxAsks {
		n.heardAsk(l, &wire.Ask{Seq: uint64(i), Key: fmt.Sprint("layout/", i)}, nil)
		if l.cause != nil {
			t.Fatalf("closed after %d: %v", i, l.cause)
		}
	}
	if _, last := l.asks[sha(fmt.Sprint("layout/", 2*maxAsks-1))]; !last || len(l.asks) > maxAsks {
		t.Errorf("%d are remembered; the last: %v", len(l.asks), last)
	}
}

// A neighbour may say again what it wants: a second job on the same large repository
// does, and one that can't fetch upstream any more.
func TestWantsAreSaidAgain(t *testing.T) {
	n, l := newcomer()
	want := func(from, to int) {
		for ; from < to && l.cause == nil; from += wire.MaxWantBlobs {
			m := &wire.Want{}
			for i := from; i < min(to, from+wire.MaxWantBlobs); i++ {
				m.Blobs = append(m.Blobs, pieces.Blob{Digest: pieces.SHA256Digest(numbered(i)), Size: 1})
			}
			n.heardWant(l, m)
		}
	}
	want(0, maxWants)
	want(0, maxWants)
	if l.cause != nil {
		t.Errorf("closed, wanting %d: %v", len(l.wants), l.cause)
	}
	want(maxWants, maxWants+1)
	if l.cause == nil {
		t.Errorf("not closed, wanting %d", len(l.wants))
	}
}

func numbered(i int) (out [32]byte) {
	binary.BigEndian.PutUint64(out[:], uint64(i))
	return out
}
