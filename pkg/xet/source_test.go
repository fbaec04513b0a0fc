package xet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/xet"
)

// Every file comes whole, every stored byte leaves the store once, and one token
// does for all.
func TestWholeSnapshot(t *testing.T) {
	for name, o := range map[string]hubtest.Xet{
		"as the Hub":      {},
		"small xorbs":     {XorbSize: mib},
		"version 1":       {OnlyV1: true, XorbSize: mib},
		"one xorb a file": {XorbSize: 100 * mib},
		"no footers":      {NoFooter: true, XorbSize: mib},
		"no lengths":      {NoLength: true, XorbSize: mib},
		"as it is":        {Plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, o, mixed(), func(t *testing.T, w *world) {
				s := w.source(nil)
				w.checkAll(s)
				st := w.hub.Stats()
				if want := w.hub.Stored("org/m", string(w.commit)); st.StoredBytes != want {
					t.Errorf("%d stored bytes were sent, want %d", st.StoredBytes, want)
				}
				if w.tokens != 1 || st.TokensAtCDN != 0 || st.BodyBytes != 0 {
					t.Errorf("%d tokens asked for, %d shown to the CDN, %d bytes by plain HTTP", w.tokens, st.TokensAtCDN, st.BodyBytes)
				}
				w.wantPlain(0)
			})
		})
	}
}

func TestRanges(t *testing.T) {
	inWorld(t, hubtest.Xet{XorbSize: mib}, mixed(), func(t *testing.T, w *world) {
		s := w.source(nil)
		for _, path := range []string{"a.noise", "b.weights", "c.text"} {
			size := w.file(path).Blob.Size
			for _, r := range [][2]int64{{0, 1}, {size - 1, 1}, {7, 11}, {size / 2, size / 3}, {mib - 1, 2}, {size - mib, mib}} {
				w.check(s, path, r[0], r[1])
			}
		}
		w.wantPlain(0)
	})
}

// A member asks for its own part alone: a range costs itself and less than two
// chunks.
func TestRangeCostsItself(t *testing.T) {
	inWorld(t, hubtest.Xet{Plain: true}, []hubtest.File{{Path: "a", Content: hubtest.Generated(5, 40*mib)}}, func(t *testing.T, w *world) {
		w.check(w.source(nil), "a", 10*mib+5, 8*mib)
		if sent := w.hub.Stats().StoredBytes; sent < 8*mib || sent > 8*mib+2*xet.MaxChunk+8*1024 {
			t.Errorf("%d stored bytes for 8 MiB", sent)
		}
	})
}

// A chunk that a file has many times is fetched once; terms may go to and fro
// between xorbs.
func TestSharedChunks(t *testing.T) {
	row := make([]byte, mib)
	hubtest.Generated(9, mib).ReadAt(row, 0)
	zeros := make([]byte, 2*mib)
	var file []byte
	for i := range 10 {
		file = append(append(file, row[:100_000*(i+1)%mib]...), zeros...)
	}
	file = append(file, row...)
	inWorld(t, hubtest.Xet{Dedup: true, XorbSize: 300_000}, []hubtest.File{{Path: "a", Content: hubtest.Bytes(file)}}, func(t *testing.T, w *world) {
		w.check(w.source(nil), "a", 0, int64(len(file)))
		need, sent := w.hub.Stored("org/m", string(w.commit)), w.hub.Stats().StoredBytes
		if sent != need {
			t.Errorf("%d stored bytes were sent, of %d", sent, need)
		}
		w.wantPlain(0)
	})
}

// The URL of a range expires while others are read: it is asked for again, once.
func TestExpiredURL(t *testing.T) {
	inWorld(t, hubtest.Xet{XorbSize: mib, TokenFor: time.Hour}, mixed(), func(t *testing.T, w *world) {
		hits := w.hub.Fail(hubtest.Fault{Do: hubtest.Expired, Route: hubtest.Xorb, Nth: 2})
		w.checkAll(w.source(nil))
		if hits() != 1 || w.log.count("asking anew") != 1 {
			t.Errorf("%d URLs expired, %d asked for anew", hits(), w.log.count("asking anew"))
		}
		if sent, want := w.hub.Stats().StoredBytes, w.hub.Stored("org/m", string(w.commit)); sent != want {
			t.Errorf("%d stored bytes were sent, want %d", sent, want)
		}
		w.wantPlain(0)
	})
}

