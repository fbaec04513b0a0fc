package wire

import (
	"fmt"

	"p2pagent/pkg/pieces"
)

// Limits on a Rollout and its Reports.
const (
	MaxPatterns    = 64   // of both kinds together
	MaxRollout     = 3072 // bytes of its texts
	MaxReason      = 1024 // bytes of kind and reason of a Report
	MaxReportEvery = 60   // seconds
)

// Rollout asks the receiver to hold a snapshot, the ref meaning the commit, and to
// report on it every so often.
type Rollout struct {
	_       struct{} `cbor:",toarray"`
	Ref     string
	Commit  pieces.Commit
	Include []string // patterns of files
	Exclude []string
	Every   int64 // seconds between two reports
}

// Stage is how far a member is with a rollout.
type Stage uint8

const (
	Refused  Stage = iota + 1 // it does not take the rollout; the last report
	Waiting                   // it has taken it, durably, and waits for its turn
	Fetching                  // or looks for what is here
	Here                      // all is here; the last report
	Failed                    // it will try again
)

// Report is how far the sender is with the Rollout. Numbers are bytes.
type Report struct {
	_         struct{} `cbor:",toarray"`
	Stage     Stage
	Kind      string // of the failure or refusal, one word
	Reason    string
	Total     int64
	Completed int64 // here and verified
	Here      int64 // were here before
	Upstream  int64 // came from upstream
	Peers     int64 // came from members
	Rate      int64 // a second
}

func (*Rollout) kind() kind { return kindRollout }
func (*Report) kind() kind  { return kindReport }

func (m *Rollout) check() error {
	bytes := len(m.Ref) + len(m.Commit)
	for _, p := range append(m.Include[:len(m.Include):len(m.Include)], m.Exclude...) {
		bytes += len(p)
	}
	switch {
	case len(m.Include)+len(m.Exclude) > MaxPatterns:
		return fmt.Errorf("%d patterns, more than %d: %w", len(m.Include)+len(m.Exclude), MaxPatterns, ErrProtocol)
	case bytes > MaxRollout:
		return fmt.Errorf("rollout of %d bytes, more than %d: %w", bytes, MaxRollout, ErrProtocol)
	case m.Every < 1 || m.Every > MaxReportEvery:
		return fmt.Errorf("reports every %d s, want 1 to %d: %w", m.Every, MaxReportEvery, ErrProtocol)
	}
	return nil
}

func (m *Report) check() error {
	for _, n := range []int64{m.Total, m.Completed, m.Here, m.Upstream, m.Peers, m.Rate} {
		if n < 0 {
			return fmt.Errorf("report of %d bytes: %w", n, ErrProtocol)
		}
	}
	if m.Stage < Refused || m.Stage > Failed {
		return fmt.Errorf("report of stage %d: %w", m.Stage, ErrProtocol)
	}
	return short("reason", m.Kind+m.Reason, MaxReason)
}
