package plan

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pagent/pkg/pieces"
)

var updateTranscripts = flag.Bool("update", false, "write the decisions in testdata anew")

// TestTranscripts replays testdata/*.txt: events, one a line, each followed by the
// decisions it led to, on lines that begin with "> ". A change of policy shows as
// a difference there; -update writes it down.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { replayFile(t, file) })
	}
}

func replayFile(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(raw), "# ") {
		t.Errorf("%s does not open with a comment that says what it pins", file)
	}
	var out strings.Builder
	sc := newTranscript()
	for i, line := range strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n") {
		if strings.HasPrefix(line, "> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		f := strings.Fields(line)
		if len(f) == 0 || f[0][0] == '#' {
			continue
		}
		said, err := sc.do(f[0], f[1:])
		if err != nil {
			t.Fatalf("%s:%d: %s: %v", file, i+1, line, err)
		}
		for _, l := range said {
			fmt.Fprintln(&out, ">", l)
		}
	}
	if *updateTranscripts {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want, got := string(raw), out.String(); want != got {
		t.Errorf("%s: %s", file, firstDifference(want, got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < min(len(w), len(g))-1 && w[i] == g[i] {
		i++
	}
	return fmt.Sprintf("line %d: recorded %q, now %q; all of it now:\n%s", i+1, w[i], g[i], got)
}

// transcript is the members of one script. "swap d", "seats d" and "bans 1m"
// choose whom the following events happen to, and make it when it is new.
type transcript struct {
	now   time.Time
	blobs map[string]pieces.Blob
	names map[Key]string
	swaps map[string]*Swap
	seats map[string]*Seats
	still map[string]bool // stopped members

	swap *Swap
	seat *Seats
	self string
	bans *Bans
}

func newTranscript() *transcript {
	return &transcript{now: time.Unix(1_700_000_000, 0), blobs: map[string]pieces.Blob{}, names: map[Key]string{},
		swaps: map[string]*Swap{}, seats: map[string]*Seats{}, still: map[string]bool{}}
}

// do carries out one event. A missing or bad argument panics inside; it comes
// back as an error so that the line can be named.
func (s *transcript) do(verb string, args []string) (said []string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	switch verb {
	case "fresh": // everything before is forgotten
		*s = *newTranscript()
		return nil, nil
	case "after":
		s.after(length(args[0]))
		return nil, nil
	case "blob":
		s.blobs[args[0]] = pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256([]byte(args[0]))), Size: size(args[1])}
		return nil, nil
	case "swap", "seats", "bans":
		s.choose(verb, args)
		return nil, nil
	case "stop":
		s.still[args[0]] = true
		return nil, nil
	}
	switch {
	case s.swap != nil:
		return s.doSwap(verb, args), nil
	case s.seat != nil:
		return s.doSeats(verb, args), nil
	case s.bans != nil:
		return s.doBans(verb, args), nil
	}
	panic("no member yet")
}

// after lets time go by. Members that are not stopped look at the clock four
// times a second, as the owner loop does.
func (s *transcript) after(d time.Duration) {
	for d > 0 {
		step := min(d, 250*time.Millisecond)
		s.now, d = s.now.Add(step), d-step
		for name, seats := range s.seats {
			if !s.still[name] {
				seats.Wake(s.now)
			}
		}
	}
}

func (s *transcript) choose(verb string, args []string) {
	s.swap, s.seat = nil, nil
	switch verb {
	case "swap":
		if s.self = args[0]; s.swaps[s.self] == nil {
			o := SwapOptions{Seed: uint64(option(args, "seed", 1)), Budget: option(args, "budget", 0), PerPeer: int(option(args, "perpeer", 0))}
			s.swaps[s.self] = NewSwap(Peer(s.self), o)
		}
		s.swap = s.swaps[s.self]
	case "seats":
		if s.self = args[0]; s.seats[s.self] == nil {
			s.seats[s.self] = NewSeats(Peer(s.self), SeatOptions{Fetchers: int(option(args, "fetchers", 0))})
		}
		s.seat = s.seats[s.self]
		delete(s.still, s.self)
	case "bans":
		s.bans = NewBans(length(args[0]))
	}
}

func (s *transcript) doSwap(verb string, args []string) []string {
	p := Peer(args0(args))
	switch verb {
	case "want":
		s.swap.Want(s.now, s.blob(args[0]), pieces.NewSet(s.blob(args[0]).Pieces()))
	case "up":
		for _, a := range args {
			s.swap.Up(Peer(a))
		}
	case "down":
		s.swap.Down(p)
	case "wants":
		s.swap.Wants(p, s.blob(args[1]), !slices.Contains(args[2:], "no"))
	case "offer":
		for _, piece := range s.pieces(args[1:]) {
			s.swap.Offer(s.now, p, piece)
		}
	case "withdraw":
		s.swap.Withdraw(p, s.blob(args[1]))
	case "lacks":
		s.swap.Lacks(p, s.pieces(args[1:2])[0])
	case "held":
		return s.held(args)
	case "lost":
		s.swap.Lost(s.now, s.pieces(args[:1])[0])
	case "next":
		return s.requests()
	case "read":
		s.swap.opt.Readers.Add(s.pieces(args[:1])[0])
	case "unread":
		s.swap.opt.Readers.Remove(s.pieces(args[:1])[0])
	case "arrived":
		s.swap.Arrived(p, s.pieces(args[1:2])[0], length(args[2]))
		return []string{fmt.Sprintf("%s gives %.1f MiB/s", p, s.swap.Rate(p)/(1<<20))}
	case "failed":
		s.swap.Failed(s.now, p, s.pieces(args[1:2])[0], length(args[2]))
	case "turns":
		return s.turns(args)
	default:
		panic("no such event for Swap")
	}
	return nil
}

func (s *transcript) held(args []string) []string {
	var said []string
	for _, piece := range s.pieces(args) {
		if cancel := s.swap.Held(piece); len(cancel) > 0 {
			said = append(said, fmt.Sprintf("cancel %s at %s", s.piece(piece), spaced(cancel)))
		}
	}
	return said
}

func (s *transcript) requests() []string {
	var said []string
	for _, r := range s.swap.Next(s.now) {
		again := ""
		if r.Again {
			again = " again"
		}
		said = append(said, fmt.Sprintf("ask %s for %s%s", r.Peer, s.piece(r.Piece), again))
	}
	return orNothing(said)
}

// turns tells the order in which members may ask for a piece, to explain a script.
func (s *transcript) turns(args []string) []string {
	piece, members := s.pieces(args[:1])[0], slices.Clone(args[1:])
	turn := func(p string) uint64 { return mix(Score(Peer(p), piece.Blob.Digest.Bytes()), piece.Index) }
	slices.SortFunc(members, func(a, b string) int {
		if turn(a) > turn(b) {
			return -1
		}
		return 1
	})
	return []string{strings.Join(members, " ")}
}

func (s *transcript) doSeats(verb string, args []string) []string {
	switch verb {
	case "ready":
		var said []string
		for _, k := range s.seat.Ready(s.now) {
			said = append(said, "start "+s.names[k])
		}
		return orNothing(said)
	case "next":
		var said []string
		for _, a := range s.seat.Next(s.now, int(number(args[0]))) {
			said = append(said, s.ask(a))
		}
		return orNothing(said)
	case "gone":
		s.seat.Gone(Peer(args[0]))
		return nil
	case "heard", "acked":
		return s.message(verb, Peer(args[0]), s.key(args[1]), args[2:])
	case "rival":
		for _, p := range args[1:] {
			s.seat.SetRival(s.key(args[0]), Peer(strings.TrimPrefix(p, "-")), p[0] != '-')
		}
		return nil
	}
	return s.doTask(verb, s.key(args[0]), args[1:])
}

func (s *transcript) doTask(verb string, k Key, args []string) []string {
	switch verb {
	case "add":
		var after Key
		if len(args) > 1 {
			after = s.key(args[1])
		}
		s.seat.Add(k, s.key(args[0]), after)
	case "remove":
		s.seat.Remove(k)
	case "needed":
		s.seat.SetNeeded(k, !slices.Contains(args, "no"))
	case "claim":
		if a, ok := s.seat.Claim(s.now, k); ok {
			return []string{s.ask(a)}
		}
		return []string{"nothing"}
	case "read": // as so many pieces away, or no more
		s.seat.SetLead(k, int(option(args, "lead", 0)), !slices.Contains(args, "no"))
	case "moved":
		s.seat.Moved(s.now, k, size(args[0]))
	case "finished":
		s.seat.Finished(s.now, k, slices.Contains(args, "failed"))
	case "order":
		return s.ranking(k, args)
	default:
		panic("no such event for Seats")
	}
	return nil
}

func (s *transcript) message(verb string, p Peer, k Key, args []string) []string {
	if verb == "acked" {
		s.seat.Acked(s.now, p, k, slices.Contains(args, "deny"))
		return nil
	}
	state := map[string]ClaimState{"asking": Asking, "fetching": Fetching, "released": Released}[args[0]]
	if state == 0 {
		panic("no such state of a claim")
	}
	progress := int64(0)
	if len(args) > 1 {
		progress = size(args[1])
	}
	deny, yield := s.seat.Heard(s.now, p, k, state, progress)
	var said []string
	switch {
	case deny:
		said = append(said, "deny")
	case state == Asking:
		said = append(said, "agree")
	}
	if yield {
		said = append(said, "yield")
	}
	return said
}

func (s *transcript) ask(a Ask) string {
	out := "ask for " + s.names[a.Key]
	if len(a.To) > 0 {
		out += " of " + spaced(a.To)
	}
	if a.Takeover {
		out += ", takeover"
	}
	return out
}

// ranking tells the order of members by score for a task or group, to explain a
// script.
func (s *transcript) ranking(k Key, members []string) []string {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b string) int {
		if ahead(Score(Peer(a), k[:]), Peer(a), Score(Peer(b), k[:]), Peer(b)) {
			return -1
		}
		return 1
	})
	return []string{strings.Join(members, " ")}
}

