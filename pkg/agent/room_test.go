package agent_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"p2pagent/internal/cluster"
	"p2pagent/internal/desired"
	"p2pagent/internal/leaktest"
	"p2pagent/internal/rollout"
	"p2pagent/internal/stall"
	"p2pagent/internal/wire"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// room is a Hub and agents with everything real: hosts, gossip, caches, clients.
// Only the network is in memory. It lives in a synctest bubble.
type room struct {
	t      *testing.T
	hub    *hubtest.Server
	memory *hubtest.Memory
	way    way // to the Hub
	*cluster.Cluster
	furniture furniture
	units     []*unit

	mu    sync.Mutex
	asked []ask // what the Hub and its CDN were asked, in order
}

// ask is one request of an agent.
type ask struct {
	at   time.Time
	path string
}

// unit is one agent with its parts.
type unit struct {
	*agent.Agent
	room   *room
	node   *cluster.Node
	cache  *cachefs.Cache
	side   *side
	notes  *notebook
	fleet  *rollout.Fleet
	keeper *desired.Keeper
	told   *notebook          // what rollouts told
	halt   context.CancelFunc // ends the agent alone
	stop   context.CancelFunc // ends all its parts
	ended  sync.WaitGroup
}

// inRoom runs test with n agents that have settled, and checks that nothing is
// left of them.
func inRoom(t *testing.T, n int, test func(t *testing.T, r *room)) {
	t.Helper()
	inRoomWith(t, n, furniture{retries: -1}, test)
}

// furniture is what a room is furnished with.
type furniture struct {
	hub     hubtest.Options // with Xet, agents read from the Hub's store
	retries int             // of API calls, as in hub.Options
	taps    *taps           // on all that members write; nil for none
	cluster cluster.Options // without the key
	cache   func(i int, o *cachefs.Options)
	store   func(c *cachefs.Cache) swarm.Store // what the swarm has in place of the cache
	facts   func(i int, f *swarm.Facts)
	quota   int64 // of every cache
}

