package swarm

import (
	"fmt"
	"log/slog"
	"testing"
)

// TestStrangeLines: which lines of memberlist tell of a stranger with another key.
func TestStrangeLines(t *testing.T) {
	for line, want := range map[string]bool{
		`[ERR] memberlist: failed to receive: No installed keys could decrypt the message from=10.0.0.9:4242`: true,
		`[ERR] memberlist: discarding stream with unacceptable label "consul": from=10.0.0.9:4242`:            true,
		`[ERR] memberlist: discarding stream with unacceptable label "": from=10.0.0.9:4242`:                  false,
		`[DEBUG] memberlist: Stream connection from=10.0.0.9:4242`:                                            false,
	} {
		var got []Refusal
		r := newLogRouter(slog.New(slog.DiscardHandler), func(r Refusal) { got = append(got, r) })
		fmt.Fprintln(r, line)
		if (len(got) == 1) != want || want && got[0].Addr != "10.0.0.9" {
			t.Errorf("%s: %v", line, got)
		}
	}
}
