package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"p2pagent/pkg/pieces"
)

var blob = pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1, 2, 3}), Size: 5 << 20}

// messages holds one of each type.
var messages = []Message{
	&Hello{Version: 1, Software: "p2pagent/0.1", Name: "n01"},
	&Want{Seq: 7, Upstream: true, Blobs: []pieces.Blob{blob}},
	&Unwant{Blobs: []pieces.Blob{blob}},
	&WantAck{Seq: 7},
	&Offer{Blob: blob, Statements: []byte{0x80}},
	&Withdraw{Blob: blob},
	&Claim{Key: [32]byte{9}, State: 2, Progress: 4096},
	&ClaimAck{Key: [32]byte{9}, Deny: true},
	&Ask{Seq: 8, Upstream: true, Key: "resolve/org/name@main", MaxAge: 30},
	&Record{Key: "resolve/org/name@main", Value: []byte("abc"), Age: 3, Maker: pieces.Maker{4}, Sig: make([]byte, 64)},
	&AskAck{Seq: 8},
	&Hold{Bucket: "api", Millis: 5000},
	&Ping{},
	&PieceRequest{Blob: blob, Index: 1},
	&PieceReply{Status: OK, Length: 1 << 20},
	&Retract{Blob: blob, Indexes: []int{0, 1}},
	&Inquiry{Topic: "holdings"},
	&Answer{Value: []byte{0x80}},
	&PartRequest{Blob: blob, Index: 0, Parts: []Part{{Off: 1, N: 2}, {Off: 3, N: 1}}},
	&Rollout{Ref: "org/name@main", Commit: "0123456789abcdef0123456789abcdef01234567", Include: []string{"*.json"}, Exclude: []string{"old/"}, Every: 1},
	&Report{Stage: Failed, Kind: "denied", Reason: "gated", Total: 9, Completed: 8, Here: 1, Upstream: 2, Peers: 5, Rate: 7},
}

func reader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

func TestEveryMessageComesBack(t *testing.T) {
	seen := map[kind]bool{}
	var all []byte
	for _, m := range messages {
		seen[m.kind()] = true
		var err error
		if all, err = Append(all, m); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
	}
	for k := kindHello; k <= kindReport; k++ {
		if !seen[k] {
			t.Errorf("type %d is not among the messages of this test", k)
		}
	}
	r := bufio.NewReader(iotest.OneByteReader(bytes.NewReader(all)))
	for _, want := range messages {
		got, err := Read(r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("read %T: %+v, %v, want %+v", want, got, err, want)
		}
	}
	if _, err := Read(r); err != io.EOF {
		t.Errorf("at the end: %v, want EOF", err)
	}
}

// The bytes are the protocol: docs/protocol.md says them.
func TestGoldenFrames(t *testing.T) {
	for want, m := range map[string]Message{
		"030481" + "07":                  &WantAck{Seq: 7},
		"020d80":                         &Ping{},
		"090c82636170" + "69" + "191388": &Hold{Bucket: "api", Millis: 5000},
		"080f82" + "01" + "1a00100000":   &PieceReply{Status: OK, Length: 1 << 20},
	} {
		got, err := Append(nil, m)
		if err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%T: %x, %v, want %s", m, got, err, want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	frame := func(k kind, body string) []byte {
		raw, err := hex.DecodeString(body)
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.AppendUvarint(nil, uint64(len(raw)+1)), append([]byte{byte(k)}, raw...)...)
	}
	for name, in := range map[string][]byte{
		"no length":             {0},
		"too long":              binary.AppendUvarint(nil, MaxFrame+1),
		"length bomb":           binary.AppendUvarint(nil, 1<<62),
		"long ping":             append(binary.AppendUvarint(nil, 1<<20), byte(kindPing)),
		"unknown type":          frame(99, "80"),
		"type 0":                frame(0, "80"),
		"not canonical":         frame(kindWantAck, "811807"), // 7 in two bytes
		"indefinite array":      frame(kindWantAck, "9f07ff"),
		"too many fields":       frame(kindWantAck, "820707"),
		"trailing bytes":        frame(kindWantAck, "810700"),
		"not CBOR":              frame(kindWantAck, "ff"),
		"piece out of range":    mustAppend(t, &PieceRequest{Blob: blob, Index: 0}, func(b []byte) { b[len(b)-1] = 2 }),
		"piece longer than any": frame(kindPieceReply, "82011a01000001"),
	} {
		if m, err := Read(reader(in)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %+v, %v, want a protocol error", name, m, err)
		}
	}
}

func mustAppend(t *testing.T, m Message, change func([]byte)) []byte {
	t.Helper()
	b, err := Append(nil, m)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	return b
}

func TestReadTellsACutFrameFromTheEnd(t *testing.T) {
	whole := mustAppend(t, messages[1], func([]byte) {})
	for cut := 1; cut < len(whole); cut++ {
		if _, err := Read(reader(whole[:cut])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d of %d: %v", cut, len(whole), err)
		}
	}
}

