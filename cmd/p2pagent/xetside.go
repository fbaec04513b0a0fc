package main

import (
	"context"
	"strings"

	"golang.org/x/time/rate"

	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/xet"
)

// xetSource returns what makes sources of jobs that read from the Hub's
// content-addressed store, or nil when that is switched off.
func (m *member) xetSource(limit *rate.Limiter) (func(*pieces.Outline, seeder.Source, func(pieces.Blob, []int)) seeder.Source, error) {
	if m.settings.Xet == xetOff {
		return nil, nil
	}
	client, err := xet.New(xet.Options{
		Grant: m.xetGrant, Transport: m.hub.Foreign(), UserAgent: software(), Throttle: limit.WaitN,
		Insecure: strings.HasPrefix(m.hub.Endpoint(), "http:"), Logger: m.log.With("part", "xet"),
	})
	if err != nil {
		return nil, err
	}
	return func(o *pieces.Outline, plain seeder.Source, doubt func(pieces.Blob, []int)) seeder.Source {
		return client.NewSource(xet.SourceOptions{Outline: o, Plain: plain, Only: m.settings.Xet == xetOnly, Doubt: doubt})
	}, nil
}

func (m *member) xetGrant(ctx context.Context, repo pieces.Repo, commit pieces.Commit) (xet.Grant, error) {
	t, err := m.hub.XetToken(ctx, repo, commit)
	return xet.Grant{Token: t.Token, CAS: t.URL, Life: t.Life}, err
}

var _ seeder.Source = (*xet.Source)(nil)
var _ xet.Plain = seeder.Source(nil)
