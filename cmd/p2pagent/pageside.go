package main

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"p2pagent/internal/census"
	"p2pagent/internal/page"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

var _ page.Source = (*pageSide)(nil)

// pageSide shows a member on the page: the agent's own view, and what the
// neighbours say that they hold.
type pageSide struct {
	*member
	survey *census.Survey
}

func newPageSide(m *member) *pageSide { return &pageSide{m, census.NewSurvey(m.inquire)} }

// inquire is a census.Ask.
func (m *member) inquire(ctx context.Context, topic string) (map[string][]byte, int, error) {
	answers, asked, err := m.node.Inquire(ctx, topic)
	out := make(map[string][]byte, len(answers))
	for id, value := range answers {
		out[id.String()] = value
	}
	return out, asked, err
}

// answers is what this member says to another that inquires.
func (m *member) answers(topic string) []byte {
	if topic == census.Holdings {
		raw, err := census.EncodeRows(m.rows())
		if err != nil {
			m.log.Warn("say what is held", "err", err)
		}
		return raw
	}
	if repo, commit, ok := census.ParseLevels(topic); ok {
		raw, err := census.EncodeCover(m.cover(repo, commit))
		if err != nil {
			m.log.Warn("say what is held", "err", err)
		}
		return raw
	}
	return nil
}

func (m *member) cover(repo pieces.Repo, commit pieces.Commit) census.Cover {
	levels, n := m.agent.Levels(repo, commit, census.Cells)
	return census.Cover{Pieces: n, Levels: levels}
}

// rows are what this member holds, as it tells others.
func (m *member) rows() []census.Row {
	holdings, err := m.agent.Holdings()
	if err != nil {
		m.log.Warn("list what is held", "err", err)
	}
	var out []census.Row
	for _, h := range holdings {
		if h.Commit == "" || h.Completed == 0 && h.State == agent.Failed {
			continue
		}
		out = append(out, census.Row{Repo: h.Repo, Commit: h.Commit, Ref: h.Ref, Size: h.Total, Held: h.Completed, Upstream: h.Cost,
			Ready: h.State == agent.Ready || h.State == agent.Done})
	}
	return out
}

// View implements page.Source.
func (p *pageSide) View(ctx context.Context) (page.View, error) {
	holdings, err := p.agent.Holdings()
	if err != nil {
		return page.View{}, err
	}
	usage, err := p.cache.Usage()
	if err != nil {
		return page.View{}, err
	}
	found := p.survey.Look()
	v := page.View{Self: p.self(), Models: p.models(holdings, found), Members: p.others()}
	v.Self.Cache, v.Self.Members = usage.Whole+usage.Partial, len(v.Members)
	v.Self.Asked, v.Self.Answered = found.Asked, len(found.Rows)
	for _, m := range v.Members {
		if m.Near {
			v.Self.Near++
		}
	}
	return v, nil
}

func (p *pageSide) self() page.Self {
	st := p.agent.Status()
	return page.Self{ID: shortID(st.PeerID), Name: st.Name, Version: st.Version, Started: st.Started, Upstream: st.Upstream && !st.Offline,
		Settled: st.Settled, Waiting: st.Waiting, JoinFault: st.JoinFault, Free: st.Free}
}

// models are those of this node, then those that only others have.
func (p *pageSide) models(holdings []agent.Holding, found census.Found) []page.Model {
	totals := census.Totals(func(yield func([]census.Row) bool) {
		for _, rows := range found.Rows {
			if !yield(rows) {
				return
			}
		}
		yield(p.rows())
	})
	var out []page.Model
	for _, h := range holdings {
		id := census.ID(h.Repo, h.Commit)
		m := page.Model{ID: id, Ref: h.Ref, Commit: h.Commit, State: string(h.State), Waiting: h.Waiting, Reason: h.Reason,
			Total: h.Total, Completed: h.Completed, Here: h.Here, Upstream: h.Upstream, Peers: h.Peers, Rate: h.Rate, ETA: h.ETA}
		if h.Commit == "" {
			m.ID = h.Ref
		}
		if t := totals[id]; t != nil {
			m.Fleet = fleetOf(t)
			delete(totals, id)
		}
		out = append(out, m)
	}
	for _, id := range slices.Sorted(maps.Keys(totals)) {
		t := totals[id]
		out = append(out, page.Model{ID: id, Ref: t.Ref, Commit: t.Commit, State: "elsewhere", Fleet: fleetOf(t)})
	}
	return out
}

func fleetOf(t *census.Total) page.Fleet {
	return page.Fleet{Ready: t.Ready, Partly: t.Partly, Upstream: t.Upstream, Size: t.Size}
}

func (p *pageSide) others() []page.Member {
	const quiet = 6 // seconds: two pings that did not come
	var out []page.Member
	for _, o := range p.agent.Peers() {
		m := page.Member{ID: shortID(o.PeerID), Name: o.Name, Near: o.Neighbour, Rate: int64(o.Rate), In: o.In, Out: o.Out, Fault: o.Fault, Banned: o.Banned, Until: o.BannedUntil}
		if o.Silent >= quiet {
			m.Silent = int(o.Silent)
		}
		out = append(out, m)
	}
	return out
}

// shortID is the end of a peer id: the beginning is the same for all.
func shortID(id string) string { return id[max(0, len(id)-12):] }

// Counts implements page.Source.
func (p *pageSide) Counts(ctx context.Context) (page.Counts, error) {
	st, err := p.node.Status(ctx)
	return page.Counts{Upstream: p.agent.Counters().Upstream, In: st.In, Out: st.Out}, err
}

// Map implements page.Source.
func (p *pageSide) Map(ctx context.Context, id string) (page.Map, error) {
	repo, commit, ok := census.ParseID(id)
	if !ok {
		return page.Map{}, nil
	}
	answers, _, err := p.inquire(ctx, census.Levels(id))
	if err != nil {
		return page.Map{}, err
	}
	own, others := census.Covers(p.cover(repo, commit), answers)
	self := p.self()
	m := page.Map{Pieces: own.Pieces, Cells: len(own.Levels), Strips: []page.Strip{{ID: self.ID, Name: self.Name, Levels: own.Levels}}}
	for peer, levels := range others {
		m.Strips = append(m.Strips, page.Strip{ID: shortID(peer), Name: p.side.name(peer), Levels: levels})
	}
	slices.SortFunc(m.Strips, func(a, b page.Strip) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return m, nil
}
