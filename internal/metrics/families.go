package metrics

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"p2pagent/internal/histogram"
)

// family is one metric with all its series.
type family struct {
	name, help string
	labels     []string
	read       func(s *Sample, out func(v float64, labels ...string))
	times      func(s *Sample) histogram.Counts // instead, for a histogram
}

// counter tells the kind by the name, as Prometheus does.
func (f family) kind() prometheus.ValueType {
	if strings.HasSuffix(f.name, "_total") {
		return prometheus.CounterValue
	}
	return prometheus.GaugeValue
}

// one is a family of a single series.
func one[N int | int64 | float64](name, help string, read func(*Sample) N) family {
	return family{name: name, help: help, read: func(s *Sample, out func(float64, ...string)) { out(float64(read(s))) }}
}

// split is a family of one label whose values are these.
func split(name, help, label string, values []string, read func(*Sample) []int64) family {
	return family{name: name, help: help, labels: []string{label}, read: func(s *Sample, out func(float64, ...string)) {
		for i, v := range read(s) {
			out(float64(v), values[i])
		}
	}}
}

// bySnapshot is a family of one series for each commit of the last jobs.
func bySnapshot(name, help string, read func(Snapshot) int64) family {
	return family{name: name, help: help, labels: []string{"repo", "commit"}, read: func(s *Sample, out func(float64, ...string)) {
		for _, x := range s.Snapshots {
			out(float64(read(x)), x.Repo, x.Commit)
		}
	}}
}

func byName[N int | int64](name, help, label string, read func(*Sample) map[string]N) family {
	return family{name: name, help: help, labels: []string{label}, read: func(s *Sample, out func(float64, ...string)) {
		m := read(s)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			out(float64(m[k]), k)
		}
	}}
}

