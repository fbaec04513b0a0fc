package hubtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"p2pagent/pkg/xet"
)

// The parts of a xorb's footer, version 1, with its fixed bytes: three headings,
// the name, three counts, two offsets, 16 spare bytes, and the length behind all.
var (
	footerIdent = []byte("XETBLOB")
	hashesIdent = []byte("XBLBHSH")
	boundsIdent = []byte("XBLBBND")
)

const (
	footerFixed = 92
	footerChunk = 32 + 4 + 4
	footerTail  = 4
)

// errFooter marks bytes that are no footer of a xorb.
var errFooter = errors.New("bad xorb footer")

// footer is what stands behind the records of a stored xorb. Readers of a file
// never get it; it describes stored objects.
type footer struct {
	Xorb   xet.Hash
	Chunks []xet.Node
	Ends   []uint32 // of each record, in bytes from the start of the xorb
}

// parseFooter reads a whole footer, from its heading to its length. Its chunks
// must give its name. Errors wrap errFooter.
func parseFooter(b []byte) (footer, error) {
	p := footerParser{rest: b}
	n := (len(b) - footerFixed - footerTail) / footerChunk
	if n < 0 || xet.FooterLength(n) != int64(len(b)) || binary.LittleEndian.Uint32(b[len(b)-footerTail:]) != uint32(len(b)-footerTail) {
		return footer{}, fmt.Errorf("%w: %d bytes", errFooter, len(b))
	}
	f := footer{Chunks: make([]xet.Node, n), Ends: make([]uint32, n)}
	p.heading(footerIdent, 1)
	copy(f.Xorb[:], p.take(32))
	p.heading(hashesIdent, 0)
	p.count(n)
	for i := range f.Chunks {
		copy(f.Chunks[i].Hash[:], p.take(32))
	}
	p.heading(boundsIdent, 1)
	p.count(n)
	for i := range f.Ends {
		f.Ends[i] = p.uint32()
	}
	p.lengths(f.Chunks)
	p.count(n)
	if p.err == nil && xet.Root(f.Chunks) != f.Xorb {
		p.fail("its chunks do not give its name")
	}
	if p.err != nil {
		return footer{}, p.err
	}
	return f, nil
}

// appendFooter appends the footer of a xorb.
func appendFooter(b []byte, f footer) []byte {
	start, n := len(b), uint32(len(f.Chunks))
	le := binary.LittleEndian
	b = append(append(b, footerIdent...), 1)
	b = append(b, f.Xorb[:]...)
	hashes := len(b)
	b = le.AppendUint32(append(append(b, hashesIdent...), 0), n)
	for _, c := range f.Chunks {
		b = append(b, c.Hash[:]...)
	}
	bounds := len(b)
	b = le.AppendUint32(append(append(b, boundsIdent...), 1), n)
	for _, end := range f.Ends {
		b = le.AppendUint32(b, end)
	}
	var plain uint64
	for _, c := range f.Chunks {
		plain += c.Size
		b = le.AppendUint32(b, uint32(plain))
	}
	length := start + footerFixed + footerChunk*len(f.Chunks)
	b = le.AppendUint32(b, n)
	b = le.AppendUint32(b, uint32(length-hashes))
	b = le.AppendUint32(b, uint32(length-bounds))
	b = append(b, make([]byte, 16)...)
	return le.AppendUint32(b, uint32(length-start))
}

// footerParser takes a footer apart; its length was checked before.
type footerParser struct {
	rest []byte
	err  error
}

func (p *footerParser) fail(why string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s", errFooter, why)
	}
}

func (p *footerParser) take(n int) []byte {
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *footerParser) uint32() uint32 { return binary.LittleEndian.Uint32(p.take(4)) }

func (p *footerParser) heading(ident []byte, version byte) {
	if got := p.take(len(ident) + 1); !bytes.Equal(got[:len(ident)], ident) || got[len(ident)] != version {
		p.fail(fmt.Sprintf("no heading %s %d", ident, version))
	}
}

func (p *footerParser) count(n int) {
	if got := p.uint32(); got != uint32(n) {
		p.fail(fmt.Sprintf("%d chunks, its length says %d", got, n))
	}
}

// lengths reads where the chunks end in the plain bytes.
func (p *footerParser) lengths(chunks []xet.Node) {
	var last uint32
	for i := range chunks {
		end := p.uint32()
		if end <= last || end-last > xet.MaxChunk {
			p.fail(fmt.Sprintf("chunk %d ends at %d, after %d", i, end, last))
		}
		chunks[i].Size, last = uint64(end-last), end
	}
}
