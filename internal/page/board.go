package page

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	refreshEvery = time.Second // the Source is asked for a View no more often
	mapEvery     = 2 * time.Second
	sampleEvery  = 5 * time.Second
	maxSamples   = 180 // a quarter of an hour
	sourceWait   = 5 * time.Second
	maxKept      = 16 // answers and maps kept for the next viewer
)

// board is what all viewers look at. One of them that comes when it is old renews
// it, the others wait for that.
type board struct {
	source Source
	epoch  uint64 // of this process: versions of another one mean nothing

	mu      sync.Mutex
	version uint64
	floor   uint64 // viewers that know an older version start anew
	renewed time.Time
	self    Self
	counts  Counts
	hidden  hidden
	models  table
	members table
	samples []sample
	last    Counts    // at the last sample
	lastAt  time.Time // when that was taken
	answers map[uint64]*answer

	mapping sync.Mutex // guards maps; held while the members are asked, not the other
	maps    map[string]*keptMap
}

// hidden counts what was over the bounds.
type hidden struct {
	Models  int `json:"models"`
	Members int `json:"members"`
}

// sample is the mean rates, in bytes a second, of the time before At.
type sample struct {
	version uint64
	At      int64 // Unix seconds
	Rates   Counts
}

// MarshalJSON writes [at, upstream, in, out].
func (s sample) MarshalJSON() ([]byte, error) {
	return json.Marshal([4]int64{s.At, s.Rates.Upstream, s.Rates.In, s.Rates.Out})
}

// state is the answer to a viewer.
type state struct {
	SchemaVersion int               `json:"schema_version"`
	Epoch         uint64            `json:"epoch"`
	Version       uint64            `json:"version"`
	Full          bool              `json:"full"` // what the viewer had is to be forgotten
	Now           int64             `json:"now"`  // Unix seconds
	Self          Self              `json:"self"`
	Counts        Counts            `json:"counts"`
	Hidden        hidden            `json:"hidden"`
	Models        []json.RawMessage `json:"models"`
	Members       []json.RawMessage `json:"members"`
	GoneModels    []string          `json:"gone_models,omitempty"`
	GoneMembers   []string          `json:"gone_members,omitempty"`
	Every         int               `json:"every"` // seconds between samples
	Samples       []sample          `json:"samples"`
}

const schemaVersion = 1

func newBoard(s Source) *board {
	// 53 bits: all that a number of JavaScript keeps.
	return &board{source: s, epoch: rand.Uint64()>>11 | 1, models: newTable(), members: newTable(), answers: map[uint64]*answer{}, maps: map[string]*keptMap{}}
}

var errSlow = errors.New("the agent did not say how it is in 5 s")

// state returns what is new since the version that a viewer has; 0 is for one
// that has nothing.
func (b *board) state(ctx context.Context, epoch, since uint64) (*answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.renew(ctx); err != nil {
		return nil, err
	}
	if epoch != b.epoch || since < b.floor || since > b.version {
		since = 0
	}
	if a := b.answers[since]; a != nil {
		return a, nil
	}
	if len(b.answers) >= maxKept {
		clear(b.answers)
	}
	a, err := newAnswer(b.render(since))
	if err == nil {
		b.answers[since] = a
	}
	return a, err
}

// renew asks the Source, unless somebody just did. It goes on when its viewer
// leaves: others wait for the same.
func (b *board) renew(ctx context.Context) error {
	if time.Since(b.renewed) < refreshEvery {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), sourceWait, errSlow)
	defer cancel()
	v, err := b.source.View(ctx)
	if err != nil {
		return err
	}
	counts, err := b.source.Counts(ctx)
	if err != nil {
		return err
	}
	b.renewed = time.Now()
	b.take(v, counts)
	return nil
}

// take makes the next version.
func (b *board) take(v View, counts Counts) {
	b.version++
	clear(b.answers)
	b.counts, b.self = counts, v.Self
	b.hidden = hidden{max(0, len(v.Models)-maxModels), max(0, len(v.Members)-maxMembers)}
	trimAll(&b.self.Name, &b.self.Waiting, &b.self.JoinFault)
	models := map[string]json.RawMessage{}
	for _, m := range v.Models[:min(len(v.Models), maxModels)] {
		trimAll(&m.Ref, &m.Waiting, &m.Reason)
		m.Rate, m.ETA = round(m.Rate), math.Round(m.ETA)
		models[m.ID] = encode(m)
	}
	members := map[string]json.RawMessage{}
	for _, m := range v.Members[:min(len(v.Members), maxMembers)] {
		trimAll(&m.Name, &m.Fault, &m.Banned)
		m.Rate = round(m.Rate)
		members[m.ID] = encode(m)
	}
	forgotModels, forgotMembers := b.models.set(b.version, models), b.members.set(b.version, members)
	if forgotModels || forgotMembers {
		b.floor = b.version
	}
}

