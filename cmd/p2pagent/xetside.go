package main

import (
	"context"
	"path/filepath"
	"strings"

	"golang.org/x/time/rate"

	"p2pagent/internal/layout"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/xet"
)

var (
	_ seeder.Source = (*xet.Source)(nil)
	_ xet.Plain     = seeder.Source(nil)
)

// xetSide lets the agent use a client of the Hub's content-addressed store.
type xetSide struct {
	*xet.Client
	only bool
}

// openXet makes the client of the store, unless that is switched off.
func (m *member) openXet(limit *rate.Limiter) error {
	if m.settings.Xet == xetOff {
		return nil
	}
	client, err := xet.New(xet.Options{
		Grant: grantOf(m.hub), Transport: m.hub.Foreign(), UserAgent: software(), Throttle: limit.WaitN,
		Insecure: strings.HasPrefix(m.hub.Endpoint(), "http:"), Logger: m.log.With("part", "xet"),
	})
	if err != nil {
		return err
	}
	m.xet = client
	return nil
}

// rights are the Hub and its store as a client's token opens them.
func (m *member) rights(h *hub.Client, limit *rate.Limiter) agent.Rights {
	r := agent.Rights{Hub: limitHub(h, limit)}
	if m.xet != nil {
		x := &xetSide{m.xet.As(grantOf(h)), m.settings.Xet == xetOnly}
		r.Source, r.Layout = x.source, x.layout
	}
	return r
}

func grantOf(h *hub.Client) func(context.Context, pieces.Repo, pieces.Commit) (xet.Grant, error) {
	return func(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (xet.Grant, error) {
		t, err := h.XetToken(ctx, repo, commit)
		return xet.Grant{Token: t.Token, CAS: t.URL, Life: t.Life}, err
	}
}

func (x *xetSide) source(o agent.Opening) seeder.Source {
	return x.NewSource(xet.SourceOptions{Outline: o.Outline, Plain: o.Plain, Only: x.only, Doubt: o.Doubt, Delta: o.Delta})
}

func (x *xetSide) layout(ctx context.Context, o *pieces.Outline, f pieces.File) (layout.Layout, error) {
	file, err := xet.NewFile(o.Repo, o.Commit, f)
	if err != nil {
		return layout.Layout{}, err
	}
	return x.Layout(ctx, file)
}

// addDeltas has files of the store made out of others that are here, also on a
// member that never asks it: others do. It can be done without.
func (m *member) addDeltas(o *agent.Options) {
	if m.settings.Xet == xetOff {
		return
	}
	index, err := layout.OpenIndex(filepath.Join(m.settings.StateDir, "layouts"), m.log.With("part", "layouts"))
	if err != nil {
		m.log.Warn("nothing will be copied from files that are here", "error", err)
		return
	}
	m.layouts = index
	o.Deltas.Index, o.Deltas.Cuts = index, xet.Cuts()
}
