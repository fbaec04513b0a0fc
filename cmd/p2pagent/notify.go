package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells systemd, when there is one, how the agent is.
type notifier struct {
	settled func(context.Context) error
	alive   func(context.Context) error // returns once the owner loop has answered
	status  func() string
	send    func(state string)
	pulse   time.Duration // between two words
	log     *slog.Logger
}

const (
	// readyWait is how long a start may take before systemd is told that it
	// worked: a port that is taken shows within it.
	readyWait = time.Second
	// statusEvery is how old the status line of systemctl may be.
	statusEvery = 5 * time.Second
	// pulses is how many words fit into the time that the watchdog allows: two
	// may come late before it bites.
	pulses = 3
)

func (m *member) notifier() *notifier {
	return &notifier{
		settled: m.node.Settled, alive: m.alive, status: m.statusText, send: notifySystemd, pulse: pulse(), log: m.log,
	}
}

// alive asks the one goroutine that everything in the swarm waits for.
func (m *member) alive(ctx context.Context) error {
	_, err := m.node.Status(ctx)
	return err
}

func (m *member) statusText() string {
	s := m.agent.Status()
	return fmt.Sprintf("%d jobs, %d other members, %d banned", s.Jobs, s.Members, len(s.Banned))
}

// notifySystemd sends to NOTIFY_SOCKET, if there is one. A word that is lost is
// followed by another.
func notifySystemd(state string) { daemon.SdNotify(false, state) }

// pulse depends on WATCHDOG_USEC, which systemd sets with WatchdogSec=.
func pulse() time.Duration {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return statusEvery
	}
	return min(limit/pulses, statusEvery)
}

// run tells systemd that the agent is ready, then at every pulse how it is, and
// at the end that it stops.
func (n *notifier) run(ctx context.Context) error {
	n.ready(ctx)
	tick := time.NewTicker(n.pulse)
	defer tick.Stop()
	for {
		n.beat(ctx)
		select {
		case <-ctx.Done():
			n.send(daemon.SdNotifyStopping)
			return nil
		case <-tick.C:
		}
	}
}

// ready waits until the member has settled, but not for peers: a fleet of one is
// ready too.
func (n *notifier) ready(ctx context.Context) {
	early, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	err := n.settled(early)
	if ctx.Err() == nil && (err == nil || early.Err() != nil) {
		n.send(daemon.SdNotifyReady)
		n.log.Info("ready")
	}
}

// beat feeds the watchdog only when the loop that owns all plans has answered. A
// process that merely lives is of no use: systemd is to start another.
func (n *notifier) beat(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, n.pulse)
	defer cancel()
	if err := n.alive(asked); err != nil {
		if ctx.Err() == nil {
			n.log.Warn("the owner loop does not answer", "within", n.pulse)
		}
		return
	}
	n.send("STATUS=" + n.status() + "\n" + daemon.SdNotifyWatchdog)
}
