package main

import (
	"context"
	"sync"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
)

// The parts satisfy what their users ask for.
var (
	_ swarm.Store      = (*cachefs.Cache)(nil)
	_ swarm.Membership = (*swarm.Members)(nil)
	_ agent.Cache      = (*cachefs.Cache)(nil)
	_ agent.Hub        = (*hub.Client)(nil)
	_ agent.Seeder     = (*seeder.Seeder)(nil)
	_ agent.Swarm      = (*swarmSide)(nil)
	_ swarm.Upstream   = agent.Upstream(nil)
	_ swarm.Local      = agent.Local(nil)
)

// swarmSide lets the agent use a node: it names members, which the agent shows
// to people, where the node has peer ids.
type swarmSide struct {
	node    *swarm.Node
	members *swarm.Members

	mu    sync.Mutex
	names map[string]string // by peer id
}

// statusWait bounds the question to the node's loop.
const statusWait = 2 * time.Second

func (s *swarmSide) Settled(ctx context.Context) error { return s.node.Settled(ctx) }

func (s *swarmSide) Record(ctx context.Context, key string, maxAge time.Duration, get func(context.Context) ([]byte, error)) ([]byte, error) {
	return s.node.Record(ctx, key, maxAge, get)
}

func (s *swarmSide) Offer(blobs []pieces.Blob)    { s.node.Offer(blobs) }
func (s *swarmSide) Withdraw(blobs []pieces.Blob) { s.node.Withdraw(blobs) }

func (s *swarmSide) Doubt(b pieces.Blob, indexes []int) { s.node.Doubt(b, indexes) }

func (s *swarmSide) Fetch(ctx context.Context, t agent.Transfer, report func(agent.Progress)) error {
	job := swarm.Job{Name: t.Name, Blobs: t.Blobs, Extents: t.Extents, Patience: t.Patience}
	if t.Upstream != nil { // a nil interface must stay one
		job.Upstream = t.Upstream
	}
	if t.Local != nil {
		job.Local = t.Local
	}
	return s.node.Fetch(ctx, job, func(p swarm.Progress) {
		out := agent.Progress{
			Copied: p.Copied, Upstream: p.Upstream, Arriving: p.Arriving, Peers: make(map[string]int64, len(p.Peers)),
			Missing: p.Pieces - p.Held, Unheld: p.Nobody, Waiting: p.Waiting,
		}
		for id, n := range p.Peers {
			out.Peers[s.name(id.String())] += n
		}
		for _, g := range p.Gaps {
			out.Gaps = append(out.Gaps, agent.Gap{Blob: g.Blob, First: g.First, Last: g.First + g.Count - 1})
		}
		report(out)
	})
}

// name returns what people call a member: its host name, with the end of its
// peer id when another member has the same.
func (s *swarmSide) name(id string) string {
	s.mu.Lock()
	name, ok := s.names[id]
	s.mu.Unlock()
	if ok {
		return name
	}
	s.peers() // learns the names
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.names[id]; ok {
		return name
	}
	return id
}

// peers returns the other members, banned ones included, with their names.
func (s *swarmSide) peers() []agent.Peer {
	ctx, cancel := context.WithTimeout(context.Background(), statusWait)
	defer cancel()
	st, err := s.node.Status(ctx)
	if err != nil {
		return nil // the node has stopped
	}
	out := make([]agent.Peer, 0, len(st.Members))
	at := map[string]int{}
	for _, m := range st.Members {
		at[m.Peer] = len(out)
		out = append(out, agent.Peer{
			Name: m.Name, PeerID: m.Peer, Neighbour: m.Neighbour, Silent: m.Silent.Seconds(),
			Rate: m.Rate, In: m.In, Out: m.Out, Fault: m.Fault,
		})
	}
	for _, b := range st.Bans {
		i, ok := at[b.Peer]
		if !ok {
			i = len(out)
			out = append(out, agent.Peer{Name: b.Name, PeerID: b.Peer})
		}
		out[i].Banned, out[i].BannedUntil = b.Reason, b.Until
	}
	s.distinguish(out, st.Peer)
	return out
}

// distinguish makes names unique and remembers them.
func (s *swarmSide) distinguish(peers []agent.Peer, self string) {
	count := map[string]int{s.members.Self().Name: 1}
	for _, p := range peers {
		count[p.Name]++
	}
	names := map[string]string{self: "this member"}
	for i := range peers {
		p := &peers[i]
		if p.Name == "" || count[p.Name] > 1 {
			p.Name += "#" + p.PeerID[max(0, len(p.PeerID)-6):]
		}
		names[p.PeerID] = p.Name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, name := range s.names { // members that left keep their name in a job's sums
		if _, ok := names[id]; !ok {
			names[id] = name
		}
	}
	s.names = names
}
