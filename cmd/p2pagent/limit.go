package main

import (
	"context"
	"io"

	"golang.org/x/time/rate"

	"p2pagent/pkg/agent"
	"p2pagent/pkg/pieces"
)

// limitedHub takes bytes from the Hub no faster than a limit. It waits between
// reads, where the stall detection below does not count.
type limitedHub struct {
	agent.Hub
	limit *rate.Limiter
}

// limitStep is how much is let through at once.
const limitStep = 64 << 10

func limitHub(h agent.Hub, bytesPerSecond sizeValue) agent.Hub {
	if bytesPerSecond <= 0 {
		return h
	}
	return &limitedHub{h, rate.NewLimiter(rate.Limit(bytesPerSecond), limitStep)}
}

// Open implements agent.Hub.
func (h *limitedHub) Open(ctx context.Context, repo pieces.Repo, commit pieces.Commit, f pieces.File, off, n int64) (io.ReadCloser, error) {
	rc, err := h.Hub.Open(ctx, repo, commit, f, off, n)
	if err != nil {
		return nil, err
	}
	return &limitedReader{rc, ctx, h.limit}, nil
}

type limitedReader struct {
	io.ReadCloser
	ctx   context.Context
	limit *rate.Limiter
}

// Host implements what agent.Hub says of a body, if the one below does.
func (r *limitedReader) Host() string {
	if b, ok := r.ReadCloser.(interface{ Host() string }); ok {
		return b.Host()
	}
	return ""
}

func (r *limitedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), limitStep)])
	if n > 0 {
		if werr := r.limit.WaitN(r.ctx, n); werr != nil && err == nil {
			err = context.Cause(r.ctx)
		}
	}
	return n, err
}
