package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"p2pagent/pkg/pieces"
)

// hugeFile is the size from which on Python's client refuses plain HTTP (50 GB,
// huggingface_hub constants.MAX_HTTP_DOWNLOAD_SIZE) after its HEAD. The HEAD
// brings such a file into the cache, where the client finds it the next time.
const hugeFile = 50_000_000_000

// file answers HEAD and GET of one file.
func (g *Gateway) file(w http.ResponseWriter, r *http.Request, c call, s Snapshot, began time.Time) {
	f, ok := s.File(c.path)
	if !ok {
		refuse(w, entryNotFound(s.Outline(), c.path))
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType(f.Path))
	h.Set("Accept-Ranges", "bytes")
	if c.route == routeRaw && f.LFS() {
		h.Set("ETag", strconv.Quote(f.OID.String()))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(pointer(f)))
		return
	}
	h.Set("ETag", strconv.Quote(f.Blob.Digest.String()))
	if g.o.Xet.covers(f) {
		h.Set("X-Xet-Hash", f.Xet.String())
		h.Set("Link", fmt.Sprintf("<%s>; rel=\"xet-auth\"", tokenAddress(r, s.Outline())))
	}
	content := s.Read(f)
	defer content.Close()
	switch {
	case f.Blob.Size == 0:
		empty(w, r, content)
	case emptySuffix(r.Header.Get("Range")):
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", f.Blob.Size))
		http.Error(w, "the last no bytes", http.StatusRequestedRangeNotSatisfiable)
	case r.Method == http.MethodHead:
		head(w, r, f, content)
	default:
		g.get(w, r, f, content, began)
	}
}

// emptySuffix tells whether a range is the last no bytes of a file. RFC 9110 calls it
// unsatisfiable, http.ServeContent reads it from behind the end.
func emptySuffix(ranges string) bool {
	n, ok := strings.CutPrefix(ranges, "bytes=-")
	return ok && n != "" && strings.Trim(n, "0") == ""
}

// contentType follows the Hub: it never serves a page that a browser would run.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".json", ".txt", ".md", ".html", ".py", ".yaml", ".yml":
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// pointer is the text that git holds in place of an LFS file (git-lfs
// docs/spec.md).
func pointer(f pieces.File) []byte {
	return fmt.Appendf(nil, "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", f.Blob.Digest, f.Blob.Size)
}

// empty answers for a file of no bytes, which clients get without a GET: so its
// HEAD brings it. http.ServeContent ignores a Range of it, and JavaScript's client
// fails without a Content-Range.
func empty(w http.ResponseWriter, r *http.Request, content Content) {
	if err := content.Start(); err != nil {
		refuse(w, err)
		return
	}
	if r.Header.Get("Range") != "" {
		w.Header().Set("Content-Range", "bytes */0")
	}
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
}

// head answers from the outline alone. A client that has the content of another
// file or commit asks for no more than this: so what is here gets its name.
func head(w http.ResponseWriter, r *http.Request, f pieces.File, content Content) {
	if f.Blob.Size > hugeFile || content.Here() {
		if err := content.Start(); err != nil {
			refuse(w, err)
			return
		}
	}
	http.ServeContent(w, r, "", time.Time{}, &sized{size: f.Blob.Size})
}

// sized is what http.ServeContent needs of a file to answer a HEAD.
type sized struct{ size, at int64 }

func (s *sized) Read([]byte) (int, error) { return 0, io.EOF }

func (s *sized) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += s.at
	case io.SeekEnd:
		off += s.size
	}
	s.at = off
	return off, nil
}

// get sends the file, or a range of it: from the disk when it is here, else as it
// lands. Several ranges at once get the whole, as RFC 9110 allows.
func (g *Gateway) get(w http.ResponseWriter, r *http.Request, f pieces.File, content Content, began time.Time) {
	leave, err := g.enter()
	if err != nil {
		refuse(w, err)
		return
	}
	defer leave()
	if strings.Contains(r.Header.Get("Range"), ",") {
		r.Header.Del("Range")
	}
	if whole := content.Whole(); whole != nil {
		http.ServeContent(w, r, "", time.Time{}, whole)
		return
	}
	g.send(w, r, f, &body{sized: sized{size: f.Blob.Size}, content: content}, began.Add(HeaderWait))
}

// enter takes the place of a reader, until leave gives it back.
func (g *Gateway) enter() (leave func(), err error) {
	select {
	case g.readers <- struct{}{}:
		return func() { <-g.readers }, nil
	default:
		return nil, &Refusal{Code: Busy, Message: fmt.Sprintf("%d files are being sent", maxReaders), After: 5 * time.Second}
	}
}

// send sends of a body, which is the file or made of it, what is asked for. The
// headers wait for its first byte.
func (g *Gateway) send(w http.ResponseWriter, r *http.Request, f pieces.File, b *body, until time.Time) {
	b.ctx, b.flush = r.Context(), http.NewResponseController(w).Flush
	held := &holding{ResponseWriter: w, body: b, until: until, refused: func(err error) { g.notYet(w, f, err) }}
	http.ServeContent(held, r, "", time.Time{}, b)
	if held.begun {
		g.waits.over(f.Blob)
	}
	if b.err != nil && !held.over && r.Context().Err() == nil {
		g.log.Warn("a file broke off while it was sent", "file", f.Path, "blob", f.Blob.String(), "at", b.at, "of", f.Blob.Size, "err", b.err)
		breakOff(w, b.err)
	}
}

// notYet refuses a file of which no byte came in time. The longer it has been
// waited for, the later the client shall come again: it tries five times.
func (g *Gateway) notYet(w http.ResponseWriter, f pieces.File, err error) {
	r := refusalOf(err)
	if r.Code == Busy {
		r = &Refusal{Code: Busy, Message: r.Message, After: g.waits.since(f.Blob)}
	}
	refuse(w, r)
}

// breakOff ends a body that can't be finished. After a clean end of the connection
// clients go on behind what they have; when that is wrong they must not.
func breakOff(w http.ResponseWriter, err error) {
	if !errors.Is(err, ErrSpoiled) {
		panic(http.ErrAbortHandler)
	}
	conn, _, herr := http.NewResponseController(w).Hijack()
	if herr != nil {
		panic(http.ErrAbortHandler)
	}
	if t, ok := conn.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	conn.Close()
}
