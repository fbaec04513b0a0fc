package cachefs

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/pieces"
)

// start runs the cache's goroutines until the test ends.
func start(t testing.TB, c *Cache) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Many members send the same pieces in any order while others read and complete.
func TestManyAtOnce(t *testing.T) {
	for _, running := range []bool{true, false} {
		r := newRig(t)
		f, data := bigBlob()
		ps := cut(t, f.Blob, data)
		c := r.open(t)
		if running {
			start(t, c)
		}
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				repo := []pieces.Repo{repoA, repoB}[worker%2]
				if err := c.Begin(t.Context(), repo, []pieces.Blob{f.Blob}); err != nil {
					t.Error(err)
					return
				}
				for _, i := range rand.New(rand.NewPCG(uint64(worker), 1)).Perm(len(ps)) {
					if err := c.Put(t.Context(), ps[i]); err != nil {
						t.Error(err)
					}
					off, n := f.Blob.Piece(i)
					if got := readPiece(t, c, f.Blob, i); !slices.Equal(got, data[off:off+n]) {
						t.Errorf("piece %d held and wrong", i)
					}
				}
				if err := c.Complete(t.Context(), f.Blob); err != nil {
					t.Error(err)
				}
				if !c.Held(f.Blob).Full() {
					t.Error("not whole after Complete")
				}
			})
		}
		wg.Wait()
		for _, repo := range []pieces.Repo{repoA, repoB} {
			mustBegin(t, c, repo, f.Blob)
			if !c.Has(repo, f.Blob) {
				t.Errorf("%s lacks it", repo)
			}
			sameContent(t, filepath.Join(r.hub, blobName(repo.Folder(), f.Blob.Digest)), data)
		}
		checkNoLeftovers(t, r.state)
	}
}

// Abandon in the middle of everything: nobody hangs, nothing false is held.
func TestAbandonMeanwhile(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	ps := cut(t, f.Blob, data)
	c := r.open(t)
	start(t, c)
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 20 {
			if err := errors.Join(c.Begin(t.Context(), repoA, []pieces.Blob{f.Blob}), c.Abandon(f.Blob)); err != nil {
				t.Error(err)
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for i := range 60 {
				err := c.Put(t.Context(), ps[i%len(ps)])
				if err != nil && !errors.Is(err, ErrNotBegun) {
					t.Error(err)
				}
				err = c.Complete(t.Context(), f.Blob)
				if err != nil && !errors.Is(err, ErrNotBegun) && !errors.Is(err, ErrIncomplete) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	mustBegin(t, c, repoA, f.Blob)
	checkHeld(t, c, model{outline: &pieces.Outline{Files: []pieces.File{f}}, content: map[pieces.Blob][]byte{f.Blob: data}})
	for i := range ps {
		putAll(t, c, ps, i)
	}
	mustComplete(t, c, f.Blob)
	sameContent(t, filepath.Join(r.hub, blobName(repoA.Folder(), f.Blob.Digest)), data)
	checkNoLeftovers(t, r.state)
}

// Run journals what is older than two seconds and hashes what came out of order.
// In a bubble those seconds are none.
func TestRunJournalsAndHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f, data := bigBlob()
		ps := cut(t, f.Blob, data)
		c := r.open(t)
		mustBegin(t, c, repoA, f.Blob)
		start(t, c)
		putAll(t, c, ps, 4, 3, 2, 1)
		p := c.partial(f.Blob)
		if n := hashedPieces(p); n != 0 {
			t.Errorf("hashed %d pieces without the first", n)
		}
		putAll(t, c, ps, 0)
		synctest.Wait()
		if n := hashedPieces(p); n != 5 {
			t.Errorf("hashed %d pieces of 5", n)
		}
		before := journalEnd(p)
		time.Sleep(2 * flushEvery)
		if n := journalEnd(p) - before; n != 6*recordSize { // five pieces and the digest
			t.Errorf("journal grew by %d bytes", n)
		}
	})
}

func hashedPieces(p *partial) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hashed
}

