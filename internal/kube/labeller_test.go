package kube

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNode keeps labels as the API server does, and counts requests.
type fakeNode struct {
	labels   map[string]string
	requests int
	err      error
}

func (n *fakeNode) Patch(_ context.Context, changes map[string]*string) (map[string]string, error) {
	n.requests++
	if n.err != nil {
		return nil, n.err
	}
	apply(n.labels, changes)
	return maps.Clone(n.labels), nil
}

// TestLabeller walks through a node's life: restart with an old label, a model
// that comes, an agent and a server that are away, somebody who takes a label off.
func TestLabeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &fakeNode{labels: map[string]string{"disk": "ssd", Prefix + "models--org--old": "1"}}
		var here []Snapshot
		var away error
		var log strings.Builder
		l := NewLabeller(Options{
			Node: node, List: func(context.Context) ([]Snapshot, error) { return here, away },
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		expect := func(when string, requests int, want map[string]string) {
			t.Helper()
			time.Sleep(lookEvery)
			synctest.Wait()
			want["disk"] = "ssd"
			if !maps.Equal(node.labels, want) || node.requests != requests {
				t.Errorf("%s: %v after %d requests, want %v after %d", when, node.labels, node.requests, want, requests)
			}
		}
		key := Prefix + "models--org--name"

		expect("nothing here", 2, map[string]string{})
		expect("nothing new", 2, map[string]string{})
		here = []Snapshot{{Repo: "org/name", Commit: "c1"}}
		expect("a model came", 3, map[string]string{key: "c1"})
		here, away = nil, errors.New("no agent")
		expect("the agent is away", 3, map[string]string{key: "c1"})
		expect("the agent is still away", 3, map[string]string{key: "c1"})
		here, away = []Snapshot{{Repo: "org/name", Commit: "c2"}}, nil
		node.err = errors.New("403 Forbidden")
		expect("the server refuses", 4, map[string]string{key: "c1"})
		node.err = nil
		expect("it does no more", 6, map[string]string{key: "c2"})
		delete(node.labels, key)
		time.Sleep(anewEvery)
		expect("somebody took it off", 8, map[string]string{key: "c2"})
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "no agent"); n != 1 {
			t.Errorf("the agent's absence was logged %d times:\n%s", n, log.String())
		}
	})
}
