package xet

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"sort"

	"p2pagent/internal/layout"
)

// Limits on a reconstruction. A range signs part of one xorb: 64 MiB of plain
// bytes, to which what does not compress adds a header for each chunk (hf-xet 1.8.0
// writes 67,113,682 bytes). Records are at least nine bytes long; that bounds their
// number.
const (
	maxXorb      = 72 << 20
	leastRecord  = recordHeader + 1
	maxPlanBytes = 16 << 20 // of JSON: about 100,000 terms, for one extent of a file
	maxURL       = 16 << 10
)

// term is a run of chunks [first, end) of one xorb.
type term struct {
	xorb       Hash
	first, end int
	size       int64         // plain bytes
	from       int           // which of the plan's ranges has it
	at         int64         // where in the file it begins
	local      bool          // it is copied from a file that is here
	gaps       []layout.Span // all but these is
}

// signed is a run of chunks [first, end) of one xorb that can be fetched: the
// bytes from to last, last included, at url. The URL is a secret for about an hour.
type signed struct {
	xorb       Hash
	first, end int
	from, last int64
	url        *url.URL
	shared     bool // the URL is signed for other ranges too
}

func (s *signed) span() int64 { return s.last - s.from + 1 }

func (s *signed) same(o *signed) bool {
	return s.xorb == o.xorb && s.first == o.first && s.end == o.end && s.from == o.from && s.last == o.last
}

// plan is how to read the bytes [off, off+n) of a file.
type plan struct {
	off, n int64
	skip   int64 // plain bytes of the first term that come before off
	terms  []term
	ranges []signed
}

// The answer of the CAS, version 2 and, where it differs, version 1.
type (
	wireSpan struct{ Start, End int64 }
	wirePlan struct {
		Skip  int64 `json:"offset_into_first_range"`
		Terms []struct {
			Hash  string   `json:"hash"`
			Size  int64    `json:"unpacked_length"`
			Range wireSpan `json:"range"`
		} `json:"terms"`
		Xorbs map[string][]struct {
			URL    string `json:"url"`
			Ranges []struct {
				Chunks wireSpan `json:"chunks"`
				Bytes  wireSpan `json:"bytes"`
			} `json:"ranges"`
		} `json:"xorbs"`
		FetchInfo map[string][]struct {
			Range wireSpan `json:"range"`
			URL   string   `json:"url"`
			Bytes wireSpan `json:"url_range"`
		} `json:"fetch_info"`
	}
)

// parsePlan reads the answer to a request for the bytes [off, off+n) of a file of
// size bytes, and refuses one that is not sound in itself or answers something
// else. Errors wrap ErrAnswer. insecure allows http.
func parsePlan(raw []byte, off, n, size int64, insecure bool) (*plan, error) {
	var w wirePlan
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, fmt.Errorf("%w: not the JSON expected", ErrAnswer)
	}
	p := &plan{off: off, n: n, skip: w.Skip}
	if err := p.addRanges(&w, insecure); err != nil {
		return nil, err
	}
	if err := p.sortRanges(); err != nil {
		return nil, err
	}
	for i, t := range w.Terms {
		xorb, err := ParseHash(t.Hash)
		if err != nil {
			return nil, fmt.Errorf("%w: term %d: %w", ErrAnswer, i, err)
		}
		if err := p.addTerm(xorb, t.Range, t.Size); err != nil {
			return nil, fmt.Errorf("%w: term %d: %w", ErrAnswer, i, err)
		}
	}
	return p, p.checkSum(size)
}

