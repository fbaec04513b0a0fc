package metrics

import "p2pagent/internal/histogram"

// Sample is an agent at one moment. Counts only grow while the agent lives.
type Sample struct {
	Version, Go string

	UpstreamBytes   int64    // of files, as they came
	UpstreamAnswers [6]int64 // by the first digit of the status; 0: no answer
	UpstreamWaits   int64    // imposed by the Hub, on this member or by way of another
	UpstreamStalls  int64
	PeerIn, PeerOut int64 // bytes of verified pieces
	Copied          int64 // bytes of pieces that were here in other files
	Cut, Taken      int64 // pieces from upstream and from members
	Refused, Twice  int64
	Bans            int64
	Claims          int64
	Takeovers       int64
	DeafNeighbours  int64
	Sending         int
	Members         int // others in sight
	Neighbours      int
	Banned          int
	Settled         bool
	JobsByState     map[string]int   // running
	EndedByOutcome  map[string]int64 // "done", or the kind of failure
	IdleSeconds     float64          // of the running job that has had no byte for longest
	DesiredByPhase  map[string]int
	CacheWhole      int64 // bytes
	CachePartial    int64
	CacheFree       int64
	PieceTimes      histogram.Counts // of pieces from members
	ExtentTimes     histogram.Counts // of extents from upstream
	JobTimes        histogram.Counts
	GatewayTimes    histogram.Counts // until the first byte of a file
	GatewayAnswers  [6]int64         // by the first digit of the status; 0: none
	GatewayBytes    int64
	Snapshots       []Snapshot
}

// Snapshot is what the last jobs did for one commit.
type Snapshot struct {
	Repo, Commit          string
	Bytes, Here, Upstream int64
	Ready                 bool
}
