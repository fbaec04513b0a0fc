package xet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

const (
	xorbA = "2e6ac951ab788d7409c058591571c937770043bd0f38c51032a49e915a39f7de"
	xorbB = "eea25d6ee393ccae385820daed127b96ef0ea034dfb7cf6da3a950ce334b7632"
)

// The answer of the real Hub to bytes=100000000-100200000 of a file of 548,105,171
// bytes, 2026-08-16, with another URL.
const realRange = `{"offset_into_first_range":24735,
 "terms":[{"hash":"` + xorbA + `","unpacked_length":261031,"range":{"start":417,"end":422}}],
 "xorbs":{"` + xorbA + `":[{"url":"https://cdn.test/xorbs/default/` + xorbA + `?Expires=1&Signature=2","ranges":[
  {"chunks":{"start":417,"end":422},"bytes":{"start":19388534,"end":19636569}}]}]}}`

func TestPlanOfTheHub(t *testing.T) {
	p, err := parsePlan([]byte(realRange), 100_000_000, 200_001, 548_105_171, false)
	if err != nil {
		t.Fatal(err)
	}
	if p.terms[0].at != 99_975_265 || len(p.terms) != 1 || len(p.ranges) != 1 || p.terms[0].from != 0 {
		t.Errorf("%+v", p)
	}
	r := p.ranges[0]
	if r.first != 417 || r.end != 422 || r.from != 19388534 || r.span() != 248036 || r.shared || !strings.HasSuffix(r.url.String(), "?Expires=1&Signature=2") {
		t.Errorf("%+v", r)
	}
}

func TestVectorPlans(t *testing.T) {
	for _, test := range []struct {
		name         string
		off, n, size int64
		terms        int
		bytes        int64
	}{
		{"ev-population.v2.json", 0, 63527244, 63527244, 1, 14737813},
		{"ev-population-range.v1.json", 0, 200001, 63527244, 1, 50469},
		{"ev-population-range.v2.json", 0, 200001, 63527244, 1, 50469},
		{"gpt2-model-safetensors.v2.json", 0, 548105171, 548105171, 9, 0},
		{"gpt2-model-safetensors-range.v2.json", 100000000, 200001, 548105171, 1, 248036},
	} {
		p, err := parsePlan(vector(t, "captured/"+test.name), test.off, test.n, test.size, false)
		if err != nil || len(p.terms) != test.terms || len(p.ranges) != test.terms {
			t.Errorf("%s: %v, %v", test.name, p, err)
			continue
		}
		var sum int64
		for i := range p.ranges {
			sum += p.ranges[i].span()
		}
		if test.bytes > 0 && sum != test.bytes {
			t.Errorf("%s: %d stored bytes, want %d", test.name, sum, test.bytes)
		}
	}
}

// wirePlanText is an answer of two terms: 1000 bytes in chunks [0,2) of A, 500 in
// [3,4) of B.
func wirePlanText(change ...string) string {
	s := `{"offset_into_first_range":100,"new":{},"terms":[
	 {"hash":"A","unpacked_length":1000,"range":{"start":0,"end":2},"new":1},
	 {"hash":"B","unpacked_length":500,"range":{"start":3,"end":4}}],
	"xorbs":{
	 "A":[{"url":"https://a.test/A?s=1","ranges":[{"chunks":{"start":0,"end":2},"bytes":{"start":0,"end":899}}]}],
	 "B":[{"url":"https://b.test/B?s=1","ranges":[{"chunks":{"start":2,"end":5},"bytes":{"start":300,"end":1299}}]}]}}`
	for i := 0; i < len(change); i += 2 {
		if !strings.Contains(s, change[i]) {
			panic("no " + change[i])
		}
		s = strings.ReplaceAll(s, change[i], change[i+1])
	}
	s = strings.ReplaceAll(s, `"A"`, `"`+xorbA+`"`)
	return strings.ReplaceAll(s, `"B"`, `"`+xorbB+`"`)
}

