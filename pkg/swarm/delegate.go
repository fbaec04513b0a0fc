package swarm

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"
)

// delegate is what memberlist calls. It calls most of it under its own lock, so
// nothing here may block or call memberlist.
type delegate struct{ m *Members }

// NodeMeta returns this member's facts.
func (d *delegate) NodeMeta(int) []byte {
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	return d.m.meta
}

// NotifyMsg takes a broadcast of another member.
func (d *delegate) NotifyMsg(b []byte) { d.m.gossip.receive(b) }

// GetBroadcasts hands out what is queued.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.gossip.queue.GetBroadcasts(overhead, limit)
}

// LocalState adds nothing to a push/pull.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState expects nothing of a push/pull.
func (d *delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive keeps out whoever has no proof or speaks another version. It is
// called for every rumour, so facts that are known already cost nothing.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m := d.m
	if n.Name == m.name {
		return nil
	}
	m.mu.Lock()
	e, known := m.roster[n.Name]
	m.mu.Unlock()
	if known && e.meta == string(n.Meta) {
		return nil
	}
	f, err := m.judge(n)
	if err != nil {
		m.refuse(Refusal{Peer: f.Peer, Name: f.Name, Addr: gossipAddr(n), Reason: err.Error()})
		return err
	}
	if m.o.Gater != nil {
		m.o.Gater.Admit(f.Peer, f.ips()...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.refused, string(f.Peer))
	return nil
}

// judge decodes and checks a member's facts.
func (m *Members) judge(n *memberlist.Node) (Facts, error) {
	p, err := peer.Decode(n.Name)
	if err != nil {
		return Facts{}, fmt.Errorf("name %q: not a peer id", n.Name)
	}
	f, err := DecodeFacts(p, n.Meta)
	if err != nil {
		return f, err
	}
	if !m.o.Key.CheckProof(p, f.Proof) {
		return f, ErrProof
	}
	return f, nil
}

// NotifyJoin enters a member that came, or came back.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.enter(n, 1) }

// NotifyUpdate takes a member's new facts.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.enter(n, 0) }

func (d *delegate) enter(n *memberlist.Node, more int64) {
	m := d.m
	if n.Name == m.name {
		return
	}
	f, err := m.judge(n)
	if err != nil {
		return // can't be: NotifyAlive just let it pass
	}
	m.count.Add(more)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roster[n.Name] = rosterEntry{facts: f, meta: string(n.Meta), addr: gossipAddr(n)}
	delete(m.lost, n.Name)
	delete(m.refused, string(f.Peer))
	m.events.push(event{facts: f, up: true})
}

// NotifyLeave drops a member that left or died. Its proof stays known: gossip
// may be wrong about a death, and transfers must not suffer.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	m := d.m
	if n.Name == m.name {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.roster[n.Name]
	if !ok {
		return
	}
	m.count.Add(-1)
	delete(m.roster, n.Name)
	m.remember(n.Name, e)
	m.events.push(event{facts: e.facts})
}

// NotifyConflict notes two live members under one peer id: an identity file was
// copied, or a member moved before its old address was found dead.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if other.Name == d.m.name {
		d.m.conflict.Store(time.Now().UnixNano())
	}
	p, _ := peer.Decode(other.Name)
	d.m.refuse(Refusal{Peer: p, Addr: gossipAddr(other),
		Reason: fmt.Sprintf("the same identity is alive at %s: copied to a second machine, or moved a moment ago", gossipAddr(existing))})
}

func gossipAddr(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}

// lostMember is one that died or left (memberlist does not say which): perhaps
// it was the network between us that died. It is tried again for an hour.
type lostMember struct {
	rosterEntry
	at time.Time
}

const (
	maxLost  = 64
	lostTime = time.Hour
)

// remember notes a lost member. m.mu is held.
func (m *Members) remember(name string, e rosterEntry) {
	for old, l := range m.lost {
		if len(m.lost) >= maxLost || time.Since(l.at) > lostTime {
			delete(m.lost, old)
		}
	}
	m.lost[name] = lostMember{e, time.Now()}
}

// event is a member that came or went.
type event struct {
	facts Facts
	up    bool
}

// events is a queue that never blocks the sender and holds one event per
// member: the last one, in the place of the first.
type events struct {
	wake chan struct{}

	mu    sync.Mutex // guards the two below
	order []peer.ID
	last  map[peer.ID]event
}

func newEvents() *events { return &events{wake: make(chan struct{}, 1), last: map[peer.ID]event{}} }

func (q *events) push(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.last[e.facts.Peer]; !ok {
		q.order = append(q.order, e.facts.Peer)
	}
	q.last[e.facts.Peer] = e
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *events) next() (event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return event{}, false
	}
	p := q.order[0]
	q.order = q.order[1:]
	e := q.last[p]
	delete(q.last, p)
	return e, true
}
