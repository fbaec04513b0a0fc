package swarm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// leaveWait bounds how long a leaving member tries to say so. Others notice
	// within seconds anyhow.
	leaveWait = time.Second
	// streamWait bounds a dial and an exchange of state over TCP.
	streamWait = 5 * time.Second
	// updateEvery is the least time between two announcements of changed facts.
	updateEvery = time.Second
	// maxRefusals bounds the list of refused members, refusalTime how long one
	// that does not come again is on it.
	maxRefusals = 256
	refusalTime = time.Hour
)

// MemberOptions is what a Members is made of. Facts.Peer must be set.
type MemberOptions struct {
	// Key is the swarm's key; the zero Key makes an open swarm.
	Key Key
	// Bind is the IP address and Port the port (TCP and UDP) of gossip. An
	// empty Bind is all addresses; port 0 lets the kernel choose.
	Bind string
	Port int
	// Advertise is the IP address, and AdvertisePort the port, that others use.
	// Empty: Bind, or when that is all addresses, the one that AdvertiseIP finds.
	Advertise     string
	AdvertisePort int
	// Join is host:port of members to join. A name may resolve to many.
	Join []string
	// JoinTimeout is how long to try before going on alone (default 30 s).
	JoinTimeout time.Duration
	// Transport stands in for TCP and UDP (tests).
	Transport memberlist.Transport
	// Facts is what this member tells about itself. Proof and Version are set.
	Facts Facts
	// Gater, when set, is told of every member whose proof was checked, before
	// anybody else is.
	Gater *Gater
	// OnUp is told of a member that is alive, and again when its facts change.
	// OnDown is told when it left or died. OnMessage gets each broadcast of
	// others once; it owns the slice. All three are called one at a time, by a
	// goroutine of Run; what they do is waited for.
	OnUp      func(Facts)
	OnDown    func(peer.ID)
	OnMessage func([]byte)
	// Resolve looks up a name of Join (default: the system's resolver).
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger  *slog.Logger
}

// Refusal says why a member, or a stranger that tried to be one, is not let in.
type Refusal struct {
	Peer   peer.ID // empty when it did not get far enough to say
	Name   string  // host name, when known
	Addr   string  // where from
	Reason string
	Count  int       // times noticed
	At     time.Time // last time
}

// Members is the membership of one swarm: who is alive, and small messages to
// all of them. What it says is a hint: nothing is believed without a proof.
//
// The methods may be called from any goroutine, also before Run.
type Members struct {
	o    MemberOptions
	log  *slog.Logger
	name string

	gossip  *gossip
	events  *events
	logs    *logRouter
	settled chan struct{}
	changed chan struct{} // one slot: facts changed, announce them
	count   atomic.Int64  // members alive, this one included

	conflict atomic.Int64 // when others last knew this member under another address

	mu      sync.Mutex // guards all below; never held while calling memberlist
	facts   Facts
	meta    []byte
	roster  map[string]rosterEntry // by memberlist name, without this member
	refused map[string]*Refusal
	lost    map[string]lostMember
	joinErr error
}

// rosterEntry is a member that is alive, and the bytes its facts came in.
type rosterEntry struct {
	facts Facts
	meta  string
	addr  string // of gossip
}