func journalEnd(p *partial) int64 {
	p.flushing <- struct{}{}
	defer func() { <-p.flushing }()
	return p.journalEnd
}

// A piece that is next in order is hashed from memory: nothing is read back.
func TestInOrderIsNotReadBack(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	p := c.partial(f.Blob)
	for i, v := range cut(t, f.Blob, data) {
		if err := c.Put(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		if n := hashedPieces(p); n != i+1 {
			t.Errorf("hashed %d pieces after %d", n, i+1)
		}
	}
	if len(c.warm) > 0 {
		t.Errorf("%d blobs are to be read back", len(c.warm))
	}
}

// A Put of a piece that another is writing waits for it; when that one fails it
// writes the piece itself.
func TestClaimWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pieces.Blob{Digest: pieces.SHA256Digest([32]byte{1}), Size: 9 << 20}
		for name, tc := range map[string]struct {
			err  error
			want bool
		}{"the first succeeds": {nil, false}, "the first fails": {errors.New("disk"), true}} {
			p := newPartial(b, 1)
			if ok, err := p.claim(t.Context(), 1); !ok || err != nil {
				t.Fatal(ok, err)
			}
			var second bool
			var wg sync.WaitGroup
			wg.Go(func() { second, _ = p.claim(t.Context(), 1) })
			synctest.Wait() // it waits now
			p.settle(signer(1).State(b, 1, pieces.Mark{}), nil, tc.err)
			wg.Wait()
			if second != tc.want {
				t.Errorf("%s: claimed %v", name, second)
			}
		}
		p := newPartial(b, 1)
		if _, err := p.claim(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		cancel(stop)
		if _, err := p.claim(ctx, 0); !errors.Is(err, stop) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

// Open files are bounded whatever the number of blobs, and idle ones are closed
// after a while: what somebody removes must give its room back.
func TestFewFilesStayOpen(t *testing.T) {
	r := newRig(t)
	small := map[string][]byte{}
	for i := range 3 * maxHandles {
		small[string(rune('a'+i%26))+randomName(i)] = randomBytes(uint64(i), 100+i)
	}
	m := newModel(repoA, commitA, nil, small)
	c := r.open(t)
	mustFetch(t, c, m, "main")
	checkHeld(t, c, m)
	c.handles.mu.Lock()
	open := len(c.handles.open)
	c.handles.mu.Unlock()
	if open > maxHandles {
		t.Errorf("%d files stay open", open)
	}
	reader, err := c.OpenPiece(m.blobs()[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.handles.closeIdle()
	}
	if len(c.handles.open) != 1 {
		t.Errorf("%d files open, want the one in use", len(c.handles.open))
	}
	if err := errors.Join(reader.Close(), reader.Close()); err != nil { // the second does nothing
		t.Error(err)
	}
	for range 2 {
		c.handles.closeIdle()
	}
	if len(c.handles.open) != 0 {
		t.Errorf("%d files open", len(c.handles.open))
	}
}

// A Begin that found a blob missing goes on after another job completed it: it
// links the whole blob, and does not start a partial one beside it, which would
// be fetched again and make that job's Complete fail.
func TestBeginMeetsABlobThatBecameWholeMeanwhile(t *testing.T) {
	r := newRig(t)
	f, data := bigBlob()
	c := r.open(t)
	mustBegin(t, c, repoA, f.Blob)
	for _, v := range cut(t, f.Blob, data) {
		if err := c.Put(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Complete(t.Context(), f.Blob); err != nil {
		t.Fatal(err)
	}
	late := adopter{Cache: c, folder: repoB.Folder()} // it looked before all this
	if err := late.reserve(t.Context(), repoB, []pieces.Blob{f.Blob}); err != nil {
		t.Fatal(err)
	}
	if c.partial(f.Blob) != nil {
		t.Error("a partial blob stands beside the whole one")
	}
	if !c.Has(repoB, f.Blob) {
		t.Error("the repository that came late lacks the blob")
	}
	if err := c.Complete(t.Context(), f.Blob); err != nil {
		t.Errorf("complete once more: %v", err)
	}
}
