package docs

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/swarm"
)

// TestLimits generates the table of limits from the constants.
func TestLimits(t *testing.T) {
	var out strings.Builder
	fmt.Fprintln(&out, "| what | at most |\n|---|---|")
	for _, row := range []struct {
		what string
		n    int64
		unit string
	}{
		{"frame of type Record, body", wire.MaxFrame, "bytes"},
		{"frame of type Offer, body", pieces.MaxStatementBytes + 4096, "bytes"},
		{"frame of type Want or Unwant, body", wire.MaxWantBlobs * 64, "bytes"},
		{"frame of type Answer, body", wire.MaxAnswer + 16, "bytes"},
		{"frame of any other type, body", 4096, "bytes"},
		{"value of a Record", wire.MaxRecord, "bytes"},
		{"key of a Record, topic of an Inquiry", wire.MaxRecordKey, "bytes"},
		{"software and name in Hello together; bucket in Hold", wire.MaxText, "bytes"},
		{"blobs in one Want or Unwant", wire.MaxWantBlobs, ""},
		{"statements in one Offer, as this program sends it", wire.MaxStatements, ""},
		{"encoded statements of one Offer", pieces.MaxStatementBytes, "bytes"},
		{"texts of a Rollout together", wire.MaxRollout, "bytes"},
		{"patterns of a Rollout", wire.MaxPatterns, ""},
		{"kind and reason of a Report together", wire.MaxReason, "bytes"},
		{"gossip message", wire.MaxGossip, "bytes"},
		{"rows of a Summary, blobs of a Seek", wire.MaxSummaryRows, ""},
		{"piece", pieces.MaxPieceSize, "bytes"},
		{"blob", pieces.MaxBlobSize, "bytes"},
		{"files of an outline", pieces.MaxFiles, ""},
		{"encoded outline", pieces.MaxOutlineBytes, "bytes"},
	} {
		fmt.Fprintf(&out, "| %s | %s |\n", row.what, strings.TrimSpace(grouped(row.n)+" "+row.unit))
	}
	generated(t, "docs/protocol.md", "limits", out.String())
}

// grouped writes a number with commas.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// TestExamples generates one frame of every type, and the bytes that are signed
// and hashed, so that a second implementation has something to compare with.
func TestExamples(t *testing.T) {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(i)
	}
	signer := pieces.NewSigner(ed25519.NewKeyFromSeed(seed))
	blob := pieces.Blob{Digest: pieces.SHA256Digest([32]byte(pieces.IDOf([]byte("hello")))), Size: 5}
	statement := signer.State(blob, 0, pieces.Mark{ID: pieces.IDOf([]byte("hello"))})
	offered, err := pieces.MarshalStatements([]pieces.Statement{statement})
	if err != nil {
		t.Fatal(err)
	}
	extent := pieces.Extent{Spans: []pieces.Span{{Blob: blob, First: 0, Count: 1}}}
	key, value := "resolve/org/name@main", []byte("0123456789abcdef0123456789abcdef01234567")
	peer, err := swarm.PeerOf(signer.Maker())
	if err != nil {
		t.Fatal(err)
	}
	key32 := swarmKey(t, seed)
	var out strings.Builder
	fmt.Fprintf(&out, "```\nswarm key          %x\nfingerprint        %s\nproof of the peer  %x\n\n", seed, key32.Fingerprint(), key32.Proof(peer))
	fmt.Fprintf(&out, "seed of the maker  %x\nmaker              %x\npeer id            %s\n", seed, signer.Maker(), peer)
	fmt.Fprintf(&out, "blob               %s of %d bytes (\"hello\")\npiece id           %s\nextent key         %x\nstatement's sig    %x\n\n",
		blob, blob.Size, statement.ID, [32]byte(extent.Key()), statement.Sig)
	for _, m := range []wire.Message{
		&wire.Hello{Version: wire.Version, Software: "p2pagent/0.1.0", Name: "node1"},
		&wire.Want{Seq: 1, Upstream: true, Blobs: []pieces.Blob{blob}},
		&wire.Unwant{Blobs: []pieces.Blob{blob}},
		&wire.WantAck{Seq: 1},
		&wire.Offer{Blob: blob, Statements: offered},
		&wire.Withdraw{Blob: blob},
		&wire.Claim{Key: extent.Key(), State: 2, Progress: 5},
		&wire.ClaimAck{Key: extent.Key(), Deny: true},
		&wire.Ask{Seq: 2, Upstream: true, Key: key, MaxAge: 30},
		&wire.Record{Key: key, Value: value, Age: 3, Maker: signer.Maker(), Sig: signer.Sign("record v1", append([]byte(key+"\x00"), value...))},
		&wire.AskAck{Seq: 2},
		&wire.Hold{Bucket: "api", Millis: 1500},
		&wire.Ping{},
		&wire.PieceRequest{Blob: blob, Index: 0},
		&wire.PieceReply{Status: wire.OK, Length: 5},
		&wire.Retract{Blob: blob, Indexes: []int{0}},
		&wire.Inquiry{Topic: "holdings"},
		&wire.Answer{Value: []byte{0x80}},
		&wire.Rollout{Ref: "org/name@main", Commit: pieces.Commit(value), Exclude: []string{"*.bin"}, Every: 1},
		&wire.Report{Stage: wire.Fetching, Total: 5, Completed: 3, Here: 1, Upstream: 2, Rate: 4},
	} {
		frame, err := wire.Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		lines(&out, strings.TrimPrefix(fmt.Sprintf("%T", m), "*wire."), frame)
	}
	out.WriteString("\n")
	facts, err := swarm.Facts{Name: "node1", Addrs: []string{"10.1.2.3:7947"}, Proof: key32.Proof(peer), Labels: map[string]string{"zone": "a"},
		Free: 1 << 40, Upstream: true, Version: swarm.ProtocolVersion, Software: "p2pagent/0.1.0"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	lines(&out, "Facts", facts)
	for _, g := range gossips(t, blob, []byte(peer)) {
		lines(&out, g.name, g.raw)
	}
	out.WriteString("```\n")
	generated(t, "docs/protocol.md", "examples", out.String())
}

// lines writes hexadecimal digits, 56 bytes a line.
func lines(out *strings.Builder, name string, raw []byte) {
	for i := 0; i < len(raw); i += 56 {
		fmt.Fprintf(out, "%-13s %x\n", name, raw[i:min(i+56, len(raw))])
		name = ""
	}
}

// swarmKey makes a key of known bytes.
func swarmKey(t *testing.T, raw []byte) swarm.Key {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, fmt.Appendf(nil, "%x\n", raw), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := swarm.ReadKeyFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type gossipExample struct {
	name string
	raw  []byte
}

func gossips(t *testing.T, blob pieces.Blob, peer []byte) []gossipExample {
	t.Helper()
	runs, err := pieces.FullSet(1).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var out []gossipExample
	for name, g := range map[string]wire.Gossip{
		"Summary": {Summary: &wire.Summary{Peer: peer, Rows: []wire.SummaryRow{{Blob: blob, Runs: runs}}}},
		"Seek":    {Seek: &wire.Seek{Peer: peer, Blobs: []pieces.Blob{blob}}},
		"Hold":    {Hold: &wire.Hold{Bucket: "api", Millis: 1500}},
	} {
		raw, err := wire.EncodeGossip(g)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, gossipExample{name, raw})
	}
	slices.SortFunc(out, func(a, b gossipExample) int { return cmp.Compare(a.name, b.name) })
	return out
}
