package wire

import (
	"fmt"

	"p2pagent/pkg/pieces"
)

// MaxGossip bounds a message in gossip: memberlist queues one that does not fit
// a packet for ever and never sends it.
const MaxGossip = 1024

// MaxSummaryRows bounds the blobs of one Summary or Seek.
const MaxSummaryRows = 64

// Gossip is what travels to all members, neighbours or not: a summary, a seek or a
// hold. It is a hint: it tells whom to ask or when, never what to believe. Nonce
// makes two messages that say the same differ: gossip carries equal bytes once only.
type Gossip struct {
	Nonce   uint64   `cbor:"0,keyasint"`
	Summary *Summary `cbor:"1,keyasint,omitempty"`
	Seek    *Seek    `cbor:"2,keyasint,omitempty"`
	Hold    *Hold    `cbor:"3,keyasint,omitempty"`
}

// Summary tells which pieces a member holds of some blobs.
type Summary struct {
	_    struct{} `cbor:",toarray"`
	Peer []byte
	Rows []SummaryRow
}

// SummaryRow is the have-bits of one blob, run-length coded (pieces.Set).
type SummaryRow struct {
	_    struct{} `cbor:",toarray"`
	Blob pieces.Blob
	Runs []byte
}

// Seek asks the members that are no neighbours of Peer to say what they hold of
// these blobs.
type Seek struct {
	_     struct{} `cbor:",toarray"`
	Peer  []byte
	Blobs []pieces.Blob
}

// EncodeGossip refuses a message that gossip would not carry.
func EncodeGossip(g Gossip) ([]byte, error) {
	b, err := pieces.Marshal(g)
	if err == nil && len(b) > MaxGossip {
		err = fmt.Errorf("%d bytes, more than %d: %w", len(b), MaxGossip, ErrProtocol)
	}
	if err != nil {
		return nil, fmt.Errorf("encode gossip: %w", err)
	}
	return b, nil
}

// DecodeGossip reads what EncodeGossip made.
func DecodeGossip(b []byte) (Gossip, error) {
	var g Gossip
	if err := pieces.Unmarshal(b, MaxGossip, &g); err != nil {
		return Gossip{}, fmt.Errorf("decode gossip: %w: %w", ErrProtocol, err)
	}
	if said := count(g.Summary != nil, g.Seek != nil, g.Hold != nil); said != 1 {
		return Gossip{}, fmt.Errorf("decode gossip: %d messages in one: %w", said, ErrProtocol)
	}
	if g.Hold != nil {
		return g, check(g.Hold)
	}
	return g, nil
}

func count(is ...bool) (n int) {
	for _, b := range is {
		if b {
			n++
		}
	}
	return n
}
