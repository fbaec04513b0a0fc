package main

import (
	"context"
	"testing"
	"time"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub"
)

// settledSwarm has no part in a swarm.
type settledSwarm struct{ agent.Swarm }

func (settledSwarm) Settled(context.Context) error { return nil }

// A wait that another member was told of counts for what the Hub counts; a member may
// say any word.
func TestHeld(t *testing.T) {
	a, err := agent.New(agent.Options{Cache: struct{ agent.Cache }{}, Swarm: settledSwarm{}, Seeder: struct{ agent.Seeder }{}})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{agent: a}
	m.held("\x1b[2Jnonsense", time.Minute)
	if why := a.Status().Waiting; why != "" {
		t.Errorf("waits for %q", why)
	}
	m.held(hub.BucketAPI, time.Minute)
	if a.Status().Waiting == "" {
		t.Error("does not wait")
	}
}
