// Command hubserver serves repositories as the Hugging Face Hub does, for demos,
// labs and measurements: the Hub of pkg/hub/hubtest on real addresses.
//
//	hubserver -listen 127.0.0.1:8080 -model org/name=DIR
//	hubserver -listen 10.0.0.1:80 -cdn 10.0.0.1:81 -generate org/name=8GiB:8:10 -control unix:/run/hub
//
// -model serves the files of a folder, at a revision when one is named
// (org/name@refs/pr/1=DIR; anything but main becomes a tag). -generate makes up
// SIZE bytes in FILES files and SMALL little ones, and stores nothing. Both may
// be repeated. -xet keeps the large files in a content-addressed store too, at the
// CDN's address, each chunk once as the Hub does (what -generate makes up repeats
// itself and is stored in full); the store's compressed bytes lie in a file without
// a name below TMPDIR. -token makes -gated and -private mean something. When it
// serves it prints
//
//	ready endpoint=URL cdn=URL control=URL
//
// The control address answers GET /stats and /requests, and POST /reset,
// /stall?path=FILE&after=OFFSET&times=N (so many requests that come to that
// offset get no further, with the socket open) and /rate?bytes=N (a second, for
// every body; 0 is none). All that hubtest can do else is below /-/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"p2pagent/pkg/hub/hubtest"
)

type options struct {
	listen, cdn, control string
	models, generated    list
	gated, private       list
	page                 int
	xet                  bool
	cas                  string
	token                string
}

// list is a flag that may be repeated.
type list []string

func (l *list) Set(s string) error { *l = append(*l, s); return nil }
func (l *list) String() string     { return strings.Join(*l, " ") }

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:8080", "address of the Hub")
	flag.StringVar(&o.cdn, "cdn", "", "address of the host that large files are redirected to; none: the Hub itself")
	flag.StringVar(&o.control, "control", "", "address for statistics and faults, or unix:PATH")
	flag.Var(&o.models, "model", "`[datasets/]org/name[@revision]=DIR` to serve")
	flag.Var(&o.generated, "generate", "`org/name=SIZE:FILES[:SMALL]` to make up")
	flag.IntVar(&o.page, "page", 0, "rows of a page of a listing; 0 is the Hub's own 1000")
	flag.BoolVar(&o.xet, "xet", false, "keep large files in a content-addressed store too; needs -cdn")
	flag.StringVar(&o.cas, "cas", "", "address of another content-addressed store, which has the large files and takes any token that begins with xet.")
	flag.StringVar(&o.token, "token", "", "the one token that is known; others are refused")
	flag.Var(&o.gated, "gated", "`org/name` whose files want that token")
	flag.Var(&o.private, "private", "`org/name` that only that token sees")
	flag.Parse()
	if err := run(o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "hubserver:", err)
		os.Exit(1)
	}
}

func run(o options, rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q", rest[0])
	}
	hub, err := newHub(o)
	if err != nil {
		return err
	}
	model, err := fill(hub, o)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &server{hub: hub, log: newLog(), faults: &faults{}, model: model, failed: make(chan error, 3)}
	defer s.close()
	if err := s.listen(o); err != nil {
		return err
	}
	fmt.Println(s.ready)
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	}
}

func newHub(o options) (*hubtest.Server, error) {
	h := hubtest.Options{PageSize: o.page, Token: o.token}
	if o.xet && o.cdn == "" {
		return nil, errors.New("-xet needs -cdn: the store is at that address")
	}
	if o.cas != "" {
		h.Xet = &hubtest.Xet{Dedup: true, Plain: true, CAS: o.cas}
	} else if o.xet {
		spool, err := os.CreateTemp("", "hubserver-")
		if err != nil {
			return nil, err
		}
		if err := os.Remove(spool.Name()); err != nil { // it goes with the process
			return nil, err
		}
		h.Xet = &hubtest.Xet{Dedup: true, Spool: spool}
	}
	return hubtest.New(h), nil
}

// server is the Hub on its addresses.
type server struct {
	hub    *hubtest.Server
	log    *log
	faults *faults
	model  int64 // bytes of distinct content
	ready  string
	failed chan error
	https  []*http.Server
}

// listen opens every address before any is served, so that "ready" is true of all.
func (s *server) listen(o options) error {
	s.ready = "ready"
	faces := []struct {
		name, address string
		handler       http.Handler
	}{
		{"endpoint", o.listen, tapped(s.hub, s.log, s.faults)},
		{"cdn", o.cdn, tapped(s.hub.CDN(), s.log, s.faults)},
		{"control", o.control, s.controls()},
	}
	for _, f := range faces {
		if f.address == "" {
			continue
		}
		l, err := listener(f.address)
		if err != nil {
			return err
		}
		url := "http://" + l.Addr().String()
		if l.Addr().Network() == "unix" {
			url = "unix:" + l.Addr().String()
		}
		if f.name == "cdn" {
			s.hub.SetCDN(url)
		}
		s.ready += " " + f.name + "=" + url
		s.serve(l, f.handler)
	}
	return nil
}

func listener(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		_ = os.Remove(path) // of a server that was killed
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

func (s *server) serve(l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }}
	s.https = append(s.https, srv)
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// close breaks off what is being served: nobody waits for a lab's Hub.
func (s *server) close() {
	s.hub.Close()
	for _, srv := range s.https {
		_ = srv.Close()
	}
}
