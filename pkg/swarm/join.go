package swarm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	joinRound    = 500 * time.Millisecond
	stableRounds = 3               // rounds without a new member that mean "settled"
	settleLimit  = 3 * time.Second // after the first answer, however much moves
	rejoinMin    = 15 * time.Second
	rejoinSpread = 15 * time.Second
	maxTargets   = 64 // addresses tried in one round
	extraJoins   = 3  // members met on the way that are joined too
	lostTries    = 3  // members lost that are tried in one round
	conflictTime = 10 * time.Second
	resolveWait  = 5 * time.Second
	resolveAgain = 5 * time.Second // least time between two look-ups of a name
)

// ErrOtherKey marks a join that failed because the other side holds another
// swarm key, or one side has none.
var ErrOtherKey = errors.New("swarm key differs")

// joiner brings one member into its swarm and keeps it there. Its fields belong
// to run's goroutine.
type joiner struct {
	m       *Members
	list    *memberlist.Memberlist
	wg      sync.WaitGroup
	results chan joinResult
	flying  map[string]bool      // addresses and names that are being tried
	joined  map[string]bool      // addresses that answered
	faults  map[string]error     // why the others did not
	names   map[string]*nameInfo // configured names and what they resolved to
	extra   int
	since   time.Time // of the first answer
	count   int
	stable  int
}

// joinResult is the outcome of one attempt at an address, or of looking up a
// name.
type joinResult struct {
	addr string
	err  error
	name *nameInfo // set for a name
}

// nameInfo is what a configured name stood for last.
type nameInfo struct {
	addrs []string
	next  time.Time // when to ask again
}

func newJoiner(m *Members, list *memberlist.Memberlist) *joiner {
	return &joiner{
		m: m, list: list, results: make(chan joinResult), flying: map[string]bool{},
		joined: map[string]bool{}, faults: map[string]error{}, names: map[string]*nameInfo{},
	}
}

// run joins, settles, and from then on looks for lost addresses now and then.
// Attempts under way are waited for; a transport of ours ends them with ctx.
func (j *joiner) run(ctx context.Context) {
	defer j.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if len(j.m.o.Join) > 0 {
		j.settle(ctx)
	} else {
		j.since = time.Now() // with nobody to join, a lost member that does not answer is no fault of joining
	}
	close(j.m.settled)
	for {
		j.listen(ctx, j.pause())
		j.found()
		if ctx.Err() != nil {
			return
		}
		j.launch(ctx, j.missing(ctx))
		if j.inConflict() {
			j.launch(ctx, j.some(extraJoins))
		}
	}
}

// inConflict reports whether others lately knew this member under another
// address: it moved, and they don't believe that before they find the old
// address dead. Until then nobody talks to it, so it has to go and say where it
// is.
func (j *joiner) inConflict() bool {
	return time.Since(time.Unix(0, j.m.conflict.Load())) < conflictTime
}

func (j *joiner) pause() time.Duration {
	if j.inConflict() {
		return joinRound + rand.N(2*joinRound)
	}
	return rejoinMin + rand.N(rejoinSpread)
}

// some returns up to n members in view.
func (j *joiner) some(n int) []string {
	var out []string
	for _, e := range j.list.Members() {
		if e.Name != j.m.name {
			out = append(out, gossipAddr(e))
		}
	}
	rand.Shuffle(len(out), func(a, b int) { out[a], out[b] = out[b], out[a] })
	return out[:min(n, len(out))]
}

// settle returns when the view is settled or, after at least one round,
// JoinTimeout has passed without an answer.
func (j *joiner) settle(ctx context.Context) {
	deadline := time.Now().Add(j.m.o.JoinTimeout)
	for ctx.Err() == nil && !j.isSettled() {
		j.launch(ctx, j.missing(ctx))
		if !j.since.IsZero() {
			j.launch(ctx, j.met())
		}
		j.listen(ctx, joinRound/2+rand.N(joinRound))
		j.found()
		if j.since.IsZero() && !time.Now().Before(deadline) {
			j.m.log.Warn("joined nobody, going on alone", "timeout", j.m.o.JoinTimeout, "err", j.m.JoinError())
			return
		}
	}
}

// found counts a member that came by itself as an answer: once it is in view its
// address is not tried any more.
func (j *joiner) found() {
	if j.since.IsZero() && j.list.NumMembers() > 1 {
		j.since, j.count = time.Now(), j.list.NumMembers()
		j.m.setJoinError(nil)
	}
}

// isSettled counts rounds in which no member was met.
func (j *joiner) isSettled() bool {
	if j.since.IsZero() {
		return false
	}
	if n := j.list.NumMembers(); n != j.count {
		j.count, j.stable = n, 0
	} else {
		j.stable++
	}
	return j.stable >= stableRounds || time.Since(j.since) >= settleLimit
}

// listen takes results for d, or until the first address answered.
func (j *joiner) listen(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for waiting := j.since.IsZero(); !waiting || j.since.IsZero(); {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case r := <-j.results:
			if r.name == nil {
				j.note(r)
				continue
			}
			j.named(r)
			j.launch(ctx, j.missing(ctx))
		}
	}
}

// note takes the outcome of an attempt. An address counts as joined only when
// somebody else is in view after it: it may be our own.
func (j *joiner) note(r joinResult) {
	delete(j.flying, r.addr)
	if r.err == nil && j.list.NumMembers() > 1 {
		j.joined[r.addr] = true
		if j.since.IsZero() {
			j.since, j.count = time.Now(), j.list.NumMembers()
		}
		j.faults = map[string]error{}
		j.m.setJoinError(nil)
		return
	}
	if r.err == nil {
		r.err = errors.New("it is this member's own address, or it refuses this member")
	}
	j.faults[r.addr] = r.err
	if j.since.IsZero() {
		j.m.setJoinError(j.fault())
	}
}

