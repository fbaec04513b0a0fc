package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"p2pagent/pkg/pieces"
)

// Message is anything that travels in a frame.
type Message interface{ kind() kind }

type kind byte

const (
	kindHello kind = iota + 1
	kindWant
	kindUnwant
	kindWantAck
	kindOffer
	kindWithdraw
	kindClaim
	kindClaimAck
	kindAsk
	kindRecord
	kindAskAck
	kindHold
	kindPing
	kindPieceRequest
	kindPieceReply
	kindRetract
	kindInquiry
	kindAnswer
	kindPartRequest
	kindRollout
	kindReport
)

// Limits on what one message may carry.
const (
	MaxWantBlobs  = 4096 // a longer list goes in several Wants
	MaxRecordKey  = 512
	MaxText       = 256
	MaxRecord     = pieces.MaxOutlineBytes
	MaxStatements = 512 // in one Offer
	MaxAnswer     = 64 << 10
	MaxParts      = 64 // in one PartRequest

	// MaxSeconds bounds ages: a duration counts nanoseconds, and more would wrap round.
	MaxSeconds = math.MaxInt64 / int64(time.Second)
)

// Hello opens a swarm stream in each direction.
type Hello struct {
	_        struct{} `cbor:",toarray"`
	Version  int
	Software string
	Name     string
}

// Want names blobs that the sender wants from now on. Upstream tells whether it
// could fetch them from upstream itself. Seq is echoed in WantAck.
type Want struct {
	_        struct{} `cbor:",toarray"`
	Seq      uint64
	Upstream bool
	Blobs    []pieces.Blob
}

// Unwant takes blobs back out of what the sender wants.
type Unwant struct {
	_     struct{} `cbor:",toarray"`
	Blobs []pieces.Blob
}

// WantAck says that everything the sender holds of the Want's blobs, and its own
// claims, were sent before it.
type WantAck struct {
	_   struct{} `cbor:",toarray"`
	Seq uint64
}

// Offer says that the sender holds these pieces of a blob. Statements is what
// pieces.MarshalStatements made, at most MaxStatements of them.
type Offer struct {
	_          struct{} `cbor:",toarray"`
	Blob       pieces.Blob
	Statements []byte
}

// Withdraw says that the sender holds nothing of the blob any more.
type Withdraw struct {
	_    struct{} `cbor:",toarray"`
	Blob pieces.Blob
}

// Retract says that the sender's own statements on these pieces of a blob are
// wrong: upstream had sent it wrong bytes. Whoever holds such a piece drops it.
type Retract struct {
	_       struct{} `cbor:",toarray"`
	Blob    pieces.Blob
	Indexes []int // at most MaxStatements
}

// Claim announces what the sender does upstream: State is a plan.ClaimState, or
// Unasked, Progress counts bytes.
type Claim struct {
	_        struct{} `cbor:",toarray"`
	Key      [32]byte
	State    uint8
	Progress int64
}

// Unasked as the State of a Claim takes an Ask back: the sender has the record, or
// waits for it no more.
const Unasked uint8 = 4

// ClaimAck answers a Claim that asks.
type ClaimAck struct {
	_    struct{} `cbor:",toarray"`
	Key  [32]byte
	Deny bool
}

// Ask asks for a record and says that the sender wants it from now on.
type Ask struct {
	_        struct{} `cbor:",toarray"`
	Seq      uint64
	Upstream bool
	Key      string
	MaxAge   int64 // seconds; older records are not wanted
}

// Record answers an Ask, at once or when it is known. Sig is its maker's
// signature over key and value.
type Record struct {
	_     struct{} `cbor:",toarray"`
	Key   string
	Value []byte
	Age   int64 // seconds since it was made
	Maker pieces.Maker
	Sig   []byte
}

// AskAck says that the Record, if the sender has it, and its claim on it were
// sent before.
type AskAck struct {
	_   struct{} `cbor:",toarray"`
	Seq uint64
}

// Hold passes on that the Hub asked to wait.
type Hold struct {
	_      struct{} `cbor:",toarray"`
	Bucket string
	Millis int64
}

// Ping keeps a silent stream from being taken for a dead one.
type Ping struct {
	_ struct{} `cbor:",toarray"`
}

// PieceRequest asks for the bytes of one piece.
type PieceRequest struct {
	_     struct{} `cbor:",toarray"`
	Blob  pieces.Blob
	Index int
}

// PartRequest asks for some of the bytes of one piece: the parts, which ascend and
// don't overlap, one after the other.
type PartRequest struct {
	_     struct{} `cbor:",toarray"`
	Blob  pieces.Blob
	Index int
	Parts []Part
}

// Part is bytes [Off, Off+N) of a piece.
type Part struct {
	_      struct{} `cbor:",toarray"`
	Off, N int64
}

// Status is the answer to a PieceRequest or a PartRequest.
type Status uint8

const (
	OK      Status = iota + 1 // Length bytes follow
	NotHeld                   // the sender does not hold the piece (any more)
	Busy                      // ask again later
)

// PieceReply comes before the bytes of a piece, or of its parts.
type PieceReply struct {
	_      struct{} `cbor:",toarray"`
	Status Status
	Length int64
}

// Inquiry asks what the receiver says on a topic.
type Inquiry struct {
	_     struct{} `cbor:",toarray"`
	Topic string
}