func (p *plan) addRanges(w *wirePlan, insecure bool) error {
	for name, entries := range w.Xorbs {
		for _, e := range entries {
			for _, r := range e.Ranges {
				if err := p.addRange(name, e.URL, r.Chunks, r.Bytes, len(e.Ranges) > 1, insecure); err != nil {
					return err
				}
			}
		}
	}
	for name, entries := range w.FetchInfo {
		for _, e := range entries {
			if err := p.addRange(name, e.URL, e.Range, e.Bytes, false, insecure); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *plan) addRange(name, at string, chunks, bytes wireSpan, shared, insecure bool) error {
	xorb, err := ParseHash(name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	fail := func(why string) error { return fmt.Errorf("%w: range of xorb %s: %s", ErrAnswer, xorb, why) }
	count, span := chunks.End-chunks.Start, bytes.End-bytes.Start+1
	switch {
	case chunks.Start < 0 || count <= 0 || chunks.End > maxXorb/leastRecord:
		return fail(fmt.Sprintf("chunks %d to %d", chunks.Start, chunks.End))
	case bytes.Start < 0 || bytes.End >= maxXorb || span < count*leastRecord || span > count*maxRecord:
		return fail(fmt.Sprintf("bytes %d to %d for %d chunks", bytes.Start, bytes.End, count))
	}
	u, why := checkURL(at, insecure)
	if why != "" {
		return fail(why)
	}
	p.ranges = append(p.ranges, signed{xorb: xorb, first: int(chunks.Start), end: int(chunks.End), from: bytes.Start, last: bytes.End, url: u, shared: shared})
	return nil
}

// checkURL never quotes the URL.
func checkURL(s string, insecure bool) (u *url.URL, why string) {
	if len(s) > maxURL {
		return nil, fmt.Sprintf("a URL of %d bytes", len(s))
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return nil, "not a URL"
	case u.Scheme != "https" && !(u.Scheme == "http" && insecure):
		return nil, fmt.Sprintf("scheme %.10q of its URL, want https", u.Scheme)
	case u.User != nil:
		return nil, "its URL carries a user"
	}
	return u, ""
}

func byPlace(a, b signed) int {
	return cmp.Or(slices.Compare(a.xorb[:], b.xorb[:]), cmp.Compare(a.first, b.first), cmp.Compare(b.end, a.end))
}

// sortRanges brings the ranges into an order to search in, without those that lie
// in another one. The Hub's do not overlap; those of other stores may.
func (p *plan) sortRanges() error {
	slices.SortFunc(p.ranges, byPlace)
	kept := p.ranges[:0]
	for _, r := range p.ranges {
		if n := len(kept); n > 0 && kept[n-1].xorb == r.xorb {
			last := &kept[n-1]
			if (r.first < last.end) != (r.from <= last.last) || r.end > last.end && r.last <= last.last {
				return fmt.Errorf("%w: ranges of xorb %s contradict each other", ErrAnswer, r.xorb)
			}
			if r.end <= last.end {
				continue
			}
		}
		kept = append(kept, r)
	}
	p.ranges = kept
	return nil
}

// find returns which range has the chunks, or -1. Begins and ends both ascend, so
// it is the last that begins early enough.
func (p *plan) find(xorb Hash, first, end int) int {
	i := sort.Search(len(p.ranges), func(i int) bool {
		return cmp.Or(slices.Compare(p.ranges[i].xorb[:], xorb[:]), cmp.Compare(p.ranges[i].first, first)) > 0
	}) - 1
	if i < 0 || p.ranges[i].xorb != xorb || end > p.ranges[i].end {
		return -1
	}
	return i
}

func (p *plan) addTerm(xorb Hash, chunks wireSpan, size int64) error {
	count := chunks.End - chunks.Start
	if chunks.Start < 0 || count <= 0 || chunks.End > maxXorb/leastRecord || size < count || size > count*MaxChunk {
		return fmt.Errorf("%d bytes in chunks %d to %d", size, chunks.Start, chunks.End)
	}
	from := p.find(xorb, int(chunks.Start), int(chunks.End))
	if from < 0 {
		return fmt.Errorf("no range has chunks %d to %d of xorb %s", chunks.Start, chunks.End, xorb)
	}
	p.terms = append(p.terms, term{xorb: xorb, first: int(chunks.Start), end: int(chunks.End), size: size, from: from})
	return nil
}

// checkSum compares the terms with what was asked for. The Hub gives whole chunks;
// other stores give whole terms, or the whole file, and that will do.
func (p *plan) checkSum(size int64) error {
	var sum int64
	for i := range p.terms {
		if sum += p.terms[i].size; sum > size {
			return fmt.Errorf("%w: more than the %d bytes of the file", ErrAnswer, size)
		}
	}
	if sum == size && p.skip == 0 {
		p.skip = p.off
	}
	if p.skip < 0 || p.skip > p.off || sum-p.skip < p.n {
		return fmt.Errorf("%w: %d bytes from %d on were asked for, %d come, %d of them before", ErrAnswer, p.n, p.off, sum, p.skip)
	}
	p.leaveOut()
	at := p.off - p.skip
	for i := range p.terms {
		p.terms[i].at = at
		at += p.terms[i].size
	}
	return nil
}

// leaveOut drops terms that lie wholly outside of what was asked for.
func (p *plan) leaveOut() {
	for len(p.terms) > 0 && p.skip >= p.terms[0].size {
		p.skip -= p.terms[0].size
		p.terms = p.terms[1:]
	}
	left := p.skip + p.n
	for i := range p.terms {
		if left -= p.terms[i].size; left <= 0 {
			p.terms = p.terms[:i+1]
			return
		}
	}
}