// fault sums up why nobody was joined.
func (j *joiner) fault() error {
	var errs []error
	for _, a := range slices.Sorted(maps.Keys(j.faults)) {
		errs = append(errs, fmt.Errorf("join %s: %w", a, j.faults[a]))
	}
	return errors.Join(errs...)
}

// launch starts an attempt at each address that none is under way at.
func (j *joiner) launch(ctx context.Context, addrs []string) {
	for _, a := range addrs {
		if j.flying[a] || len(j.flying) >= maxTargets {
			continue
		}
		j.flying[a] = true
		j.wg.Go(func() {
			r := joinResult{addr: a, err: j.attempt(a)}
			select {
			case j.results <- r:
			case <-ctx.Done():
			}
		})
	}
}

func (j *joiner) attempt(addr string) error {
	_, err := j.list.Join([]string{addr})
	return classify(err)
}

// missing returns the configured addresses, and members lost, that are not in
// view.
func (j *joiner) missing(ctx context.Context) []string {
	view := map[string]bool{}
	for _, n := range j.list.Members() {
		view[gossipAddr(n)] = true
	}
	var out []string
	lost := j.m.lostAddrs()
	rand.Shuffle(len(lost), func(a, b int) { lost[a], lost[b] = lost[b], lost[a] })
	for _, a := range append(j.resolve(ctx), lost[:min(len(lost), lostTries)]...) {
		if !view[a] && !j.own(a) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	rand.Shuffle(len(out), func(a, b int) { out[a], out[b] = out[b], out[a] })
	return out[:min(len(out), maxTargets)]
}

// lostAddrs returns where members were that are not in view any more.
func (m *Members) lostAddrs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for name, l := range m.lost {
		if time.Since(l.at) > lostTime {
			delete(m.lost, name)
			continue
		}
		out = append(out, l.addr)
	}
	return out
}

// met returns up to extraJoins members that were discovered, not configured.
// Through one member alone some views stay short for a minute (measured).
func (j *joiner) met() []string {
	out := slices.DeleteFunc(j.some(maxTargets), func(a string) bool { return j.joined[a] || j.flying[a] })
	out = out[:min(len(out), extraJoins-j.extra)]
	j.extra += len(out)
	return out
}

// own reports whether addr is where this member itself listens.
func (j *joiner) own(addr string) bool {
	self := j.list.LocalNode()
	if addr == gossipAddr(self) {
		return true
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil || ap.Port() != self.Port {
		return false
	}
	bind, err := netip.ParseAddr(j.m.o.Bind)
	all := j.m.o.Bind == "" || err == nil && bind.IsUnspecified()
	return all && ap.Addr().IsLoopback() || ap.Addr() == bind
}

// resolve returns the configured addresses as ip:port, names as far as they are
// known. Names are asked for beside everything else, now and then.
func (j *joiner) resolve(ctx context.Context) []string {
	var out []string
	for _, target := range j.m.o.Join {
		host, port, _ := net.SplitHostPort(target) // checked by NewMembers
		if ip, err := netip.ParseAddr(host); err == nil {
			out = append(out, net.JoinHostPort(ip.Unmap().String(), port))
			continue
		}
		if j.names[target] == nil {
			j.names[target] = &nameInfo{}
		}
		out = append(out, j.names[target].addrs...)
		j.ask(ctx, target, host, port)
	}
	return out
}

// ask looks a name up, unless it was asked for a moment ago.
func (j *joiner) ask(ctx context.Context, target, host, port string) {
	if j.flying[target] || time.Now().Before(j.names[target].next) {
		return
	}
	j.flying[target] = true
	j.wg.Go(func() {
		r := joinResult{addr: target, name: &nameInfo{}}
		r.name.addrs, r.err = j.lookup(ctx, host, port)
		select {
		case j.results <- r:
		case <-ctx.Done():
		}
	})
}

func (j *joiner) lookup(ctx context.Context, host, port string) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, resolveWait, fmt.Errorf("no answer within %v", resolveWait))
	defer cancel()
	ips, err := j.m.o.Resolve(ctx, host)
	if err == nil && len(ips) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	var out []string
	for _, ip := range ips {
		out = append(out, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return out, nil
}

// named takes what a name stands for. When it can't be told, what it stood for
// last is kept.
func (j *joiner) named(r joinResult) {
	delete(j.flying, r.addr)
	j.names[r.addr].next = time.Now().Add(resolveAgain)
	if r.err == nil {
		j.names[r.addr].addrs = r.name.addrs
		delete(j.faults, r.addr)
		return
	}
	j.faults[r.addr] = r.err
	if j.since.IsZero() {
		j.m.setJoinError(j.fault())
	}
}

// classify gives memberlist's texts a type; it has none itself. The test pins
// the texts.
func classify(err error) error {
	if err == nil {
		return nil
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	switch {
	case strings.Contains(text, "o installed keys could decrypt"):
		return ErrOtherKey
	case strings.Contains(text, "remote state is encrypted and encryption is not configured"):
		return fmt.Errorf("%w: it has one, this member is insecure", ErrOtherKey)
	case strings.Contains(text, "encryption is configured but remote state is not encrypted"):
		return fmt.Errorf("%w: it is insecure, this member has a key", ErrOtherKey)
	case strings.HasSuffix(text, "EOF"):
		return errors.New("it closed the connection without an answer: not a p2pagent gossip port?")
	}
	if _, after, ok := strings.Cut(text, "failed to join "); ok {
		if _, cause, ok := strings.Cut(after, ": "); ok {
			text = cause
		}
	}
	return errors.New(text)
}