// Answer is what it says; nothing when it knows no such topic.
type Answer struct {
	_     struct{} `cbor:",toarray"`
	Value []byte
}

func (*Hello) kind() kind        { return kindHello }
func (*Want) kind() kind         { return kindWant }
func (*Unwant) kind() kind       { return kindUnwant }
func (*WantAck) kind() kind      { return kindWantAck }
func (*Offer) kind() kind        { return kindOffer }
func (*Withdraw) kind() kind     { return kindWithdraw }
func (*Claim) kind() kind        { return kindClaim }
func (*ClaimAck) kind() kind     { return kindClaimAck }
func (*Ask) kind() kind          { return kindAsk }
func (*Record) kind() kind       { return kindRecord }
func (*AskAck) kind() kind       { return kindAskAck }
func (*Hold) kind() kind         { return kindHold }
func (*Ping) kind() kind         { return kindPing }
func (*PieceRequest) kind() kind { return kindPieceRequest }
func (*PieceReply) kind() kind   { return kindPieceReply }
func (*Retract) kind() kind      { return kindRetract }
func (*Inquiry) kind() kind      { return kindInquiry }
func (*Answer) kind() kind       { return kindAnswer }
func (*PartRequest) kind() kind  { return kindPartRequest }

func blank(k kind) (Message, error) {
	switch k {
	case kindHello:
		return new(Hello), nil
	case kindWant:
		return new(Want), nil
	case kindUnwant:
		return new(Unwant), nil
	case kindWantAck:
		return new(WantAck), nil
	case kindOffer:
		return new(Offer), nil
	case kindWithdraw:
		return new(Withdraw), nil
	case kindClaim:
		return new(Claim), nil
	case kindClaimAck:
		return new(ClaimAck), nil
	case kindAsk:
		return new(Ask), nil
	case kindRecord:
		return new(Record), nil
	case kindAskAck:
		return new(AskAck), nil
	case kindHold:
		return new(Hold), nil
	case kindPing:
		return new(Ping), nil
	case kindPieceRequest:
		return new(PieceRequest), nil
	case kindPieceReply:
		return new(PieceReply), nil
	case kindRetract:
		return new(Retract), nil
	case kindInquiry:
		return new(Inquiry), nil
	case kindAnswer:
		return new(Answer), nil
	case kindPartRequest:
		return new(PartRequest), nil
	case kindRollout:
		return new(Rollout), nil
	case kindReport:
		return new(Report), nil
	}
	return nil, fmt.Errorf("message type %d: %w", k, ErrProtocol)
}

// check enforces the limits that the encoding itself does not.
func check(m Message) error {
	switch m := m.(type) {
	case *Hello:
		return short("name", m.Software+m.Name, MaxText)
	case *Want:
		return few(len(m.Blobs))
	case *Unwant:
		return few(len(m.Blobs))
	case *Ask:
		return errors.Join(short("record key", m.Key, MaxRecordKey), seconds(m.MaxAge))
	case *Record:
		return errors.Join(short("record key", m.Key, MaxRecordKey), seconds(m.Age))
	case *Retract:
		if len(m.Indexes) > MaxStatements {
			return fmt.Errorf("%d pieces in one message, more than %d: %w", len(m.Indexes), MaxStatements, ErrProtocol)
		}
	case *Inquiry:
		return short("topic", m.Topic, MaxRecordKey)
	case *Hold:
		return short("bucket", m.Bucket, MaxText)
	case *Rollout:
		return m.check()
	case *Report:
		return m.check()
	case *PieceRequest:
		return within(m.Blob, m.Index)
	case *PartRequest:
		return m.check()
	case *PieceReply:
		if m.Length < 0 || m.Length > pieces.MaxPieceSize {
			return fmt.Errorf("piece of %d bytes: %w", m.Length, ErrProtocol)
		}
	}
	return nil
}

func within(b pieces.Blob, index int) error {
	if index < 0 || index >= b.Pieces() {
		return fmt.Errorf("request for piece %d of %d: %w", index, b.Pieces(), ErrProtocol)
	}
	return nil
}

func (m *PartRequest) check() error {
	if err := within(m.Blob, m.Index); err != nil {
		return err
	}
	_, size := m.Blob.Piece(m.Index)
	if len(m.Parts) == 0 || len(m.Parts) > MaxParts {
		return fmt.Errorf("request for %d parts of a piece, want 1 to %d: %w", len(m.Parts), MaxParts, ErrProtocol)
	}
	var end int64
	for _, p := range m.Parts {
		if p.Off < end || p.N <= 0 || p.Off > size || p.N > size-p.Off {
			return fmt.Errorf("request for bytes %d+%d of a piece of %d, after %d: %w", p.Off, p.N, size, end, ErrProtocol)
		}
		end = p.Off + p.N
	}
	return nil
}

func short(what, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s of %d bytes, more than %d: %w", what, len(s), limit, ErrProtocol)
	}
	return nil
}

func seconds(n int64) error {
	if n < 0 || n > MaxSeconds {
		return fmt.Errorf("an age of %d s, want 0 to %d: %w", n, MaxSeconds, ErrProtocol)
	}
	return nil
}

func few(n int) error {
	if n > MaxWantBlobs {
		return fmt.Errorf("%d blobs in one message, more than %d: %w", n, MaxWantBlobs, ErrProtocol)
	}
	return nil
}