func (s *transcript) doBans(verb string, args []string) []string {
	switch verb {
	case "add":
		ban := s.bans.Add(s.now, Peer(args[0]), strings.Join(args[1:], " "))
		return []string{fmt.Sprintf("%s for %v", ban.Peer, ban.Until.Sub(ban.Since))}
	case "banned":
		return []string{fmt.Sprint(s.bans.Banned(s.now, Peer(args[0])))}
	case "list":
		var said []string
		for _, ban := range s.bans.List(s.now) {
			said = append(said, fmt.Sprintf("%s: %s, %v left", ban.Peer, ban.Reason, ban.Until.Sub(s.now)))
		}
		return orNothing(said)
	}
	panic("no such event for Bans")
}

func (s *transcript) blob(name string) pieces.Blob {
	b, ok := s.blobs[name]
	if !ok {
		panic("no such blob: " + name)
	}
	return b
}

// pieces reads x:3 and x:0-7.
func (s *transcript) pieces(words []string) []Piece {
	var out []Piece
	for _, word := range words {
		name, span, _ := strings.Cut(word, ":")
		low, high, many := strings.Cut(span, "-")
		if !many {
			high = low
		}
		for i := number(low); i <= number(high); i++ {
			out = append(out, Piece{s.blob(name), int(i)})
		}
	}
	return out
}

func (s *transcript) piece(p Piece) string {
	for name, b := range s.blobs {
		if b == p.Blob {
			return fmt.Sprintf("%s:%d", name, p.Index)
		}
	}
	return "?"
}

func (s *transcript) key(name string) Key {
	k := Key(sha256.Sum256([]byte(name)))
	s.names[k] = name
	return k
}

func args0(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func option(args []string, name string, otherwise int64) int64 {
	for _, a := range args {
		if v, ok := strings.CutPrefix(a, name+"="); ok {
			return size(v)
		}
	}
	return otherwise
}

func orNothing(said []string) []string {
	if len(said) == 0 {
		return []string{"nothing"}
	}
	return said
}

func spaced(peers []Peer) string {
	words := make([]string, len(peers))
	for i, p := range peers {
		words[i] = string(p)
	}
	return strings.Join(words, " ")
}

// size reads a number of bytes, or of MiB.
func size(word string) int64 {
	if mib, ok := strings.CutSuffix(word, "MiB"); ok {
		return number(mib) << 20
	}
	return number(word)
}

func number(word string) int64 {
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func length(word string) time.Duration {
	d, err := time.ParseDuration(word)
	if err != nil {
		panic(err)
	}
	return d
}
