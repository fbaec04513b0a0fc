package xet

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// Limits of the format on one chunk record.
const (
	MaxChunk     = 128 << 10    // plain bytes
	maxBody      = 2 * MaxChunk // stored bytes; what did not compress may be longer than plain
	recordHeader = 8
	maxRecord    = recordHeader + maxBody
)

// Scheme is how the body of a record is compressed.
type Scheme uint8

// The schemes. BG4LZ4 first groups the bytes by their place in a 4-byte number.
const (
	None Scheme = iota
	LZ4
	BG4LZ4
)

// ErrRecord marks stored bytes that are no chunk record.
var ErrRecord = errors.New("bad chunk record")

// errFooter tells that the records of a whole xorb have ended.
var errFooter = errors.New("end of the chunk records")

// header is the first eight bytes of a record: version, stored length (3 bytes,
// little-endian), scheme, plain length (3 bytes).
type header struct {
	scheme        Scheme
	stored, plain int
}

func parseHeader(b []byte) (header, error) {
	if bytes.HasPrefix(b, footerIdent) {
		return header{}, errFooter
	}
	h := header{scheme: Scheme(b[4]), stored: uint24(b[1:]), plain: uint24(b[5:])}
	switch {
	case b[0] != 0:
		return header{}, fmt.Errorf("%w: version %d", ErrRecord, b[0])
	case h.scheme > BG4LZ4:
		return header{}, fmt.Errorf("%w: scheme %d", ErrRecord, h.scheme)
	case h.plain == 0 || h.plain > MaxChunk:
		return header{}, fmt.Errorf("%w: %d plain bytes", ErrRecord, h.plain)
	case h.stored == 0 || h.stored > maxBody:
		return header{}, fmt.Errorf("%w: %d stored bytes", ErrRecord, h.stored)
	case h.scheme == None && h.stored != h.plain:
		return header{}, fmt.Errorf("%w: %d stored bytes for %d plain ones", ErrRecord, h.stored, h.plain)
	}
	return h, nil
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// AppendHeader appends the header of a record.
func AppendHeader(b []byte, s Scheme, stored, plain int) []byte {
	return append(b, 0, byte(stored), byte(stored>>8), byte(stored>>16), byte(s), byte(plain), byte(plain>>8), byte(plain>>16))
}

// Records reads chunk records one after the other, in memory that does not grow:
// about half a megabyte. One goroutine uses it.
type Records struct {
	in      *bufio.Reader
	plain   []byte
	grouped []byte
	hasher  keyed
	frames  *lz4.Reader // for frames that are not as usual
	stored  int64
}

// NewRecords returns a reader of what Reset is given.
func NewRecords() *Records {
	return &Records{
		in: bufio.NewReaderSize(nil, 2*maxRecord), plain: make([]byte, MaxChunk), grouped: make([]byte, MaxChunk),
		hasher: newKeyed(dataKey),
	}
}

// Reset starts anew with the bytes of r.
func (d *Records) Reset(r io.Reader) {
	d.in.Reset(r)
	d.stored = 0
}

// Stored returns how many stored bytes the records so far had.
func (d *Records) Stored() int64 { return d.stored }

// Next returns the plain bytes of the next record, which are valid until the next
// call, and the hash of the chunk. It returns io.EOF at the end of the input and at the footer of
// a whole xorb; io.ErrUnexpectedEOF within a record; an error that wraps
// ErrRecord for bytes that are none.
func (d *Records) Next() (plain []byte, hash Hash, err error) {
	h, err := d.header()
	if err != nil {
		return nil, Hash{}, err
	}
	record, err := d.in.Peek(recordHeader + h.stored)
	if err != nil {
		return nil, Hash{}, cutShort(err)
	}
	if plain, err = d.decode(h, record[recordHeader:]); err != nil {
		return nil, Hash{}, err
	}
	hash = d.hasher.sum(plain)
	d.pass(len(record))
	return plain, hash, nil
}

// Skip passes over a record without decoding it.
func (d *Records) Skip() error {
	h, err := d.header()
	if err != nil {
		return err
	}
	n, err := d.in.Discard(recordHeader + h.stored)
	d.stored += int64(n)
	return cutShort(err)
}

// pass drops what was peeked at; plain of scheme None still lies in the buffer.
func (d *Records) pass(n int) {
	d.in.Discard(n) // can't fail: it is buffered
	d.stored += int64(n)
}

func (d *Records) header() (header, error) {
	b, err := d.in.Peek(recordHeader)
	if err != nil && len(b) == 0 {
		return header{}, err
	}
	if err != nil {
		return header{}, cutShort(err)
	}
	h, err := parseHeader(b)
	if err == errFooter {
		err = io.EOF
	}
	return h, err
}

func cutShort(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (d *Records) decode(h header, body []byte) ([]byte, error) {
	plain := d.plain[:h.plain]
	switch h.scheme {
	case None:
		return body, nil
	case LZ4:
		return plain, d.inflate(plain, body)
	}
	grouped := d.grouped[:h.plain]
	if err := d.inflate(grouped, body); err != nil {
		return nil, err
	}
	ungroup(plain, grouped)
	return plain, nil
}

// The LZ4 frame format (lz4_Frame_format.md of the lz4 project).
const (
	frameMagic    = 0x184D2204
	frameVersion  = 1 << 6
	versionMask   = 3 << 6
	blockChecksum = 1 << 4
	contentSize   = 1 << 3
	contentSum    = 1 << 2
	dictionary    = 1 << 0
	rawBlock      = 1 << 31
	frameHeader   = 7 // magic, two descriptor bytes, their checksum
)

// inflate decodes an LZ4 frame that must give exactly len(dst) bytes. A frame of
// one block without checksums, which is what uploaders write, is decoded in one
// step; that is a quarter faster. The checksum of its descriptor is not looked at:
// the chunk's hash covers more.
func (d *Records) inflate(dst, frame []byte) error {
	if len(frame) < frameHeader || binary.LittleEndian.Uint32(frame) != frameMagic {
		return fmt.Errorf("%w: no LZ4 frame", ErrRecord)
	}
	block, raw, simple := onlyBlock(frame)
	if !simple {
		return d.inflateFrame(dst, frame)
	}
	if raw {
		if len(block) != len(dst) {
			return fmt.Errorf("%w: %d bytes instead of %d", ErrRecord, len(block), len(dst))
		}
		copy(dst, block)
		return nil
	}
	n, err := lz4.UncompressBlock(block, dst)
	if err != nil || n != len(dst) {
		return fmt.Errorf("%w: LZ4 block gives %d bytes instead of %d (%v)", ErrRecord, n, len(dst), err)
	}
	return nil
}

// onlyBlock finds the block of a frame that has one and no checksums.
func onlyBlock(frame []byte) (block []byte, raw, ok bool) {
	flags := frame[4]
	if flags&versionMask != frameVersion || flags&(blockChecksum|contentSum|dictionary) != 0 {
		return nil, false, false
	}
	at := frameHeader
	if flags&contentSize != 0 {
		at += 8
	}
	if len(frame) < at+8 {
		return nil, false, false
	}
	size := binary.LittleEndian.Uint32(frame[at:])
	n := int(size &^ rawBlock)
	if len(frame) != at+4+n+4 || binary.LittleEndian.Uint32(frame[at+4+n:]) != 0 {
		return nil, false, false
	}
	return frame[at+4 : at+4+n], size&rawBlock != 0, true
}

// inflateFrame takes any frame that the format allows.
func (d *Records) inflateFrame(dst, frame []byte) error {
	if d.frames == nil {
		d.frames = lz4.NewReader(nil)
	}
	d.frames.Reset(bytes.NewReader(frame))
	defer d.frames.Reset(nil)
	if _, err := io.ReadFull(d.frames, dst); err != nil {
		return fmt.Errorf("%w: LZ4 frame: %w", ErrRecord, cutShort(err))
	}
	var more [1]byte
	if n, err := d.frames.Read(more[:]); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: LZ4 frame does not end after %d bytes", ErrRecord, len(dst))
	}
	return nil
}
