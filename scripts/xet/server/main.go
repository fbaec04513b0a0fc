// Command server is a content-addressed store of others' making, for checks of
// pkg/xet: the one of github.com/wzshiming/xet, on loopback. It is a module of its
// own, so that the program does not depend on it.
//
//	server DIR TOKEN
//
// keeps what is uploaded in DIR, takes tokens that begin with TOKEN, and prints its
// URL first. /-/sent says how many bytes it has sent, reconstructions apart, and how
// many of these were asked for.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/wzshiming/xet/server"
	"github.com/wzshiming/xet/storage"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: server DIR TOKEN")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal("server: ", err)
	}
}

func run(dir, token string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	store, err := storage.NewFileStorage(storage.WithBasePath(dir), storage.WithBaseURL(url))
	if err != nil {
		return err
	}
	fmt.Println(url)
	h := server.NewHandler(server.WithStorage(store), server.WithAuthFunc(func(t string) bool { return strings.HasPrefix(t, token) }))
	return http.Serve(l, counted(renamed(h)))
}

// counted counts what is sent.
func counted(h http.Handler) http.Handler {
	var sent, plans atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/-/sent":
			fmt.Fprintf(w, `{"bytes": %d, "reconstructions": %d}`, sent.Load(), plans.Load())
		case strings.Contains(r.URL.Path, "/reconstructions/"):
			plans.Add(1)
			h.ServeHTTP(w, r)
		default:
			h.ServeHTTP(&counting{w, &sent}, r)
		}
	})
}

type counting struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.sent.Add(int64(n))
	return n, err
}

// renamed gives the official client the route that it uploads shards to now.
func renamed(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/shards" {
			r.URL.Path = "/shards"
		}
		h.ServeHTTP(w, r)
	})
}