func TestPlanRefused(t *testing.T) {
	const off, n, size = 10_100, 1400, 50_000
	if p, err := parsePlan([]byte(wirePlanText()), off, n, size, false); err != nil || p.terms[0].at != 10_000 {
		t.Fatalf("%v, %v", p, err)
	}
	for name, change := range map[string][]string{
		"no JSON":                    {`{"offset`, `{offset`},
		"a negative offset":          {`range":100`, `range":-1`},
		"an offset behind the term":  {`range":100`, `range":1000`},
		"a text for a number":        {`range":100`, `range":"100"`},
		"a fraction":                 {`range":100`, `range":100.5`},
		"too few bytes":              {`range":100`, `range":101`},
		"no terms":                   {`"terms"`, `"other"`},
		"a bad hash":                 {`"hash":"A"`, `"hash":"` + xorbA[1:] + `"`},
		"a bad hash of a range":      {`"A":[`, `"` + xorbA[1:] + `x":[`},
		"an empty term":              {`{"start":0,"end":2},"new"`, `{"start":2,"end":2},"new"`},
		"a term outside its range":   {`{"start":3,"end":4}`, `{"start":4,"end":6}`},
		"a term before its range":    {`{"start":3,"end":4}`, `{"start":1,"end":3}`},
		"a term without range":       {`"B":[`, `"` + strings.Repeat("0", 64) + `":[`},
		"a term of no bytes":         {`"unpacked_length":500`, `"unpacked_length":0`},
		"a term of many bytes":       {`"unpacked_length":500`, fmt.Sprintf(`"unpacked_length":%d`, MaxChunk+1)},
		"more than the file":         {`"unpacked_length":1000`, `"unpacked_length":60000`},
		"an empty range":             {`"chunks":{"start":0,"end":2}`, `"chunks":{"start":0,"end":0}`},
		"a range from before":        {`"chunks":{"start":0,"end":2}`, `"chunks":{"start":-1,"end":2}`},
		"bytes from before":          {`"bytes":{"start":0,`, `"bytes":{"start":-1,`},
		"bytes that end too early":   {`"bytes":{"start":0,"end":899}`, `"bytes":{"start":0,"end":16}`},
		"bytes beyond a xorb":        {`"bytes":{"start":0,"end":899}`, `"bytes":{"start":75497000,"end":75497472}`},
		"too many bytes":             {`"bytes":{"start":0,"end":899}`, `"bytes":{"start":0,"end":700000}`},
		"http":                       {`https://a.test`, `http://a.test`},
		"another scheme":             {`https://a.test`, `file://a.test`},
		"no host":                    {`https://a.test/A`, `/A`},
		"a user in the URL":          {`https://a.test`, `https://u:p@a.test`},
		"no URL":                     {`https://a.test`, `https://a.test:port%`},
		"a long URL":                 {`A?s=1`, `A?s=` + strings.Repeat("1", maxURL)},
		"a range twice, elsewhere":   {`{"start":0,"end":899}}]}]`, `{"start":0,"end":899}},{"chunks":{"start":1,"end":4},"bytes":{"start":900,"end":1000}}]}]`},
		"bytes that overlap":         {`{"start":0,"end":899}}]}]`, `{"start":0,"end":899}},{"chunks":{"start":2,"end":4},"bytes":{"start":899,"end":1000}}]}]`},
		"chunks beyond what can be":  {`{"start":3,"end":4}`, `{"start":3,"end":99999999999}`},
		"a number too large for any": {`{"start":3,"end":4}`, `{"start":3,"end":99999999999999999999}`},
	} {
		_, err := parsePlan([]byte(wirePlanText(change...)), off, n, size, false)
		if !errors.Is(err, ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "?s=") {
			t.Errorf("%s: the error holds a URL: %v", name, err)
		}
	}
	if _, err := parsePlan([]byte(wirePlanText(`https://a.test`, `http://a.test`)), off, n, size, true); err != nil {
		t.Errorf("http where it is allowed: %v", err)
	}
}

// Other stores than the Hub's have ranges that lie in each other; a term takes the
// one that has it.
func TestPlanOverlap(t *testing.T) {
	p, err := parsePlan([]byte(wirePlanText(`"ranges":[{"chunks":{"start":2`, `"ranges":[{"chunks":{"start":3,"end":4},"bytes":{"start":500,"end":700}},{"chunks":{"start":1,"end":3},"bytes":{"start":100,"end":499}},{"chunks":{"start":2`)),
		10_100, 1400, 50_000, false)
	if err != nil || len(p.ranges) != 3 || p.ranges[p.terms[1].from].first != 2 || p.ranges[p.terms[1].from].end != 5 {
		t.Errorf("%+v, %v", p, err)
	}
}

// Parts of an answer that nobody asked for cost nothing.
func TestPlanLeavesOut(t *testing.T) {
	p, err := parsePlan([]byte(wirePlanText(`range":100`, `range":0`)), 1200, 100, 1500, false) // the whole file
	if err != nil || len(p.terms) != 1 || p.terms[0].xorb != parsed(t, xorbB) || p.skip != 200 || p.terms[0].at != 1000 {
		t.Errorf("second term alone: %+v, %v", p, err)
	}
	p, err = parsePlan([]byte(wirePlanText()), 10_100, 900, 50_000, false)
	if err != nil || len(p.terms) != 1 || p.skip != 100 {
		t.Errorf("first term alone: %+v, %v", p, err)
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte(realRange), int64(100_000_000), int64(200_001), int64(548_105_171))
	f.Add([]byte(wirePlanText()), int64(10_100), int64(1400), int64(50_000))
	f.Add([]byte(strings.ReplaceAll(`{"terms":[{"hash":"A","unpacked_length":1000,"range":{"start":0,"end":2}}],"fetch_info":{"A":[{"range":{"start":0,"end":2},"url":"https://a.test/","url_range":{"start":0,"end":99}}]}}`, "A", xorbA)), int64(0), int64(1000), int64(1000))
	f.Fuzz(func(t *testing.T, raw []byte, off, n, size int64) {
		if off < 0 || n <= 0 || size > 1<<44 || off > size-n {
			return
		}
		p, err := parsePlan(raw, off, n, size, false)
		if err != nil {
			if !errors.Is(err, ErrAnswer) {
				t.Fatalf("error without a kind: %v", err)
			}
			return
		}
		var sum int64
		for _, tm := range p.terms {
			r := p.ranges[tm.from]
			if r.xorb != tm.xorb || tm.first < r.first || tm.end > r.end || tm.first >= tm.end || r.span() > maxXorb {
				t.Fatalf("term %+v of range %+v", tm, r)
			}
			sum += tm.size
		}
		if p.skip < 0 || p.terms[0].at < 0 || sum-p.skip < n || p.skip >= p.terms[0].size {
			t.Fatalf("%d bytes, %d left out, %d asked for", sum, p.skip, n)
		}
		p.uses()
	})
}
