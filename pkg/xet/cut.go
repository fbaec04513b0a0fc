package xet

// minChunk is how short a chunk can be that is not a file's last.
const minChunk = 8 << 10

// Rule is how a writer cut a file into chunks. Readers take the chunks that they
// get; only who looks for chunks in a file on the disk has to cut it.
type Rule int

// Current is the rule of xet-core since September 2025. Legacy is what came before
// and what huggingface.js still does: it may cut up to 64 bytes before the least
// length, because its rolling hash starts there.
const (
	Current Rule = iota
	Legacy
)

// hashWindow is how many bytes the rolling hash depends on: one for each bit.
const hashWindow = 64

// Cut returns the length of the chunk at the start of data, which must hold
// MaxChunk bytes or reach to the end of the file: after the first byte at which the
// upper 16 bits of the rolling hash are zero.
func (r Rule) Cut(data []byte) int {
	from := minChunk - hashWindow - 1
	if len(data) <= from {
		return len(data)
	}
	data = data[:min(len(data), MaxChunk)]
	var h uint64
	i := from
	if r == Current { // no cut before the least length
		for ; i < min(minChunk-1, len(data)); i++ {
			h = h<<1 + gear[data[i]]
		}
	}
	for ; i < len(data); i++ {
		h = h<<1 + gear[data[i]]
		if h>>48 == 0 {
			return i + 1
		}
	}
	return len(data)
}
