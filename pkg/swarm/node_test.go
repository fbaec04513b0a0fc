package swarm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"p2pagent/pkg/pieces"
)

// memStore keeps pieces in memory. It is the least that a Store must do.
type memStore struct {
	mu       sync.Mutex
	held     map[pieces.Blob]map[int]pieces.Verified
	complete map[pieces.Blob]bool
}

func newMemStore() *memStore {
	return &memStore{held: map[pieces.Blob]map[int]pieces.Verified{}, complete: map[pieces.Blob]bool{}}
}

func (m *memStore) Held(b pieces.Blob) *pieces.Set {
	m.mu.Lock()
	defer m.mu.Unlock()
	set := pieces.NewSet(b.Pieces())
	for i := range m.held[b] {
		set.Add(i)
	}
	return set
}

func (m *memStore) Statements(b pieces.Blob) []pieces.Statement {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []pieces.Statement
	for i := range b.Pieces() {
		if v, ok := m.held[b][i]; ok {
			out = append(out, v.Statement())
		}
	}
	return out
}

func (m *memStore) OpenPiece(b pieces.Blob, i int) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.held[b][i]
	if !ok {
		return nil, errors.New("not held")
	}
	return io.NopCloser(bytes.NewReader(v.Bytes())), nil
}

func (m *memStore) Put(_ context.Context, v pieces.Verified) error {
	own, err := pieces.Verify(v.Statement(), bytes.Clone(v.Bytes()))
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held[v.Blob()] == nil {
		m.held[v.Blob()] = map[int]pieces.Verified{}
	}
	m.held[v.Blob()][v.Index()] = own
	return nil
}

func (m *memStore) Complete(_ context.Context, b pieces.Blob) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := b.NewHash()
	for i := range b.Pieces() {
		h.Write(m.held[b][i].Bytes())
	}
	if err := b.Check(h); err != nil {
		return err
	}
	m.complete[b] = true
	return nil
}

func (m *memStore) Forget(b pieces.Blob, drop func(pieces.Statement) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, v := range m.held[b] {
		if drop(v.Statement()) {
			delete(m.held[b], i)
		}
	}
	return nil
}

// memHub is an upstream that counts what it sends.
type memHub struct {
	content map[pieces.Blob][]byte
	sent    atomic.Int64
	calls   atomic.Int64
}

func (h *memHub) by(s pieces.Signer) *hubOf { return &hubOf{h, s} }

type hubOf struct {
	*memHub
	signer pieces.Signer
}

func (h *hubOf) Fetch(ctx context.Context, e pieces.Extent, need func(pieces.Blob, int) bool, put func(context.Context, pieces.Verified) error, progress func(int64)) error {
	for _, s := range e.Spans {
		for i := s.First; i < s.First+s.Count; i++ {
			if !need(s.Blob, i) {
				continue
			}
			off, n := s.Blob.Piece(i)
			h.sent.Add(n)
			progress(n)
			v, err := pieces.NewCutter(h.signer, s.Blob, i, 1, nil).Next(bytes.NewReader(h.content[s.Blob][off : off+n]))
			if err != nil {
				return err
			}
			if err := put(ctx, v); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// still is a membership that never changes.
type still struct{}

func (still) Broadcast([]byte) error { return nil }
func (still) Settled() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func TestLoopback(t *testing.T) {
	const n = 5
	hub := &memHub{content: map[pieces.Blob][]byte{}}
	var blobs []pieces.Blob
	r := rand.NewChaCha8([32]byte{1})
	for i := range 6 {
		data := make([]byte, 10<<20+i*1000)
		if i >= 4 {
			data = data[:100*i]
		}
		r.Read(data)
		b := pieces.Blob{Digest: pieces.SHA256Digest(sha256.Sum256(data)), Size: int64(len(data))}
		hub.content[b] = data
		blobs = append(blobs, b)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var nodes []*Node
	var wg sync.WaitGroup
	var facts []Facts
	for i := range n {
		_, key, _ := ed25519.GenerateKey(nil)
		h, err := NewHost(HostOptions{Identity: key, Listen: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		node, err := New(Config{Host: h, Members: still{}, Store: newMemStore(), Signer: pieces.NewSigner(key), Name: fmt.Sprint("n", i), Upstream: true,
			Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err != nil {
			t.Fatal(err)
		}
		var addrs []string
		for _, a := range h.Addrs() {
			ip, _ := a.ValueForProtocol(4)
			port, _ := a.ValueForProtocol(6)
			addrs = append(addrs, ip+":"+port)
		}
		facts = append(facts, Facts{Peer: h.ID(), Name: fmt.Sprint("n", i), Addrs: addrs, Upstream: true})
		nodes = append(nodes, node)
		wg.Go(func() { node.Run(ctx) })
	}
	for i, node := range nodes {
		for k, f := range facts {
			if k != i {
				node.MemberUp(f)
			}
		}
	}
	var calls atomic.Int64
	var fw sync.WaitGroup
	for i, node := range nodes {
		fw.Go(func() {
			fctx, stop := context.WithTimeout(ctx, 30*time.Second)
			defer stop()
			v, err := node.Record(fctx, "resolve/x", time.Minute, func(context.Context) ([]byte, error) { calls.Add(1); return []byte("abc"), nil })
			if err != nil || string(v) != "abc" {
				t.Error("record", v, err)
			}
			err = node.Fetch(fctx, Job{Name: "x", Blobs: blobs, Extents: pieces.Extents(blobs, 4<<20), Upstream: hub.by(node.cfg.Signer)}, func(p Progress) { t.Log(i, p) })
			if err != nil {
				t.Error(i, err)
			}
			for _, b := range blobs {
				if !node.cfg.Store.(*memStore).complete[b] {
					t.Error(i, "not complete", b)
				}
			}
		})
	}
	fw.Wait()
	var size int64
	for _, b := range blobs {
		size += b.Size
	}
	t.Log("copies", float64(hub.sent.Load())/float64(size), "resolve calls", calls.Load())
	if hub.sent.Load() != size || calls.Load() != 1 {
		t.Error("not one copy")
	}
	for i, node := range nodes {
		s, _ := node.Status(ctx)
		t.Logf("%d %+v", i, s)
	}
	cancel()
	wg.Wait()
}