// durations is a histogram of seconds.
func durations(name, help string, times func(*Sample) histogram.Counts) family {
	return family{name: name, help: help, times: times}
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// families is everything that an agent exports beside what the Go runtime and the
// process have.
var families = []family{
	{name: "p2pagent_build_info", help: "Always 1; the labels say what runs.", labels: []string{"version", "goversion"},
		read: func(s *Sample, out func(float64, ...string)) { out(1, s.Version, s.Go) }},

	one("p2pagent_upstream_bytes_total", "Bytes of files that came from the Hub, those of pieces that never got whole too.", func(s *Sample) int64 { return s.UpstreamBytes }),
	split("p2pagent_upstream_requests_total", "Requests to the Hub, its store and the hosts it redirects to, by what came back: a class of status codes, or none.", "code",
		[]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}, func(s *Sample) []int64 { return s.UpstreamAnswers[:] }),
	one("p2pagent_upstream_waits_total", "Waits that the Hub's rate limit imposed, on this member or on another that passed it on.", func(s *Sample) int64 { return s.UpstreamWaits }),
	one("p2pagent_upstream_stalls_total", "Answers of the Hub and its store that were given up because bytes stopped.", func(s *Sample) int64 { return s.UpstreamStalls }),

	split("p2pagent_peer_bytes_total", "Bytes of verified pieces from members (in) and sent to them (out).", "direction",
		[]string{"in", "out"}, func(s *Sample) []int64 { return []int64{s.PeerIn, s.PeerOut} }),
	one("p2pagent_copied_bytes_total", "Bytes of pieces that were here in other files, of an older revision for instance, and came from nobody.", func(s *Sample) int64 { return s.Copied }),
	split("p2pagent_pieces_total", "Pieces: cut here from upstream, taken from a member and right, refused because wrong, or come twice.", "result",
		[]string{"cut", "taken", "refused", "duplicate"}, func(s *Sample) []int64 { return []int64{s.Cut, s.Taken, s.Refused, s.Twice} }),
	durations("p2pagent_piece_fetch_duration_seconds", "How long pieces took that members sent, from asking to the last byte.", func(s *Sample) histogram.Counts { return s.PieceTimes }),
	durations("p2pagent_extent_fetch_duration_seconds", "How long extents took that came whole from the Hub, 64 MiB and less each.", func(s *Sample) histogram.Counts { return s.ExtentTimes }),
	one("p2pagent_sending_pieces", "Pieces that are being sent to members.", func(s *Sample) int { return s.Sending }),

	one("p2pagent_members", "Other members in sight, banned ones too.", func(s *Sample) int { return s.Members }),
	one("p2pagent_neighbours", "Members that this one has a stream with.", func(s *Sample) int { return s.Neighbours }),
	one("p2pagent_settled", "1 when this member has joined its swarm, or has none to join.", func(s *Sample) int64 { return truth(s.Settled) }),
	one("p2pagent_neighbours_deaf_total", "Neighbours given up because they said nothing.", func(s *Sample) int64 { return s.DeafNeighbours }),
	one("p2pagent_banned_members", "Members of which nothing is taken now.", func(s *Sample) int { return s.Banned }),
	one("p2pagent_bans_total", "Times a member was banned.", func(s *Sample) int64 { return s.Bans }),
	one("p2pagent_claims_total", "Extents that this member began to fetch from the Hub.", func(s *Sample) int64 { return s.Claims }),
	one("p2pagent_takeovers_total", "Times this member asked for an extent with which the member that had it got no further.", func(s *Sample) int64 { return s.Takeovers }),

	byName("p2pagent_jobs", "Running jobs by state.", "state", func(s *Sample) map[string]int { return s.JobsByState }),
	byName("p2pagent_jobs_ended_total", "Jobs that ended, by outcome: done, or the kind of failure.", "outcome", func(s *Sample) map[string]int64 { return s.EndedByOutcome }),
	durations("p2pagent_job_duration_seconds", "How long jobs took that ended well, those for single files of the gateway apart.", func(s *Sample) histogram.Counts { return s.JobTimes }),
	one("p2pagent_job_idle_seconds", "How long the job has had no byte that has had none for longest; 0 when every job moves.", func(s *Sample) float64 { return s.IdleSeconds }),

	bySnapshot("p2pagent_snapshot_bytes", "Bytes of the files that jobs want of a commit; of the last jobs only.", func(x Snapshot) int64 { return x.Bytes }),
	bySnapshot("p2pagent_snapshot_here_bytes", "Of them here, verified.", func(x Snapshot) int64 { return x.Here }),
	bySnapshot("p2pagent_snapshot_upstream_bytes_total", "Bytes that this member got from the Hub for the commit; their sum over the fleet, divided by the size, is upstream copies.", func(x Snapshot) int64 { return x.Upstream }),
	bySnapshot("p2pagent_snapshot_ready", "1 when the files are all here under their names.", func(x Snapshot) int64 { return truth(x.Ready) }),

	byName("p2pagent_desired_models", "Models that the configuration or a rollout wants here, by how it stands with them.", "phase", func(s *Sample) map[string]int { return s.DesiredByPhase }),

	split("p2pagent_gateway_requests_total", "Requests of the gateway's clients, by the class of the answer's status; none: it broke off before.", "code",
		[]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}, func(s *Sample) []int64 { return s.GatewayAnswers[:] }),
	one("p2pagent_gateway_bytes_total", "Bytes of bodies that the gateway sent.", func(s *Sample) int64 { return s.GatewayBytes }),
	durations("p2pagent_gateway_first_byte_seconds", "How long clients waited for the first byte of a file.", func(s *Sample) histogram.Counts { return s.GatewayTimes }),

	split("p2pagent_cache_bytes", "Bytes of blobs in the cache, whoever put them there, and of pieces of blobs that are not whole yet.", "state",
		[]string{"whole", "partial"}, func(s *Sample) []int64 { return []int64{s.CacheWhole, s.CachePartial} }),
	one("p2pagent_cache_free_bytes", "What an ordinary user can still write to the cache's disk.", func(s *Sample) int64 { return s.CacheFree }),
}

// kinds names the types of Prometheus.
var kinds = map[prometheus.ValueType]string{prometheus.CounterValue: "counter", prometheus.GaugeValue: "gauge"}

// Family is what documents say of a metric.
type Family struct {
	Name, Type, Help string
	Labels           []string
}

// Families lists what an agent exports, in the order of the documents.
func Families() []Family {
	out := make([]Family, len(families))
	for i, f := range families {
		out[i] = Family{f.name, kinds[f.kind()], f.help, f.labels}
		if f.times != nil {
			out[i].Type = "histogram"
		}
	}
	return out
}
