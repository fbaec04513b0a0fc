package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/pkg/gateway"
)

// watcher notes what it is told.
type watcher struct {
	mu   sync.Mutex
	what []string
	over []gateway.Served
}

type watchedKey struct{}

func (w *watcher) watch(r *http.Request, what string) (context.Context, func(gateway.Served)) {
	return context.WithValue(r.Context(), watchedKey{}, what), func(s gateway.Served) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.what, w.over = append(w.what, what), append(w.over, s)
	}
}

func (w *watcher) last(t *testing.T) (string, gateway.Served) {
	t.Helper()
	synctest.Wait() // the answer is read before its handler has returned
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.over) == 0 {
		t.Fatal("nothing was told")
	}
	return w.what[len(w.what)-1], w.over[len(w.over)-1]
}

// Every request is told once, when it is over: what it was, how it ended, when its
// first byte was there.
func TestWatch(t *testing.T) {
	var w watcher
	atDesk(t, func(t *testing.T, d *desk) {
		d.model()
		for _, c := range []struct {
			method, path, what string
			status             int
		}{
			{"GET", "/api/models/org/model", "info", 200},
			{"GET", "/api/models/org/model/tree/main", "tree", 200},
			{"HEAD", "/org/model/resolve/main/model.safetensors", "resolve", 200},
			{"GET", "/org/model/resolve/main/nothing", "resolve", 404},
			{"GET", "/api/whoami-v2", "whoami", 401},
			{"GET", "/favicon.ico", "no route", 404},
		} {
			body := read(t, d.ask(c.method, c.path))
			if what, s := w.last(t); what != c.what || s.Status != c.status || s.Bytes != int64(len(body)) || s.First > s.Took {
				t.Errorf("%s %s: %s, %+v, %d bytes came", c.method, c.path, what, s, len(body))
			}
		}

		l := d.lands("model.safetensors", noise(1, 300_000))
		go func() {
			time.Sleep(2 * time.Second)
			l.land(200_000, nil)
			time.Sleep(20 * time.Second)
			l.land(300_000, nil)
		}()
		read(t, d.ask("GET", "/org/model/resolve/main/model.safetensors", "Range: bytes=100-"))
		if what, s := w.last(t); what != "resolve" || s.Status != 206 || s.Bytes != 299_900 || s.First != 2*time.Second || s.Took != 22*time.Second {
			t.Errorf("landing: %s, %+v", what, s)
		}

		l = d.lands("model.safetensors", noise(1, 300_000))
		l.land(200_000, nil)
		go func() { time.Sleep(time.Second); l.land(200_000, gateway.ErrSpoiled) }()
		resp := d.ask("GET", "/org/model/resolve/main/model.safetensors")
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("a spoiled body ended well")
		}
		if _, s := w.last(t); s.Status != 200 || s.Bytes == 0 || s.Bytes >= 300_000 {
			t.Errorf("broken off: %+v", s)
		}
	}, func(o *gateway.Options) { o.Watch = w.watch })
}

// A file on the disk still goes out by the kernel's own copy: the writer that
// counts hands it through whole.
func TestWatchLeavesFilesToTheKernel(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var by copier
	gateway.Viewed(&by, func(w http.ResponseWriter) {
		http.ServeContent(w, httptest.NewRequest("GET", "/", nil), "", time.Time{}, f)
	})
	if by.from == nil {
		t.Fatal("the file was copied by hand")
	}
	if l, ok := by.from.(*io.LimitedReader); !ok || l.R != f {
		t.Errorf("%T is not the file", by.from)
	}
}

// copier is a response that sees what it is to copy.
type copier struct {
	httptest.ResponseRecorder
	from io.Reader
}

func (c *copier) ReadFrom(r io.Reader) (int64, error) {
	c.from = r
	return io.Copy(io.Discard, r)
}
