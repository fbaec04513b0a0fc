package main

import (
	"bytes"
	"sync"
)

// keptLog is how much of the log an agent remembers for `debug bundle`: some
// thousand lines.
const keptLog = 512 << 10

// tail keeps the last bytes written to it, whole lines only.
type tail struct {
	mu   sync.Mutex
	size int
	buf  []byte // up to twice size, so that bytes are moved rarely
}

func newTail(size int) *tail { return &tail{size: size} }

// Write implements io.Writer. It never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-t.size):]...)
	if len(t.buf) > 2*t.size {
		t.buf = append(t.buf[:0], t.last()...)
	}
	return len(p), nil
}

// Bytes returns a copy of what is kept.
func (t *tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.last())
}

// last begins with a whole line.
func (t *tail) last() []byte {
	if len(t.buf) <= t.size {
		return t.buf
	}
	cut := t.buf[len(t.buf)-t.size-1:] // one byte more: it may be the end of a line
	return cut[bytes.IndexByte(cut, '\n')+1:]
}
