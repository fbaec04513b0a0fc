package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"p2pagent/internal/wire"
)

const (
	inquiryWait = 2 * time.Second // bounds one question and its answer
	maxAnswers  = 8               // inquiries answered at once; one that comes then is not
	maxAsking   = 16              // neighbours asked at once
)

// Inquire asks every neighbour that is not banned what it says on a topic, and
// returns what each said within two seconds of being asked. It is for looking,
// not for deciding: an answer is its member's word and nothing else. asked counts
// those that were asked.
func (n *Node) Inquire(ctx context.Context, topic string) (answers map[peer.ID][]byte, asked int, err error) {
	var near []peer.ID
	err = n.call(ctx, func() {
		now := time.Now()
		for p := range n.links {
			if !n.bans.Banned(now, p) {
				near = append(near, peerID(p))
			}
		}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("inquire about %s: %w", topic, err)
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(maxAsking)
	answers = make(map[peer.ID][]byte, len(near))
	for _, p := range near {
		g.Go(func() error {
			value, err := n.inquire(ctx, p, topic)
			if err != nil {
				n.log.Debug("inquire", "peer", p, "topic", topic, "err", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			answers[p] = value
			return nil
		})
	}
	g.Wait()
	return answers, len(near), nil
}

// inquire asks one neighbour, on the connection that the two have.
func (n *Node) inquire(ctx context.Context, p peer.ID, topic string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(network.WithNoDial(ctx, "neighbours are asked"), inquiryWait, errors.New("no answer in 2 s"))
	defer cancel()
	s, err := n.cfg.Host.NewStream(ctx, p, wire.InquiryProtocol)
	if err != nil {
		return nil, err
	}
	defer s.Reset()
	defer context.AfterFunc(ctx, func() { s.Reset() })()
	s.SetDeadline(time.Now().Add(inquiryWait))
	frame, err := wire.Append(nil, &wire.Inquiry{Topic: topic})
	if err != nil {
		return nil, err
	}
	if _, err := s.Write(frame); err != nil {
		return nil, err
	}
	m, err := wire.Read(bufio.NewReader(s))
	if err != nil {
		return nil, err
	}
	a, ok := m.(*wire.Answer)
	if !ok {
		return nil, fmt.Errorf("%T in answer to an inquiry: %w", m, wire.ErrProtocol)
	}
	return a.Value, nil
}

// answerInquiry says what this member has to say. Who asks too much at once gets
// no answer.
func (n *Node) answerInquiry(s network.Stream) {
	n.tasks.Go(func() error {
		select {
		case n.answers <- struct{}{}:
			defer func() { <-n.answers }()
		default:
			s.Reset()
			return nil
		}
		defer context.AfterFunc(n.ctx, func() { s.Reset() })()
		s.SetDeadline(time.Now().Add(inquiryWait))
		if err := n.answer(s); err != nil {
			n.log.Debug("answer inquiry", "peer", s.Conn().RemotePeer(), "err", err)
			s.Reset()
			return nil
		}
		s.Close()
		return nil
	})
}

func (n *Node) answer(s network.Stream) error {
	m, err := wire.Read(bufio.NewReader(s))
	if err != nil {
		return err
	}
	q, ok := m.(*wire.Inquiry)
	if !ok {
		return fmt.Errorf("%T on an inquiry stream: %w", m, wire.ErrProtocol)
	}
	var a wire.Answer
	if n.cfg.Answers != nil {
		a.Value = n.cfg.Answers(q.Topic)
	}
	frame, err := wire.Append(nil, &a)
	if err != nil {
		return err
	}
	_, err = s.Write(frame)
	return err
}
