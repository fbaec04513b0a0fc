// Package wire is what members say to each other on streams: frames with
// limits, and the messages in them.
//
// A frame is an unsigned varint length, then that many bytes: one type byte and
// the message as canonical CBOR. A length over MaxFrame, an unknown type and an
// encoding that is not canonical end the stream: a member speaks exactly this
// version or is not spoken to. The version is part of the protocol names below,
// so two versions can be spoken side by side during an upgrade.
//
// On a swarm stream (SwarmProtocol), in both directions:
//
//	Hello                  first frame: version, software, name
//	Want, Unwant           blobs the sender wants from now on, or no more
//	WantAck                the receiver has sent all it holds of a Want, and its claims
//	Offer, Withdraw        pieces the sender holds, each with its statement; or none of a blob any more
//	Claim, ClaimAck        upstream fetching: asking, progress, released; agree or deny
//	Ask, Record, AskAck    records: resolved revisions and outlines, by key
//	Hold                   the Hub said to wait: keep away from that bucket
//	Ping                   nothing to say, still here
//
// On a lane (PieceProtocol), a TLS connection or a stream, the taker sends PieceRequest frames one after
// another; each is answered with a PieceReply frame and, when that says OK, the
// bytes of the piece.
//
// On a stream of InquiryProtocol one Inquiry is answered with one Answer.
//
// On a rollout stream (RolloutProtocol) the member that opened it sends one Rollout;
// the other answers with Reports until either ends the stream.
package wire

// The protocols by name; the number is the version.
const (
	SwarmProtocol   = "/p2pagent/swarm/1"
	PieceProtocol   = "/p2pagent/piece/1"
	InquiryProtocol = "/p2pagent/inquiry/1"
	RolloutProtocol = "/p2pagent/rollout/1"

	Version = 1
)
