package swarm

import (
	"fmt"
	"time"

	"p2pagent/internal/plan"
	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// handle takes in one message. It runs on the link's reader: what costs time
// (signatures, the disk) is done here, then the owner loop gets the result. The
// order of a link's messages is kept.
func (n *Node) handle(l *link, m wire.Message) error {
	switch m := m.(type) {
	case *wire.Ping:
		return nil
	case *wire.Want:
		return n.handleWant(l, m)
	case *wire.Unwant:
		n.post(func() { n.heardUnwant(l, m.Blobs) })
	case *wire.WantAck:
		n.post(func() { n.acked(l, m.Seq) })
	case *wire.AskAck:
		n.post(func() { n.acked(l, m.Seq) })
	case *wire.Offer:
		return n.handleOffer(l, m)
	case *wire.Withdraw:
		n.post(func() { n.heardWithdraw(l, m.Blob) })
	case *wire.Retract:
		n.post(func() { n.heardRetract(l, m) })
	case *wire.Claim:
		n.post(func() { n.heardClaim(l, m) })
	case *wire.ClaimAck:
		n.post(func() { n.heardClaimAck(l, m) })
	case *wire.Ask:
		return n.handleAsk(l, m)
	case *wire.Record:
		return n.handleRecord(l, m)
	case *wire.Hold:
		n.post(func() {
			if n.current(l) {
				n.heardHold(m)
			}
		})
	default:
		return fmt.Errorf("%T on a swarm stream: %w", m, wire.ErrProtocol)
	}
	return nil
}

// current tells whether l is still the link with its peer and the peer's word
// counts.
func (n *Node) current(l *link) bool {
	return n.links[l.peer] == l && !n.bans.Banned(time.Now(), l.peer)
}

// handleWant first has the want noted, so that pieces stored from now on are
// offered, then offers what is here already, then sends the claims and the ack.
func (n *Node) handleWant(l *link, m *wire.Want) error {
	if !n.post(func() { n.heardWant(l, m) }) {
		return errStopped
	}
	for _, b := range m.Blobs {
		if err := n.offerHeld(l, b); err != nil {
			return err
		}
	}
	n.post(func() {
		if n.links[l.peer] == l {
			n.sendClaims(l)
			l.send(&wire.WantAck{Seq: m.Seq})
		}
	})
	return nil
}

func (n *Node) offerHeld(l *link, b pieces.Blob) error {
	statements := n.cfg.Store.Statements(b)
	for len(statements) > 0 {
		batch := statements[:min(len(statements), wire.MaxStatements)]
		statements = statements[len(batch):]
		raw, err := pieces.MarshalStatements(batch)
		if err != nil {
			return err
		}
		l.send(&wire.Offer{Blob: b, Statements: raw})
	}
	return nil
}

// What one neighbour can make this member remember.
const (
	maxWants  = pieces.MaxFiles
	maxAsks   = 4096
	maxClaims = 4096
)

func (n *Node) heardWant(l *link, m *wire.Want) {
	if n.links[l.peer] != l {
		return
	}
	for _, b := range m.Blobs {
		if !l.wants[b] && len(l.wants) >= maxWants {
			l.close(fmt.Errorf("more than %d blobs wanted: %w", maxWants, wire.ErrProtocol))
			return
		}
		l.wants[b] = true
		if m.Upstream {
			l.upstream[b] = true
		} else {
			delete(l.upstream, b)
		}
		n.swap.Wants(l.peer, b, true)
		n.rivalry(l, b)
	}
}

func (n *Node) heardUnwant(l *link, blobs []pieces.Blob) {
	for _, b := range blobs {
		delete(l.wants, b)
		delete(l.upstream, b)
		delete(l.offers, b)
		n.swap.Wants(l.peer, b, false)
		n.rivalry(l, b)
	}
}

func (n *Node) handleOffer(l *link, m *wire.Offer) error {
	statements, err := n.parseOffer(l, m)
	if err != nil {
		return err
	}
	l.offered.Store(time.Now().UnixNano())
	n.post(func() { n.heardOffer(l, m.Blob, statements) })
	return nil
}

// parseOffer checks the signatures of statements that are new.
func (n *Node) parseOffer(l *link, m *wire.Offer) ([]pieces.Statement, error) {
	statements, err := pieces.DecodeStatements(m.Blob, m.Statements)
	if err != nil {
		return nil, err
	}
	for _, st := range statements {
		if err := n.proofs.learn(st, l.peer); err != nil {
			return nil, err
		}
	}
	return statements, nil
}

func (n *Node) heardOffer(l *link, b pieces.Blob, statements []pieces.Statement) {
	if !n.current(l) {
		return
	}
	state := n.blobs[b]
	if state == nil {
		return // not wanted (any more): a Want would bring the offers again
	}
	now := time.Now()
	maker, _ := MakerOf(peerID(l.peer))
	for _, st := range statements {
		if st.Maker == maker {
			state.restate(st)
		}
		if !state.accepts(st) {
			continue
		}
		n.swap.Offer(now, l.peer, plan.Piece{Blob: b, Index: st.Index})
		n.touch(b, st.Index)
	}
}

func (n *Node) heardWithdraw(l *link, b pieces.Blob) {
	n.swap.Withdraw(l.peer, b)
	for _, t := range n.tasksOf(b) {
		t.dirty = true
	}
}

// Offer tells the neighbours that want them that blobs are here now which came
// another way than by Fetch.
func (n *Node) Offer(blobs []pieces.Blob) {
	for _, b := range blobs {
		var wanting []*link
		n.post(func() {
			for _, l := range n.links {
				if l.wants[b] {
					wanting = append(wanting, l)
				}
			}
			n.tasks.Go(func() error {
				for _, l := range wanting {
					n.offerHeld(l, b)
				}
				return nil
			})
		})
	}
}

// Withdraw tells the neighbours that nothing of these blobs is held here any
// more.
func (n *Node) Withdraw(blobs []pieces.Blob) {
	n.post(func() {
		for _, l := range n.links {
			for _, b := range blobs {
				l.send(&wire.Withdraw{Blob: b})
			}
		}
	})
}