// A URL that was signed for several ranges, and takes no single one, is replaced
// by those of version 1.
func TestJointURL(t *testing.T) {
	row := make([]byte, 3*mib)
	hubtest.Generated(9, 3*mib).ReadAt(row, 0)
	files := []hubtest.File{
		{Path: "a", Content: hubtest.Bytes(row)},
		{Path: "b", Content: hubtest.Bytes(append(append(bytes.Clone(row[:mib]), make([]byte, mib)...), row[2*mib:]...))},
	}
	inWorld(t, hubtest.Xet{Joint: true, Dedup: true}, files, func(t *testing.T, w *world) {
		w.check(w.source(nil), "b", 0, 3*mib)
		if w.hub.Stats().Status[403] == 0 {
			t.Error("no URL was refused: the test shows nothing")
		}
		w.wantPlain(0)
	})
}

// 403 over and over: the file comes by plain HTTP, after two new URLs.
func TestRefusedURL(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		hits := w.hub.Fail(hubtest.Fault{Do: hubtest.Expired, Route: hubtest.Xorb})
		s := w.source(nil)
		w.check(s, "a.noise", 0, mib)
		if hits() != 3 || w.log.count("falling back to plain HTTP") != 1 {
			t.Errorf("%d refusals, log %s", hits(), w.log.text.String())
		}
		w.check(s, "a.noise", mib, mib)
		if hits() != 3 {
			t.Errorf("the store was asked again for a file that it refuses")
		}
		w.wantPlain(2)
	})
}

// X05: the CAS can't be reached, plain HTTP can.
//
// The same extent comes by HTTP, with one log line, and so do the others.
func TestX05UnreachableCAS(t *testing.T) {
	inWorld(t, hubtest.Xet{CAS: "http://dead.test"}, mixed(), func(t *testing.T, w *world) {
		s := w.source(nil)
		var wg sync.WaitGroup
		for _, f := range w.outline.Files {
			wg.Go(func() { w.check(s, f.Path, 0, f.Blob.Size) })
		}
		wg.Wait()
		w.checkAll(s)
		if n := w.log.count("falling back to plain HTTP"); n != 1 {
			t.Errorf("%d lines: %s", n, w.log.text.String())
		}
		w.wantPlain(8)
		w.hub.ResetStats()
		time.Sleep(10 * time.Minute) // then it is tried again
		w.check(w.source(nil), "a.noise", 0, 1)
		if w.log.count("falling back") != 2 {
			t.Error("the store was not tried again")
		}
	})
}

// Without plain HTTP an error is an error.
func TestOnly(t *testing.T) {
	inWorld(t, hubtest.Xet{CAS: "http://dead.test"}, mixed(), func(t *testing.T, w *world) {
		s := w.source(func(o *xet.SourceOptions) { o.Only = true })
		if _, err := w.read(s, "a.noise", 0, 1); err == nil || !strings.Contains(err.Error(), "dead.test") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		_, err := w.read(s, "a.noise", 0, 1)
		final, ok := errors.AsType[*xet.OnlyError](err)
		if !ok || !final.Permanent() || final.For < time.Minute || !strings.Contains(err.Error(), "dead.test") || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("after a minute got %v", err)
		}
		w.wantPlain(0)
	})
}

// deaf is a network on which nobody answers the store's host.
type deaf struct{ http.RoundTripper }

func (d deaf) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == "dead.test" {
		time.Sleep(10 * time.Second)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return d.RoundTripper.RoundTrip(req)
}

// A host that does not answer is dialled once: plain HTTP replaces it in time.
func TestSilentHostIsDialledOnce(t *testing.T) {
	inWorld(t, hubtest.Xet{CAS: "http://dead.test"}, mixed(), func(t *testing.T, w *world) {
		w.client = w.newClient(func(o *xet.Options) { o.Transport = deaf{o.Transport} })
		start := time.Now()
		w.check(w.source(nil), "a.noise", 0, mib)
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("it took %v", took)
		}
		w.wantPlain(1)
	})
}

// One byte that the store gives lets it fail for another minute.
func TestOnlyIsPatient(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		s := w.source(func(o *xet.SourceOptions) { o.Only = true })
		for range 3 {
			w.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CAS, Status: 503})
			for range 5 {
				if _, err := w.read(s, "a.noise", 0, 1); err == nil || errors.As(err, new(*xet.OnlyError)) {
					t.Errorf("got %v", err)
				}
				time.Sleep(8 * time.Second)
			}
			w.hub.Heal()
			w.check(s, "a.noise", 0, 1)
		}
	})
}