// NewMembers checks the options. It opens nothing and starts nothing: Run does.
// Facts that had to lose labels are an error.
func NewMembers(o MemberOptions) (*Members, error) {
	if err := o.Facts.Peer.Validate(); err != nil {
		return nil, fmt.Errorf("new members: facts: %w", err)
	}
	o.JoinTimeout = cmp.Or(o.JoinTimeout, 30*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Resolve == nil {
		o.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	m := &Members{
		o: o, log: o.Logger, name: o.Facts.Peer.String(),
		settled: make(chan struct{}), changed: make(chan struct{}, 1),
		roster: map[string]rosterEntry{}, refused: map[string]*Refusal{}, lost: map[string]lostMember{},
	}
	m.count.Store(1)
	m.gossip = newGossip(func() int { return int(m.count.Load()) })
	m.events = newEvents()
	m.logs = newLogRouter(o.Logger, m.refuse)
	if err := m.setFacts(o.Facts); err != nil {
		return nil, fmt.Errorf("new members: %w", err)
	}
	if err := m.checkJoin(); err != nil {
		return nil, fmt.Errorf("new members: %w", err)
	}
	return m, nil
}

func (m *Members) checkJoin() error {
	var errs []error
	for _, j := range m.o.Join {
		host, port, err := net.SplitHostPort(j)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || perr != nil || n == 0 {
			errs = append(errs, fmt.Errorf("join %q: want host:port", j))
		}
	}
	return errors.Join(errs...)
}

// setFacts completes and encodes what is told about this member.
func (m *Members) setFacts(f Facts) error {
	f.Peer, f.Version, f.Proof = m.o.Facts.Peer, cmp.Or(f.Version, ProtocolVersion), m.o.Key.Proof(m.o.Facts.Peer)
	meta, err := f.Encode()
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.facts, m.meta = f, meta
	return nil
}

// Update replaces what this member tells about itself. Others learn it within
// about a second; changes in quick succession are announced together. On an
// error, also when labels would have to be dropped, nothing changes.
func (m *Members) Update(f Facts) error {
	if err := m.setFacts(f); err != nil {
		return fmt.Errorf("update facts: %w", err)
	}
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run takes part in the swarm until ctx ends, then leaves. It returns an error
// when the gossip port can't be opened (wrapping syscall.EADDRINUSE when it is
// taken), else nil after an orderly end. It may be called once.
func (m *Members) Run(ctx context.Context) error {
	transport, err := m.transport(ctx)
	if err != nil {
		return fmt.Errorf("run members: %w", err)
	}
	list, err := memberlist.Create(m.config(transport))
	if err != nil {
		transport.Shutdown()
		return fmt.Errorf("run members: %w", err)
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { m.dispatch(work) })
	wg.Go(func() { m.announce(ctx, list) })
	wg.Go(func() { newJoiner(m, list).run(ctx) })
	<-ctx.Done()
	if err := list.Leave(leaveWait); err != nil {
		m.log.Debug("leave swarm", "err", err)
	}
	err = list.Shutdown()
	stop()
	wg.Wait()
	if err != nil {
		return fmt.Errorf("run members: %w", err)
	}
	return nil
}

// config is memberlist's configuration for a machine room, changed where
// measurements (data plane notes) or safety say so.
func (m *Members) config(t memberlist.Transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = m.name
	c.Transport = t
	c.BindPort, c.AdvertisePort = m.o.Port, cmp.Or(m.o.AdvertisePort, m.o.Port)
	c.AdvertiseAddr = m.o.Advertise
	c.Label = "p2pagent"
	c.SecretKey = m.o.Key.gossip()
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true
	// 174 ms of CPU for 1 MiB of state; summaries and weights don't compress.
	c.EnableCompression = false
	c.TCPTimeout = streamWait
	// The peer id proves who it is, so a member that died may come back from
	// another address at once: it hears of its death and says so in that moment,
	// and then not again before the next push/pull.
	c.DeadNodeReclaimTime = time.Nanosecond
	d := &delegate{m}
	c.Delegate, c.Events, c.Alive, c.Conflict = d, d, d, d
	c.Logger = m.logs.logger()
	return c
}

// announce tells others of changed facts.
func (m *Members) announce(ctx context.Context, list *memberlist.Memberlist) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.changed:
		}
		if err := list.UpdateNode(leaveWait); err != nil {
			m.log.Debug("announce facts", "err", err) // the next push/pull carries them
		}
		pause.Reset(updateEvery)
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// dispatch calls the hooks, one at a time.
func (m *Members) dispatch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-m.gossip.inbox:
			if m.o.OnMessage != nil {
				m.o.OnMessage(msg)
			}
		case <-m.events.wake:
			for e, ok := m.events.next(); ok; e, ok = m.events.next() {
				m.tell(e)
			}
		}
	}
}

func (m *Members) tell(e event) {
	switch {
	case e.up && m.o.OnUp != nil:
		m.o.OnUp(e.facts)
	case !e.up && m.o.OnDown != nil:
		m.o.OnDown(e.facts.Peer)
	}
}

// Settled is closed once this member knows its swarm: it joined and the number
// of members stopped growing, or it has nobody to join, or JoinTimeout passed.
func (m *Members) Settled() <-chan struct{} { return m.settled }

// JoinError says why no configured address has been joined so far, nil when one
// was or none is configured. It may be set before Settled.
func (m *Members) JoinError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joinErr
}

func (m *Members) setJoinError(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joinErr = err
}

// Broadcast sends a message to all members, within about a second and perhaps
// not to every one. Two messages of the same bytes are one message: put a
// sequence number in. Longer ones than 1 KiB are refused, because gossip would
// keep them for ever and never send them.
func (m *Members) Broadcast(msg []byte) error { return m.gossip.broadcast(msg) }

// Self returns what this member tells about itself.
func (m *Members) Self() Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts
}

// List returns the other members that are alive, by peer id.
func (m *Members) List() []Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Facts, 0, len(m.roster))
	for _, e := range m.roster {
		out = append(out, e.facts)
	}
	slices.SortFunc(out, func(a, b Facts) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// Lost returns members that were alive in the last hour and are not in sight now, 64
// at most, by peer id.
func (m *Members) Lost() []Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Facts
	for _, l := range m.lost {
		if time.Since(l.at) <= lostTime {
			out = append(out, l.facts)
		}
	}
	slices.SortFunc(out, func(a, b Facts) int { return cmp.Compare(a.Peer, b.Peer) })
	return out
}

// Refused returns who was not let in during the last hour, and why, latest
// first.
func (m *Members) Refused() []Refusal {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]Refusal, 0, len(m.refused))
	for key, r := range m.refused {
		if time.Since(r.At) > refusalTime {
			delete(m.refused, key)
			continue
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Refusal) int { return b.At.Compare(a.At) })
	return out
}

// refuse notes a refusal; r.Peer, or else r.Addr, says of whom.
func (m *Members) refuse(r Refusal) {
	m.mu.Lock()
	key := cmp.Or(string(r.Peer), r.Addr)
	old, known := m.refused[key]
	if known {
		r.Count = old.Count
	} else if len(m.refused) >= maxRefusals {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(m.refused)), func(a, b string) int { return m.refused[a].At.Compare(m.refused[b].At) })
		delete(m.refused, oldest)
	}
	r.Count, r.At = r.Count+1, time.Now()
	m.refused[key] = &r
	news := !known || old.Reason != r.Reason
	m.mu.Unlock()
	if news {
		m.log.Warn("member refused", "addr", r.Addr, "peer", r.Peer, "name", r.Name, "reason", r.Reason)
	}
}

// transport opens the gossip port, or takes the one of the options.
func (m *Members) transport(ctx context.Context) (memberlist.Transport, error) {
	if m.o.Transport != nil {
		return m.o.Transport, nil
	}
	return newNetTransport(ctx, &m.o, m.logs.logger())
}
