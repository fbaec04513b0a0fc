package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"p2pagent/internal/minicas"
	"p2pagent/pkg/pieces"
)

// reserve is how many verified bytes a body holds back while more must come, and
// steps into how many parts it divides what is left for each step: some minutes of
// small steps on a wait, and single bytes in the end.
const (
	reserve = 64 << 10
	steps   = 64
)

// body reads a file in order while it lands. Its Read is where a response waits.
type body struct {
	sized   // where the client reads
	ctx     context.Context
	content minicas.Source
	flush   func() error
	ready   int64 // verified up to here
	end     int64 // of what the response sends
	err     error // why it broke off
}

// first waits for the first byte that the response sends.
func (b *body) first(until time.Time, length int64) error {
	b.ready, b.end = b.at, b.at+length
	ctx, cancel := context.WithDeadline(b.ctx, until)
	defer cancel()
	return b.more(ctx)
}

// more waits until more is verified.
func (b *body) more(ctx context.Context) error {
	n, err := b.content.Await(ctx, b.ready)
	b.ready = min(b.ready+n, b.end)
	return err
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.at >= b.end {
			return 0, io.EOF
		}
		if n := min(b.spare(), int64(len(p))); n > 0 {
			return b.take(p[:n])
		}
		if err := b.step(); err == nil {
			continue
		} else if !errors.Is(err, errStep) {
			b.err = err
			break
		}
		if left := b.ready - b.at; left > 0 {
			return b.take(p[:min(max(left/steps, 1), int64(len(p)))])
		}
	}
	return 0, b.err
}

// spare is how much may be sent at once.
func (b *body) spare() int64 {
	if b.ready == b.end {
		return b.end - b.at
	}
	return b.ready - b.at - reserve
}

func (b *body) take(p []byte) (int, error) {
	n, err := b.content.ReadAt(p, b.at)
	b.at += int64(n)
	if n == len(p) {
		return n, nil
	}
	b.err = err
	return n, err
}

var errStep = errors.New("time for the next step")

// step sends what is buffered and waits a little for more.
func (b *body) step() error {
	if err := b.flush(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(b.ctx, StepWait, errStep)
	defer cancel()
	return b.more(ctx)
}

// holding is a response whose headers wait for the first byte of the body.
type holding struct {
	http.ResponseWriter
	body    *body
	until   time.Time
	refused func(error)
	begun   bool
	over    bool
}

var errRefused = errors.New("refused")

// WriteHeader implements http.ResponseWriter.
func (h *holding) WriteHeader(status int) {
	if status != http.StatusOK && status != http.StatusPartialContent {
		h.ResponseWriter.WriteHeader(status)
		return
	}
	length, err := strconv.ParseInt(h.Header().Get("Content-Length"), 10, 64)
	if err == nil {
		err = h.body.first(h.until, length)
	}
	if err != nil {
		h.over, h.body.err = true, errRefused
		h.refused(err)
		return
	}
	h.begun = true
	h.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (h *holding) Write(p []byte) (int, error) {
	if h.over {
		return 0, errRefused
	}
	return h.ResponseWriter.Write(p)
}

// waits remember since when files are waited for that did not begin yet.
type waits struct {
	mu    sync.Mutex
	began map[pieces.Blob]time.Time
}

const (
	maxWaits  = 1024
	leastWait = 5 * time.Second
	mostWait  = time.Minute
)

// since returns how long a file has been waited for, within bounds.
func (s *waits) since(b pieces.Blob) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.began == nil || len(s.began) >= maxWaits {
		s.began = map[pieces.Blob]time.Time{}
	}
	at, ok := s.began[b]
	if !ok {
		at = now.Add(-HeaderWait)
		s.began[b] = at
	}
	return min(max(now.Sub(at), leastWait), mostWait)
}

func (s *waits) over(b pieces.Blob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.began, b)
}