// X06: the read token expires in the middle of a file.
//
// It is replaced before it does, by one question for all who need one, and nobody
// waits for a lock meanwhile: whoever gives up goes.
func TestX06TokenExpires(t *testing.T) {
	inWorld(t, hubtest.Xet{TokenFor: 2 * time.Second}, mixed(), func(t *testing.T, w *world) {
		s := w.source(nil)
		for off := int64(0); off < 3*mib; off += mib / 4 {
			w.check(s, "a.noise", off, mib/4)
			time.Sleep(300 * time.Millisecond)
		}
		if st := w.hub.Stats(); st.Status[401] != 0 || w.tokens < 3 || w.tokens > 5 {
			t.Errorf("%d tokens, %d refused", w.tokens, st.Status[401])
		}
		w.wantPlain(0)
	})
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Silent, Route: hubtest.Token, Nth: 1})
		s, gone := w.source(nil), errors.New("gone")
		first, leave := context.WithTimeoutCause(t.Context(), 10*time.Second, gone)
		defer leave()
		var wg sync.WaitGroup
		wg.Go(func() { // asks
			if _, err := s.Open(first, w.file("a.noise").Blob, 0, 1); !errors.Is(err, gone) {
				t.Errorf("got %v", err)
			}
		})
		time.Sleep(time.Second)
		wg.Go(func() { w.check(s, "b.weights", 0, mib) }) // waits, and asks again when the first has gone
		second, leave2 := context.WithTimeoutCause(t.Context(), time.Second, gone)
		defer leave2()
		begin := time.Now()
		if _, err := s.Open(second, w.file("c.text").Blob, 0, 1); !errors.Is(err, gone) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(begin))
		}
		wg.Wait()
		if w.tokens != 2 {
			t.Errorf("%d tokens were asked for, want 2", w.tokens)
		}
	})
}

// A token that the store refuses is replaced once.
func TestTokenRefused(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		s := w.source(nil)
		w.check(s, "a.noise", 0, 10)
		w.hub.ExpireSignatures()
		w.check(s, "a.noise", 10, 10)
		if w.tokens != 2 {
			t.Errorf("%d tokens", w.tokens)
		}
		w.wantPlain(0)
		w.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CAS, Status: 401})
		w.check(s, "a.noise", 20, 10)
		if w.tokens != 3 {
			t.Errorf("%d tokens: each question wants one new one at most", w.tokens)
		}
		w.wantPlain(1)
	})
}

// No token at all, as for a repository whose owner has not enabled the store.
func TestNoToken(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.Token, Status: 403})
		s := w.source(nil)
		w.checkAll(s)
		if w.tokens != 1 || w.log.count("falling back") != 1 {
			t.Errorf("%d tokens asked for, log %s", w.tokens, w.log.text.String())
		}
		w.wantPlain(4)
	})
}

// X07: the store is slower than the floor.
//
// The floor trips within a minute, and the rest of the file comes by plain HTTP.
func TestX07SlowerThanTheFloor(t *testing.T) {
	inWorld(t, hubtest.Xet{Plain: true}, []hubtest.File{{Path: "a", Content: hubtest.Generated(1, 30*mib)}}, func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Slow, Route: hubtest.Xorb, Rate: 100 << 10})
		begin := time.Now()
		data, err := w.resume(w.source(nil), "a", 2)
		if err != nil || !bytes.Equal(data, w.want("a", 0, 30*mib)) {
			t.Errorf("%d bytes, %v", len(data), err)
		}
		if took := time.Since(begin); took > 75*time.Second || w.client.Stalls() != 1 {
			t.Errorf("took %v, %d stalls", took, w.client.Stalls())
		}
		w.wantPlain(1)
	})
}

// Bodies that break are gone on with at the chunk that is missing; what breaks
// again before a piece is whole comes by plain HTTP.
func TestBrokenBodies(t *testing.T) {
	for name, f := range map[string]hubtest.Fault{
		"cut":     {Do: hubtest.Cut, At: 2 * mib},
		"reset":   {Do: hubtest.Reset, At: 2 * mib},
		"stopped": {Do: hubtest.Stall, At: 2 * mib},
		"short":   {Do: hubtest.Truncate},
		"shifted": {Do: hubtest.WrongRange},
		"gzip":    {Do: hubtest.Gzip},
		"a page":  {Do: hubtest.Login},
		"503":     {Do: hubtest.Status, Status: 503},
	} {
		for _, nth := range []int{1, 0} {
			if nth == 1 && testing.Short() {
				continue
			}
			t.Run(name, func(t *testing.T) {
				inWorld(t, hubtest.Xet{Plain: true, XorbSize: 3 * mib}, []hubtest.File{{Path: "a", Content: hubtest.Generated(1, 9*mib)}}, func(t *testing.T, w *world) {
					f := f
					f.Route, f.Nth = hubtest.Xorb, nth
					w.hub.Fail(f)
					data, err := w.resume(w.source(nil), "a", 8)
					if err != nil || !bytes.Equal(data, w.want("a", 0, 9*mib)) {
						t.Errorf("%d bytes, %v", len(data), err)
					}
				})
			})
		}
	}
}

