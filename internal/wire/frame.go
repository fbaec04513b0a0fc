package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"p2pagent/pkg/pieces"
)

// ErrProtocol marks bytes that no member of this version sends.
var ErrProtocol = errors.New("protocol error")

// MaxFrame bounds any frame: a record is the longest message.
const MaxFrame = MaxRecord + 4096

// limits bounds the frames of each type, so that only the types that need much
// memory can ask for it.
func limit(k kind) int {
	switch k {
	case kindRecord:
		return MaxFrame
	case kindOffer:
		return pieces.MaxStatementBytes + 4096
	case kindWant, kindUnwant:
		return MaxWantBlobs * 64
	case kindAnswer:
		return MaxAnswer + 16
	default:
		return 4096
	}
}

// Append encodes a message as a frame at the end of b.
func Append(b []byte, m Message) ([]byte, error) {
	if err := check(m); err != nil {
		return b, err
	}
	body, err := pieces.Marshal(m)
	if err != nil {
		return b, fmt.Errorf("encode %T: %w", m, err)
	}
	if len(body) > limit(m.kind()) {
		return b, fmt.Errorf("encode %T: %d bytes, more than %d: %w", m, len(body), limit(m.kind()), ErrProtocol)
	}
	b = binary.AppendUvarint(b, uint64(len(body)+1))
	b = append(b, byte(m.kind()))
	return append(b, body...), nil
}

// Read reads one frame. At the clean end of the stream it returns io.EOF; errors
// wrap ErrProtocol when the bytes are at fault. No more memory is taken than the
// type of the message allows, and it is taken only as bytes arrive.
func Read(r *bufio.Reader) (Message, error) {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if length < 1 || length > MaxFrame {
		return nil, fmt.Errorf("frame of %d bytes: %w", length, ErrProtocol)
	}
	k, err := r.ReadByte()
	if err != nil {
		return nil, noEOF(err)
	}
	m, err := blank(kind(k))
	if err != nil {
		return nil, err
	}
	if int(length-1) > limit(kind(k)) {
		return nil, fmt.Errorf("%T of %d bytes: %w", m, length-1, ErrProtocol)
	}
	body, err := readBody(r, int(length-1))
	if err != nil {
		return nil, noEOF(err)
	}
	return m, decode(body, m)
}

// readBody grows with what arrives: a length alone must not cost memory.
func readBody(r io.Reader, n int) ([]byte, error) {
	const step = 64 << 10
	body := make([]byte, 0, min(n, step))
	for len(body) < n {
		more := min(n-len(body), max(step, len(body)))
		at := len(body)
		body = append(body, make([]byte, more)...)
		if _, err := io.ReadFull(r, body[at:]); err != nil {
			return nil, err
		}
	}
	return body, nil
}

func decode(body []byte, m Message) error {
	if err := pieces.Unmarshal(body, len(body), m); err != nil {
		return fmt.Errorf("%T: %w: %w", m, ErrProtocol, err)
	}
	return check(m)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