// A length alone must not cost memory: it is taken as bytes arrive.
func TestALengthAloneCostsNoMemory(t *testing.T) {
	in := append(binary.AppendUvarint(nil, MaxRecord), byte(kindRecord))
	bytes := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Read(reader(in))
		}
	}).AllocedBytesPerOp()
	if bytes > 1<<20 {
		t.Errorf("%d bytes allocated for a frame that never came", bytes)
	}
}

func TestAppendRefusesWhatReadWould(t *testing.T) {
	for _, m := range []Message{
		&Hello{Name: strings.Repeat("x", MaxText+1)},
		&Want{Blobs: make([]pieces.Blob, MaxWantBlobs+1)},
		&Ask{Key: strings.Repeat("k", MaxRecordKey+1)},
		&Ask{MaxAge: -1}, &Ask{MaxAge: MaxSeconds + 1},
		&Record{Age: -1}, &Record{Age: MaxSeconds + 1},
		&Hold{Bucket: strings.Repeat("b", MaxText+1)},
		&Inquiry{Topic: strings.Repeat("t", MaxRecordKey+1)},
		&Answer{Value: make([]byte, MaxAnswer+17)},
		&PieceRequest{Blob: blob, Index: 2},
		&Rollout{Ref: strings.Repeat("r", MaxRollout), Include: []string{"x"}, Every: 1},
		&Rollout{Include: make([]string, MaxPatterns), Exclude: []string{"x"}, Every: 1},
		&Rollout{}, &Rollout{Every: MaxReportEvery + 1},
		&Report{Stage: Here, Rate: -1}, &Report{}, &Report{Stage: Failed + 1},
		&Report{Stage: Failed, Kind: "denied", Reason: strings.Repeat("x", MaxReason)},
		&PieceReply{Length: pieces.MaxPieceSize + 1},
		&Offer{Blob: blob, Statements: make([]byte, pieces.MaxStatementBytes+8192)},
	} {
		if b, err := Append([]byte("x"), m); !errors.Is(err, ErrProtocol) || string(b) != "x" {
			t.Errorf("%T: %d bytes, %v", m, len(b), err)
		}
	}
}

func TestGossip(t *testing.T) {
	row := SummaryRow{Blob: blob, Runs: []byte{0, 2}}
	for _, g := range []Gossip{
		{Nonce: 1, Summary: &Summary{Peer: []byte("p"), Rows: []SummaryRow{row}}},
		{Nonce: 2, Seek: &Seek{Peer: []byte("p"), Blobs: []pieces.Blob{blob}}},
		{Nonce: 3, Hold: &Hold{Bucket: "api", Millis: 5000}},
	} {
		raw, err := EncodeGossip(g)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeGossip(raw); err != nil || !reflect.DeepEqual(got, g) {
			t.Errorf("%+v, %v, want %+v", got, err, g)
		}
	}
	if _, err := EncodeGossip(Gossip{Summary: &Summary{Peer: make([]byte, MaxGossip)}}); !errors.Is(err, ErrProtocol) {
		t.Errorf("a message that gossip never sends: %v", err)
	}
	for _, g := range []Gossip{{}, {Summary: &Summary{}, Seek: &Seek{}}, {Seek: &Seek{}, Hold: &Hold{}}, {Hold: &Hold{Bucket: strings.Repeat("b", MaxText+1)}}} {
		raw, err := EncodeGossip(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeGossip(raw); !errors.Is(err, ErrProtocol) {
			t.Errorf("%+v: %v", g, err)
		}
	}
}

// FuzzRead: no panic, and what is accepted has exactly one spelling.
func FuzzRead(f *testing.F) {
	for _, m := range messages {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		m, err := Read(bufio.NewReaderSize(r, 16))
		if err != nil {
			return
		}
		again, err := Append(nil, m)
		if err != nil || !bytes.HasPrefix(in, again) && !longVarint(in, again) {
			t.Fatalf("%x read as %+v, which is written %x, %v", in, m, again, err)
		}
	})
}

// longVarint allows for a length that was padded: the frame's length is no part
// of the message and nothing is named by it.
func longVarint(in, again []byte) bool {
	n, size := binary.Uvarint(in)
	m, sizeAgain := binary.Uvarint(again)
	return size > 0 && n == m && bytes.HasPrefix(in[size:], again[sizeAgain:])
}

func FuzzGossip(f *testing.F) {
	for _, g := range []Gossip{{Nonce: 3, Seek: &Seek{Peer: []byte("p"), Blobs: []pieces.Blob{blob}}}, {Hold: &Hold{Bucket: "api", Millis: 1}}} {
		raw, _ := EncodeGossip(g)
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		g, err := DecodeGossip(in)
		if err != nil {
			return
		}
		if again, err := EncodeGossip(g); err != nil || !bytes.Equal(again, in) {
			t.Fatalf("%x decoded as %+v, which is %x, %v", in, g, again, err)
		}
	})
}
