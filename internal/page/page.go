package page

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

// maxAtOnce bounds the requests that are answered at once: most only copy what
// is kept.
const maxAtOnce = 32

// policy lets the page load nothing from elsewhere, send nothing, and be framed
// by nobody.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// Page answers GET / and everything below /page/. It is safe for concurrent use.
type Page struct {
	board *board
	files map[string]*answer // by path
	slots chan struct{}
}

// New returns a page over what source tells. It starts nothing.
func New(source Source) *Page {
	return &Page{board: newBoard(source), files: files(), slots: make(chan struct{}, maxAtOnce)}
}

// Run takes the samples of the chart until ctx ends.
func (p *Page) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		p.board.sample(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w.Header())
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many viewers at once", http.StatusServiceUnavailable)
		return
	}
	switch at := path.Clean(r.URL.Path); at {
	case "/page/state":
		epoch, since := number(r, "epoch"), number(r, "since")
		p.answer(w, r, func() (*answer, error) { return p.board.state(r.Context(), epoch, since) })
	case "/page/map":
		p.answer(w, r, func() (*answer, error) { return p.board.holders(r.Context(), r.FormValue("model")) })
	default:
		p.file(w, r, at)
	}
}

// number reads a value of the query; what is none counts as 0.
func number(r *http.Request, name string) uint64 {
	n, _ := strconv.ParseUint(r.FormValue(name), 10, 64)
	return n
}

func guard(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

func (p *Page) answer(w http.ResponseWriter, r *http.Request, get func() (*answer, error)) {
	a, err := get()
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	case a == nil:
		http.Error(w, "no such model", http.StatusNotFound)
	default:
		a.send(w, r)
	}
}

func (p *Page) file(w http.ResponseWriter, r *http.Request, at string) {
	f := p.files[at]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Cache-Control", "no-cache") // ask whether it is still so
	f.send(w, r)
}

// answer is a body that many viewers get, and its compressed form.
type answer struct {
	kind       string // of content
	tag        string
	raw, small []byte
}

func newAnswer(v any) (*answer, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode the page's answer: %w", err)
	}
	return pack("application/json", raw), nil
}

func pack(kind string, raw []byte) *answer {
	var small bytes.Buffer
	z, _ := gzip.NewWriterLevel(&small, gzip.BestSpeed) // the level is a valid one
	z.Write(raw)
	z.Close() // a Buffer takes everything
	sum := sha256.Sum256(raw)
	return &answer{kind, `"` + hex.EncodeToString(sum[:8]) + `"`, raw, small.Bytes()}
}

func (a *answer) send(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.kind)
	h.Set("ETag", a.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), a.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.raw
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.small
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body) // a viewer that left is none of ours
}

// files packs what is embedded: index.html for /, the rest below /page/.
func files() map[string]*answer {
	out := map[string]*answer{}
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := static.ReadFile(name)
		out["/page/"+path.Base(name)] = pack(mime.TypeByExtension(path.Ext(name)), raw)
		return err
	})
	if err != nil {
		panic(err) // the files are in the binary
	}
	out["/"] = out["/page/index.html"]
	return out
}
