package main

import (
	"context"
	"strings"

	"golang.org/x/time/rate"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/xet"
)

var (
	_ seeder.Source = (*xet.Source)(nil)
	_ xet.Plain     = seeder.Source(nil)
	_ agent.Patch   = (*xet.Delta)(nil)
)

// xetSide lets the agent use a client of the Hub's content-addressed store.
type xetSide struct {
	*xet.Client
	only bool
}

// addXet has the agent's jobs read from the store, unless that is switched off.
func (m *member) addXet(o *agent.Options, limit *rate.Limiter) error {
	if m.settings.Xet == xetOff {
		return nil
	}
	client, err := xet.New(xet.Options{
		Grant: m.xetGrant, Transport: m.hub.Foreign(), UserAgent: software(), Throttle: limit.WaitN,
		Insecure: strings.HasPrefix(m.hub.Endpoint(), "http:"), Logger: m.log.With("part", "xet"),
	})
	if err != nil {
		return err
	}
	m.xet = client
	x := &xetSide{client, m.settings.Xet == xetOnly}
	o.Source, o.Patch = x.source, x.patch
	return nil
}

func (m *member) xetGrant(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (xet.Grant, error) {
	t, err := m.hub.XetToken(ctx, repo, commit)
	return xet.Grant{Token: t.Token, CAS: t.URL, Life: t.Life}, err
}

func (x *xetSide) source(o *pieces.Outline, plain seeder.Source, doubt func(pieces.Blob, []int)) seeder.Source {
	return x.NewSource(xet.SourceOptions{Outline: o, Plain: plain, Only: x.only, Doubt: doubt})
}

// patch reads the old file by the right to the new commit: one token less.
func (x *xetSide) patch(ctx context.Context, o *pieces.Outline, f pieces.File, old agent.Old) (agent.Patch, error) {
	now, err := xet.NewFile(o.Repo, o.Commit, f)
	if err != nil {
		return nil, err
	}
	then, err := xet.NewFile(o.Repo, o.Commit, old.File)
	if err != nil {
		return nil, err
	}
	return x.Delta(ctx, now, xet.Local{File: then, Content: old.Content})
}