// round keeps two digits: a rate that trembles is not news.
func round(n int64) int64 {
	step := int64(1)
	for n/step >= 100 {
		step *= 10
	}
	return (n + step/2) / step * step
}

func trimAll(texts ...*string) {
	for _, t := range texts {
		*t = strings.ToValidUTF8((*t)[:min(len(*t), maxName)], "")
	}
}

// encode can't fail: rows are made of strings and finite numbers.
func encode(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return raw
}

func (b *board) render(since uint64) state {
	s := state{
		SchemaVersion: schemaVersion, Epoch: b.epoch, Version: b.version, Full: since == 0, Now: b.renewed.Unix(),
		Self: b.self, Counts: b.counts, Hidden: b.hidden, Every: int(sampleEvery / time.Second), Samples: []sample{},
	}
	s.Models, s.GoneModels = b.models.since(since)
	s.Members, s.GoneMembers = b.members.since(since)
	for _, x := range b.samples {
		if x.version >= since { // one of the version itself may have come after that was sent
			s.Samples = append(s.Samples, x)
		}
	}
	return s
}

// sample notes the rates since it was last called.
func (b *board) sample(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, sourceWait, errSlow)
	defer cancel()
	counts, err := b.source.Counts(ctx)
	if err != nil {
		return // a gap in the chart
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if took := now.Sub(b.lastAt).Seconds(); !b.lastAt.IsZero() && took > 0 {
		rate := func(now, before int64) int64 { return int64(float64(max(0, now-before)) / took) }
		b.samples = append(b.samples, sample{b.version, now.Unix(), Counts{
			Upstream: rate(counts.Upstream, b.last.Upstream), In: rate(counts.In, b.last.In), Out: rate(counts.Out, b.last.Out)}})
		b.samples = b.samples[max(0, len(b.samples)-maxSamples):]
		clear(b.answers)
	}
	b.last, b.lastAt = counts, now
}

// keptMap is a map as it is sent, and when it was made.
type keptMap struct {
	at     time.Time
	answer *answer
}

// mapAnswer is the answer to who holds what.
type mapAnswer struct {
	SchemaVersion int         `json:"schema_version"`
	Model         string      `json:"model"`
	Pieces        int         `json:"pieces"`
	Cells         int         `json:"cells"`
	Strips        [][3]string `json:"strips"` // id, name, levels
	Hidden        int         `json:"hidden"`
}

// holders returns the map of a model that the board shows, nil for another.
func (b *board) holders(ctx context.Context, id string) (*answer, error) {
	b.mu.Lock()
	_, known := b.models.rows[id]
	b.mu.Unlock()
	if !known {
		return nil, nil
	}
	b.mapping.Lock()
	defer b.mapping.Unlock()
	if k := b.maps[id]; k != nil && time.Since(k.at) < mapEvery {
		return k.answer, nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), sourceWait, errSlow)
	defer cancel()
	m, err := b.source.Map(ctx, id)
	if err != nil {
		return nil, err
	}
	a, err := newAnswer(renderMap(id, m))
	if err != nil {
		return nil, err
	}
	if len(b.maps) >= maxKept {
		clear(b.maps)
	}
	b.maps[id] = &keptMap{time.Now(), a}
	return a, nil
}

func renderMap(id string, m Map) mapAnswer {
	out := mapAnswer{SchemaVersion: schemaVersion, Model: id, Pieces: m.Pieces, Cells: min(m.Cells, MaxCells), Strips: [][3]string{}}
	for _, s := range m.Strips {
		if len(out.Strips) == maxMembers {
			out.Hidden = len(m.Strips) - maxMembers
			break
		}
		if trimAll(&s.Name); len(s.Levels) == out.Cells {
			out.Strips = append(out.Strips, [3]string{s.ID, s.Name, s.Levels})
		}
	}
	return out
}