func inRoomWith(t *testing.T, n int, f furniture, test func(t *testing.T, r *room)) {
	t.Helper()
	leaktest.Check(t)
	synctest.Test(t, func(t *testing.T) {
		if f.cluster.Key = swarm.NewKey(); f.taps != nil {
			f.cluster.Key = swarm.Key{} // which leaves gossip in the clear
			f.cluster.Host = func(_ int, o *swarm.HostOptions) { o.Clear = f.taps.streams.note }
		}
		r := &room{t: t, furniture: f, hub: hubtest.New(f.hub)}
		r.memory = r.hub.Memory(t)
		r.Cluster = cluster.New(t, n, f.cluster)
		for i := range n {
			r.units = append(r.units, r.start(i, nil))
		}
		defer r.end()
		for _, u := range r.units {
			if err := u.side.Settled(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		test(t, r)
	})
}

func (r *room) end() {
	for _, u := range r.units {
		u.end()
	}
	for _, n := range r.Nodes {
		n.Host.Close()
	}
	time.Sleep(time.Minute) // timers of memberlist and libp2p drain
	for _, n := range r.Nodes {
		checkNothingLeft(r.t, n.Dir)
	}
}

// checkNothingLeft looks for temporary files, which a machine that has ended must
// not leave.
func checkNothingLeft(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(dir, "state", "cache", "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

// keep wires what is desired as cmd/p2pagent does.
func (u *unit) keep(members *swarm.Members, node *swarm.Node) {
	var err error
	u.keeper, err = desired.New(desired.Options{
		Fetch: func(ctx context.Context, m desired.Model, told func(desired.Progress)) (pieces.Commit, error) {
			res, err := u.Ensure(ctx, agent.Request{
				Ref: m.Ref, Commit: m.Commit, Include: m.Include, Exclude: m.Exclude, Tied: true,
				Watch: func(j agent.Job) {
					told(desired.Progress{Total: j.Total, Completed: j.Completed, Here: j.Here, Upstream: j.Upstream, Peers: j.FromPeers()})
				},
			})
			return pieces.Commit(res.Commit), err
		},
		Kind:     func(err error) (string, bool) { return kindText(err), kindText(err) == string(agent.NoSpace) },
		Rollouts: func(refs []pieces.Ref) error { return u.PinOnly(agent.ByRollout, refs) },
		Notebook: u.told,
	})
	u.room.must(err)
	u.fleet = rollout.NewFleet(rollout.FleetOptions{
		Members: members, Asker: node, Keeper: u.keeper, Kind: kindText, Logger: slog.New(slog.DiscardHandler),
		Check: func(include, exclude []string) error { _, err := agent.Match(nil, include, exclude); return err },
	})
}

func kindText(err error) string { return string(agentError(err).Kind) }

func (u *unit) end() {
	u.stop()
	u.ended.Wait()
	if err := u.cache.Close(); err != nil {
		u.room.t.Error(err)
	}
}

// start wires a machine as cmd/p2pagent does.
func (r *room) start(i int, change func(*agent.Options)) *unit {
	r.t.Helper()
	n := r.Nodes[i]
	u := &unit{room: r, node: n, notes: &notebook{}, told: &notebook{}}
	if len(r.units) > i {
		u.notes, u.told = r.units[i].notes, r.units[i].told
	}
	signer := pieces.NewSigner(n.Identity)
	co := cachefs.Options{Hub: filepath.Join(n.Dir, "hub"), State: filepath.Join(n.Dir, "state", "cache"), Signer: signer, Quota: r.furniture.quota, Logger: r.furniture.taps.logger()}
	if r.furniture.cache != nil {
		r.furniture.cache(i, &co)
	}
	cache, err := cachefs.Open(co)
	r.must(err)
	u.cache = cache
	var node *swarm.Node
	o := n.MemberOptions(r.Nodes[0].GossipAddr(), r.Nodes[len(r.Nodes)-1].GossipAddr())
	if len(r.Nodes) == 1 {
		o.Join = nil
	}
	log := r.furniture.taps.logger()
	if r.furniture.taps != nil {
		o.Transport = tappedGossip{o.Transport, r.furniture.taps}
	}
	o.Logger = log
	if r.furniture.facts != nil {
		r.furniture.facts(i, &o.Facts)
	}
	o.OnUp = func(f swarm.Facts) { node.MemberUp(f) }
	o.OnDown = func(p peer.ID) { node.MemberDown(p) }
	members, err := swarm.NewMembers(o)
	r.must(err)
	client, err := hub.New(hub.Options{
		Endpoint: hubtest.MemoryHub, Transport: r.transport(), Retries: r.furniture.retries,
		OnWait: func(bucket string, until time.Time) { node.Hold(bucket, time.Until(until)) }, Logger: log,
	})
	r.must(err)
	var store swarm.Store = cache
	if r.furniture.store != nil {
		store = r.furniture.store(cache)
	}
	node, err = swarm.New(swarm.Config{
		Host: n.Host, Members: members, Store: store, Signer: signer, Name: n.Name, Upstream: true,
		Records: func(key string) ([]byte, bool) { return u.Record(key) },
		OnHold:  func(bucket string, wait time.Duration) { client.Hold(bucket, time.Now().Add(wait)) }, Logger: log,
		OnRollout: func(ctx context.Context, from string, o wire.Rollout, report func(wire.Report) error) error {
			return u.fleet.Take(ctx, from, o, report)
		},
	})
	r.must(err)
	u.side = &side{node}
	u.keep(members, node)
	ao := agent.Options{
		Cache: cache, Swarm: u.side, Notebook: u.notes, Classify: classify, Prefer: node.Prefer,
		Seeder: seeder.New(seeder.Options{Signer: signer, GiveUp: 2, Border: cache.Border, Logger: log}), Logger: log,
		About: func() agent.About { return agent.About{PID: os.Getpid(), Name: n.Name} },
	}
	rights := func(h *hub.Client) agent.Rights { return agent.Rights{Hub: h} }
	if r.furniture.hub.Xet != nil {
		rights, ao.Deltas = r.xetRights(client), r.deltas(filepath.Join(n.Dir, "state"))
	}
	ao.Rights, ao.As = rights(client), func(token string) agent.Rights { return rights(client.As(token)) }
	if change != nil {
		change(&ao)
	}
	u.Agent, err = agent.New(ao)
	r.must(err)
	ctx, stop := context.WithCancel(context.Background())
	u.stop = stop
	for _, run := range []func(context.Context) error{cache.Run, members.Run, node.Run, u.keeper.Run} {
		u.ended.Go(func() { r.check(run(ctx)) })
	}
	front, halt := context.WithCancel(ctx)
	u.halt = halt
	u.ended.Go(func() { r.check(u.Run(front)) })
	return u
}

// restart ends an agent and starts another on its machine, cache and notes.
func (r *room) restart(i int, change func(*agent.Options)) *unit {
	r.t.Helper()
	old := r.units[i]
	old.end()
	r.Kill(old.node)
	old.node.Host.Close()
	r.must(r.Cluster.Start(old.node))
	u := r.start(i, change)
	r.units[i] = u
	r.must(u.side.Settled(r.t.Context()))
	return u
}

func (r *room) transport() http.RoundTripper {
	return &witness{&wayToHub{r.memory.Transport(r.t), &r.way}, r}
}

// witness notes what is asked on the way to the Hub.
type witness struct {
	*wayToHub
	room *room
}

func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	w.room.furniture.taps.request(req)
	w.room.mu.Lock()
	w.room.asked = append(w.room.asked, ask{time.Now(), req.URL.Path})
	w.room.mu.Unlock()
	return w.wayToHub.RoundTrip(req)
}

// asks returns what was asked whose path has the text in it.
func (r *room) asks(text string) []ask {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ask
	for _, a := range r.asked {
		if strings.Contains(a.path, text) {
			out = append(out, a)
		}
	}
	return out
}

// way is the network between the room and the Hub. It can break.
type way struct {
	mu   sync.Mutex
	cut  chan struct{} // closed when it breaks
	down bool
}

// state returns whether it is broken, and what tells when it breaks.
func (w *way) state() (down bool, cut <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == nil {
		w.cut = make(chan struct{})
	}
	return w.down, w.cut
}

// Break resets what is under way and refuses what comes, until Mend.
func (w *way) Break() {
	w.state()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	close(w.cut)
}

func (w *way) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down, w.cut = false, nil
}

type wayToHub struct {
	*http.Transport
	*way
}

func (w *wayToHub) RoundTrip(req *http.Request) (*http.Response, error) {
	down, cut := w.state()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	resp, err := w.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = newCutBody(resp.Body, cut)
	return resp, nil
}

// cutBody is a body that is reset when the way breaks.
type cutBody struct {
	io.ReadCloser
	cut  <-chan struct{}
	once sync.Once
	done chan struct{}
}

func newCutBody(body io.ReadCloser, cut <-chan struct{}) *cutBody {
	b := &cutBody{ReadCloser: body, cut: cut, done: make(chan struct{})}
	go func() {
		select {
		case <-cut:
			body.Close()
		case <-b.done:
		}
	}()
	return b
}

func (b *cutBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	select {
	case <-b.cut:
		if err != nil && err != io.EOF {
			err = syscall.ECONNRESET
		}
	default:
	}
	return n, err
}

func (b *cutBody) Close() error {
	b.once.Do(func() { close(b.done) })
	return b.ReadCloser.Close()
}

func (r *room) check(err error) {
	if err != nil {
		r.t.Error(err)
	}
}

func (r *room) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// side is what cmd/p2pagent has as swarmSide, with peer ids for names.
type side struct{ *swarm.Node }

func (s *side) Fetch(ctx context.Context, t agent.Transfer, report func(agent.Progress)) error {
	job := swarm.Job{Name: t.Name, Blobs: t.Blobs, Extents: t.Extents, Patience: t.Patience}
	if t.Upstream != nil {
		job.Upstream = t.Upstream
	}
	if t.Local != nil {
		job.Local = t.Local
	}
	return s.Node.Fetch(ctx, job, func(p swarm.Progress) {
		out := agent.Progress{Copied: p.Copied, Upstream: p.Upstream, Arriving: p.Arriving, Peers: map[string]int64{}, Missing: p.Pieces - p.Held, Unheld: p.Nobody, Waiting: p.Waiting}
		for id, n := range p.Peers {
			out.Peers[id.String()] = n
		}
		for _, g := range p.Gaps {
			out.Gaps = append(out.Gaps, agent.Gap{Blob: g.Blob, First: g.First, Last: g.First + g.Count - 1})
		}
		report(out)
	})
}

func classify(err error) agent.Kind {
	if e, ok := errors.AsType[*hub.StatusError](err); ok && e.Status >= 500 {
		return agent.Unreachable
	}
	if _, ok := errors.AsType[*cachefs.NoSpaceError](err); ok {
		return agent.NoSpace
	}
	for _, row := range []struct {
		kind agent.Kind
		errs []error
	}{
		{agent.Denied, []error{hub.ErrGated, hub.ErrUnauthorized}},
		{agent.NotFound, []error{hub.ErrRepoNotFound, hub.ErrRevisionNotFound, cachefs.ErrNotCached, swarm.ErrNoRecord}},
		{agent.Unreachable, []error{hub.ErrUnreachable}},
		{agent.Stalled, []error{stall.ErrStalled, seeder.ErrGaveUp}},
		{agent.Integrity, []error{pieces.ErrDigest}},
	} {
		for _, target := range row.errs {
			if errors.Is(err, target) {
				return row.kind
			}
		}
	}
	return agent.Other
}

// notebook keeps notes in memory, over restarts of an agent.
type notebook struct {
	mu  sync.Mutex
	raw []byte
}

func (n *notebook) Load() ([]byte, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.raw, nil
}

func (n *notebook) Save(raw []byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.raw = raw
	return nil
}

// model adds a repository of two shards, small files and an empty one.
func (r *room) model(name string) pieces.Commit {
	return r.hub.AddRepo(hubtest.RepoSpec{ID: name, Files: []hubtest.File{
		{Path: "model-1.safetensors", Content: hubtest.Generated(1, 9<<20)},
		{Path: "model-2.safetensors", Content: hubtest.Generated(2, 5<<20+3)},
		{Path: "config.json", Content: hubtest.Bytes([]byte(`{"a":1}`))},
		{Path: "nested/tokenizer.json", Content: hubtest.Generated(3, 70_000)},
		{Path: "empty.txt", Content: hubtest.Bytes(nil)},
	}})
}

// content returns the bytes of a file of model.
func (r *room) content(f pieces.File) []byte {
	seed := map[string]uint64{"model-1.safetensors": 1, "model-2.safetensors": 2, "nested/tokenizer.json": 3}[f.Path]
	if seed == 0 {
		return []byte(`{"a":1}`)[:f.Blob.Size]
	}
	out := make([]byte, f.Blob.Size)
	hubtest.Generated(seed, f.Blob.Size).ReadAt(out, 0)
	return out
}

const modelSize = 9<<20 + 5<<20 + 3 + 7 + 70_000

func (r *room) ref(s string) pieces.Ref {
	ref, err := pieces.ParseRef(s)
	r.must(err)
	return ref
}

// fetch ensures within a minute of virtual time.
func (u *unit) fetch(ref string, change func(*agent.Request)) (agent.Result, error) {
	ctx, cancel := context.WithTimeoutCause(u.room.t.Context(), time.Minute, errors.New("the test's minute is over"))
	defer cancel()
	req := agent.Request{Ref: u.room.ref(ref)}
	if change != nil {
		change(&req)
	}
	return u.Ensure(ctx, req)
}

// checkSnapshot compares files of a snapshot with the outline.
func checkSnapshot(t *testing.T, dir string, o *pieces.Outline) {
	t.Helper()
	for _, f := range o.Files {
		raw, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Error(err)
			continue
		}
		h := f.Blob.NewHash()
		h.Write(raw)
		if err := f.Blob.Check(h); err != nil || int64(len(raw)) != f.Blob.Size {
			t.Errorf("%s: %d bytes, want %d: %v", f.Path, len(raw), f.Blob.Size, err)
		}
	}
}

func writeDir(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