// What the store says about itself is bounded and checked.
func TestOddStore(t *testing.T) {
	for name, f := range map[string]hubtest.Fault{
		"no such file":   {Do: hubtest.Status, Status: 404},
		"a page":         {Do: hubtest.Login},
		"busy":           {Do: hubtest.Status, Status: 429, Header: map[string]string{"Retry-After": "3600"}},
		"down":           {Do: hubtest.Status, Status: 500},
		"silent":         {Do: hubtest.Silent},
		"half an answer": {Do: hubtest.Cut, At: 100},
		"stops":          {Do: hubtest.Stall, At: 100},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
				f.Route = hubtest.CAS
				w.hub.Fail(f)
				begin := time.Now()
				w.check(w.source(nil), "b.weights", 100, mib)
				if took := time.Since(begin); took > 30*time.Second {
					t.Errorf("took %v", took)
				}
				w.wantPlain(1)
			})
		})
	}
}

// Who says nothing is replaced within 30 s, whoever it is.
func TestSilence(t *testing.T) {
	for _, route := range []hubtest.Route{hubtest.Token, hubtest.CAS, hubtest.Xorb} {
		inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
			w.hub.Fail(hubtest.Fault{Do: hubtest.Silent, Route: route})
			begin := time.Now()
			w.check(w.source(nil), "b.weights", 100, mib)
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("%s: took %v", route, took)
			}
			w.wantPlain(1)
		})
	}
}

// A store that is busy for a moment is asked again.
func TestBusyStore(t *testing.T) {
	inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Status, Route: hubtest.CAS, Status: 429, Nth: 1, Header: map[string]string{"Retry-After": "7"}})
		begin := time.Now()
		w.check(w.source(nil), "b.weights", 0, mib)
		if took := time.Since(begin); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		w.wantPlain(0)
	})
}

// Close may come while a Read waits.
func TestCloseFreesRead(t *testing.T) {
	inWorld(t, hubtest.Xet{Plain: true}, []hubtest.File{{Path: "a", Content: hubtest.Generated(1, 20*mib)}}, func(t *testing.T, w *world) {
		w.hub.Fail(hubtest.Fault{Do: hubtest.Stall, Route: hubtest.Xorb, At: 2 * mib})
		rc, err := w.source(nil).Open(t.Context(), w.file("a").Blob, 0, 20*mib)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { _, err := io.Copy(io.Discard, rc); done <- err }()
		time.Sleep(time.Second)
		begin := time.Now()
		rc.Close()
		if err := <-done; err == nil || time.Since(begin) > 0 {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		rc.Close()
	})
}

// No error and no line of the log holds a token or what signs a URL.
func TestNoSecrets(t *testing.T) {
	for _, f := range []hubtest.Fault{
		{Do: hubtest.Expired, Route: hubtest.Xorb}, {Do: hubtest.Reset, Route: hubtest.Xorb}, {Do: hubtest.Login, Route: hubtest.CAS},
		{Do: hubtest.Status, Status: 401, Route: hubtest.CAS}, {Do: hubtest.WrongRange, Route: hubtest.Xorb},
	} {
		inWorld(t, hubtest.Xet{}, mixed(), func(t *testing.T, w *world) {
			w.hub.Fail(f)
			_, err := w.read(w.source(func(o *xet.SourceOptions) { o.Only = true }), "a.noise", 0, mib)
			if err == nil {
				t.Fatalf("%v: no error", f)
			}
			w.read(w.source(nil), "a.noise", 0, mib)
			for _, secret := range []string{"Signature", "Expires=", "xet.9", "Bearer"} {
				if strings.Contains(err.Error(), secret) || w.log.count(secret) > 0 {
					t.Errorf("%v: %v; log %s", f, err, w.log.text.String())
				}
			}
		})
	}
}
