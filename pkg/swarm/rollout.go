package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"p2pagent/internal/wire"
)

// Rollouts travel on streams of their own: a frame of a type that is not known would
// end a swarm stream, and members that are no neighbours have none.

// ErrNoRollouts marks a member that does not know rollouts.
var ErrNoRollouts = errors.New("it runs a version without rollouts")

const (
	// rolloutsServed is how many members may have this one report at once.
	rolloutsServed = 64
	// reportLate is how much later than due a report may come.
	reportLate = 15 * time.Second
)

// Rollout asks a member to hold a snapshot and calls heard with each of its reports,
// until ctx ends or the member has sent its last: then it returns nil.
func (n *Node) Rollout(ctx context.Context, to Facts, order wire.Rollout, heard func(wire.Report)) error {
	frame, err := wire.Append(nil, &order)
	if err != nil {
		return err
	}
	s, err := n.openRollout(ctx, to)
	if err != nil {
		return fmt.Errorf("ask %s: %w", to.Name, err)
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	s.SetWriteDeadline(time.Now().Add(helloTimeout))
	if _, err = s.Write(frame); err == nil {
		err = hearReports(s, time.Duration(order.Every)*time.Second+reportLate, heard)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("ask %s: %w", to.Name, unknownProtocol(err))
	}
	return nil
}

func (n *Node) openRollout(ctx context.Context, to Facts) (network.Stream, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, errors.New("no answer in 10 s"))
	defer cancel()
	err := Connect(ctx, n.cfg.Host, to)
	var s network.Stream
	if err == nil {
		s, err = n.cfg.Host.NewStream(ctx, to.Peer, wire.RolloutProtocol)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return s, unknownProtocol(err)
}

// unknownProtocol gives the end of libp2p's negotiation a type, whether that took
// place before the stream was used or with its first bytes.
func unknownProtocol(err error) error {
	reset, ok := errors.AsType[*network.StreamError](err)
	if ok && reset.ErrorCode == network.StreamProtocolNegotiationFailed || err != nil && strings.Contains(err.Error(), "protocols not supported") {
		return ErrNoRollouts
	}
	return err
}

func hearReports(s network.Stream, patience time.Duration, heard func(wire.Report)) error {
	r := bufio.NewReaderSize(s, 4096)
	for {
		s.SetReadDeadline(time.Now().Add(patience))
		m, err := wire.Read(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		report, ok := m.(*wire.Report)
		if !ok {
			return fmt.Errorf("%T on a rollout stream: %w", m, wire.ErrProtocol)
		}
		heard(*report)
	}
}

// serveRollout takes the order of another member and reports on it.
func (n *Node) serveRollout(s network.Stream) {
	n.tasks.Go(func() error {
		defer context.AfterFunc(n.ctx, func() { s.Reset() })()
		if err := n.takeRollout(s); err != nil {
			n.log.Debug("serve rollout", "peer", s.Conn().RemotePeer(), "err", err)
			s.Reset()
			return nil
		}
		s.Close()
		return nil
	})
}

func (n *Node) takeRollout(s network.Stream) error {
	s.SetReadDeadline(time.Now().Add(helloTimeout))
	m, err := wire.Read(bufio.NewReaderSize(s, 4096))
	if err != nil {
		return err
	}
	order, ok := m.(*wire.Rollout)
	if !ok {
		return fmt.Errorf("%T on a rollout stream: %w", m, wire.ErrProtocol)
	}
	report := func(r wire.Report) error {
		frame, err := wire.Append(nil, &r)
		if err != nil {
			return err
		}
		s.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err = s.Write(frame)
		return err
	}
	select {
	case n.reporting <- struct{}{}:
		defer func() { <-n.reporting }()
	default:
		return report(wire.Report{Stage: wire.Refused, Kind: "stalled", Reason: "too many rollouts at once"})
	}
	return n.cfg.OnRollout(n.ctx, s.Conn().RemotePeer().String(), *order, report)
}

// noRollouts is a member that was not told what to do with them.
func noRollouts(_ context.Context, _ string, _ wire.Rollout, report func(wire.Report) error) error {
	return report(wire.Report{Stage: wire.Refused, Kind: "denied", Reason: "it takes no rollouts"})
}
