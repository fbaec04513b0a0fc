package census

import (
	"context"
	"sync"
	"time"
)

// Ask puts a topic to the members that can be asked and returns what each said, by
// its peer id, and how many were asked.
type Ask func(ctx context.Context, topic string) (answers map[string][]byte, asked int, err error)

const (
	surveyEvery = 5 * time.Second  // members are asked no more often
	surveyWait  = 10 * time.Second // bounds one round
)

// Survey keeps what the members said last. It asks only while somebody looks.
type Survey struct {
	ask    Ask
	looked chan struct{} // one slot: somebody looked

	mu  sync.Mutex
	now Found
}

// Found is what the members said.
type Found struct {
	Asked int              // how many were asked
	Rows  map[string][]Row // by peer id of those that answered
}

// NewSurvey returns a survey that Run conducts.
func NewSurvey(ask Ask) *Survey { return &Survey{ask: ask, looked: make(chan struct{}, 1)} }

// Look returns what the members said when somebody looked last, and has them asked
// again. It does not wait.
func (s *Survey) Look() Found {
	select {
	case s.looked <- struct{}{}:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Run asks until ctx ends.
func (s *Survey) Run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.looked:
		}
		s.round(ctx)
		pause.Reset(surveyEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

func (s *Survey) round(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, surveyWait)
	defer cancel()
	answers, asked, err := s.ask(ctx, Holdings)
	if err != nil {
		return // what was said before stands
	}
	found := Found{Asked: asked, Rows: make(map[string][]Row, len(answers))}
	for id, raw := range answers {
		if rows, err := DecodeRows(raw); err == nil {
			found.Rows[id] = rows
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = found
}
