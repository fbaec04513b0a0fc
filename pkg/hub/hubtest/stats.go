package hubtest

import (
	"maps"
	"slices"
	"strings"
)

// Stats is what a Server has done so far.
type Stats struct {
	Calls  map[Route]int64 `json:"calls"`  // requests by route, redirects included
	Status map[int]int64   `json:"status"` // answers by status
	// BodyBytes are bytes of files that were sent, whoever received them.
	BodyBytes int64 `json:"body_bytes"`
	// Copies is BodyBytes divided by the size of the distinct files that any byte
	// was sent of.
	Copies float64 `json:"copies"`
	// MaxCoverage is how often the byte that was sent most often was sent.
	MaxCoverage int                  `json:"max_coverage"`
	Files       map[string]FileStats `json:"files"` // by "org/name/path"
	// StoredBytes are bytes of xorbs that were sent, Xorbs the same by their names.
	StoredBytes int64                `json:"stored_bytes"`
	Xorbs       map[string]FileStats `json:"xorbs"`
	// TokensAtCDN counts requests to the CDN that carried an Authorization header.
	TokensAtCDN int64 `json:"tokens_at_cdn"`
	// Open and MaxOpen are the bodies being sent now, and at most at once.
	Open    int `json:"open"`
	MaxOpen int `json:"max_open"`
}

// FileStats is what was sent of one file.
type FileStats struct {
	Size     int64 `json:"size"`
	Bytes    int64 `json:"bytes"`    // sent, repeats included
	Distinct int64 `json:"distinct"` // of these, how many different ones
	Max      int   `json:"max"`      // how often the byte that was sent most often was sent
	Requests int64 `json:"requests"`
}

// APICalls returns the calls that ask for repository information or listings.
func (s Stats) APICalls() int64 {
	return s.Calls[Info] + s.Calls[Tree] + s.Calls[Paths] + s.Calls[Refs]
}

type counters struct {
	calls       map[Route]int64
	status      map[int]int64
	files       map[string]*coverage
	xorbs       map[string]*coverage
	tokensAtCDN int64
	open, most  int
}

func newCounters() counters {
	return counters{calls: make(map[Route]int64), status: make(map[int]int64), files: make(map[string]*coverage), xorbs: make(map[string]*coverage)}
}

// coverage remembers how often each byte of a file was sent, as steps: at
// steps[x] the count rises by that much. Requests are thousands, bytes billions.
type coverage struct {
	size, bytes, requests int64
	steps                 map[int64]int
}

func (c *coverage) add(off, n int64) {
	c.bytes += n
	if n > 0 {
		c.steps[off]++
		c.steps[off+n]--
	}
}

func (c *coverage) sum() FileStats {
	f := FileStats{Size: c.size, Bytes: c.bytes, Requests: c.requests}
	count, last := 0, int64(0)
	for _, at := range slices.Sorted(maps.Keys(c.steps)) {
		if count > 0 {
			f.Distinct += at - last
		}
		count, last = count+c.steps[at], at
		f.Max = max(f.Max, count)
	}
	return f
}

// Stats returns a copy of all counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Calls: maps.Clone(s.stats.calls), Status: maps.Clone(s.stats.status), Files: make(map[string]FileStats), Xorbs: make(map[string]FileStats),
		TokensAtCDN: s.stats.tokensAtCDN, Open: s.stats.open, MaxOpen: s.stats.most}
	var size int64
	for name, c := range s.stats.files {
		f := c.sum()
		st.Files[name] = f
		st.BodyBytes += f.Bytes
		st.MaxCoverage = max(st.MaxCoverage, f.Max)
		if f.Bytes > 0 {
			size += f.Size
		}
	}
	for name, c := range s.stats.xorbs {
		st.Xorbs[name] = c.sum()
		st.StoredBytes += c.bytes
	}
	if size > 0 {
		st.Copies = float64(st.BodyBytes) / float64(size)
	}
	return st
}

// ResetStats sets all counters to zero.
func (s *Server) ResetStats() {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.stats.open
	s.stats = newCounters()
	s.stats.open = open
}

// Copies is Stats().Copies: 1.00 means that every byte left the Hub once.
func (s *Server) Copies() float64 { return s.Stats().Copies }

// MaxCoverage returns how often the byte that was sent most often was sent, of
// the files whose "org/name/path" ends in suffix.
func (s *Server) MaxCoverage(suffix string) int {
	most := 0
	for name, f := range s.Stats().Files {
		if strings.HasSuffix(name, suffix) {
			most = max(most, f.Max)
		}
	}
	return most
}

// begin counts a body of a file that starts and returns what to call when it ends.
func (s *Server) begin(r *repo, f *File, off int64) (end func(sent int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count(s.stats.files, r.id.String()+"/"+f.Path, f.Content.Size(), off)
}

func (s *Server) beginXorb(x *xorb, off int64) (end func(sent int64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count(s.stats.xorbs, x.name.String(), x.Size(), off)
}

// count is called with s.mu held.
func (s *Server) count(in map[string]*coverage, name string, size, off int64) (end func(sent int64)) {
	c := in[name]
	if c == nil {
		c = &coverage{size: size, steps: make(map[int64]int)}
		in[name] = c
	}
	c.requests++
	s.stats.open++
	s.stats.most = max(s.stats.most, s.stats.open)
	return func(sent int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stats.open--
		c.add(off, sent)
	}
}
