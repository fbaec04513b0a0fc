package kube

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeNode keeps labels as the API server does, counts requests, and has the agent of
// the node say what is here.
type fakeNode struct {
	mu       sync.Mutex // guards the fields below
	labels   map[string]string
	requests int
	err      error // what Patch answers
	here     []Snapshot
	away     error // what List answers
}

func (n *fakeNode) List(context.Context) ([]Snapshot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.here, n.away
}

func (n *fakeNode) Patch(_ context.Context, changes map[string]*string) (map[string]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests++
	if n.err != nil {
		return nil, n.err
	}
	apply(n.labels, changes)
	return maps.Clone(n.labels), nil
}

// turn changes the node while nobody looks at it.
func (n *fakeNode) turn(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// TestLabeller walks through a node's life: restart with an old label, a model
// that comes, an agent and a server that are away, somebody who takes a label off.
func TestLabeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &fakeNode{labels: map[string]string{"disk": "ssd", Prefix + "models--org--old": "1"}}
		var log strings.Builder
		l := NewLabeller(Options{
			Node: node, List: node.List,
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
			node.mu.Lock()
			defer node.mu.Unlock()
			if !maps.Equal(node.labels, want) || node.requests != requests {
				t.Errorf("%s: %v after %d requests, want %v after %d", when, node.labels, node.requests, want, requests)
			}
		}
		key := Prefix + "models--org--name"

		expect("nothing here", 2, map[string]string{})
		expect("nothing new", 2, map[string]string{})
		node.turn(func() { node.here = []Snapshot{{Repo: "org/name", Commit: "c1"}} })
		expect("a model came", 3, map[string]string{key: "c1"})
		node.turn(func() { node.here, node.away = nil, errors.New("no agent") })
		expect("the agent is away", 3, map[string]string{key: "c1"})
		expect("the agent is still away", 3, map[string]string{key: "c1"})
		node.turn(func() {
			node.here, node.away = []Snapshot{{Repo: "org/name", Commit: "c2"}}, nil
			node.err = errors.New("403 Forbidden")
		})
		expect("the server refuses", 4, map[string]string{key: "c1"})
		node.turn(func() { node.err = nil })
		expect("it does no more", 6, map[string]string{key: "c2"})
		node.turn(func() { delete(node.labels, key) })
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
