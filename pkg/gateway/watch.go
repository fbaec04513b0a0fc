package gateway

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Served is what there is to say of a request that is over.
type Served struct {
	Status int           // 0: it broke off before there was one
	First  time.Duration // until the answer began: its headers wait for the first byte of a file
	Took   time.Duration
	Bytes  int64 // of the body
}

// Watch is called when a request begins, with the kind of question that it is; what
// it returns becomes the request's context, and is called when the request is over.
type Watch func(r *http.Request, what string) (context.Context, func(Served))

// watched answers while Watch is told.
func (g *Gateway) watched(w http.ResponseWriter, r *http.Request, c call, answer func(http.ResponseWriter, *http.Request)) {
	if g.o.Watch == nil {
		answer(w, r)
		return
	}
	ctx, over := g.o.Watch(r, string(c.route))
	v := &viewed{ResponseWriter: w, began: time.Now()}
	defer func() { over(Served{Status: v.status, First: v.first, Took: time.Since(v.began), Bytes: v.bytes}) }()
	answer(v, r.WithContext(ctx))
}

// viewed is a response that notes its beginning and its length.
type viewed struct {
	http.ResponseWriter
	began  time.Time
	first  time.Duration
	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (v *viewed) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (v *viewed) WriteHeader(status int) {
	if v.status == 0 && status >= http.StatusOK {
		v.status, v.first = status, time.Since(v.began)
	}
	v.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (v *viewed) Write(p []byte) (int, error) {
	v.begin()
	n, err := v.ResponseWriter.Write(p)
	v.bytes += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom: the kernel sends files from the disk by itself.
func (v *viewed) ReadFrom(r io.Reader) (int64, error) {
	v.begin()
	n, err := io.Copy(v.ResponseWriter, r)
	v.bytes += n
	return n, err
}

func (v *viewed) begin() {
	if v.status == 0 {
		v.status, v.first = http.StatusOK, time.Since(v.began)
	}
}
