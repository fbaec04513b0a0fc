package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
)

const (
	maxConns   = 256              // open at once: viewers of the page must leave room for probes
	maxScrapes = 4                // answered at once
	probeWait  = 3 * time.Second  // bounds the checks of a probe
	writeWait  = 15 * time.Second // bounds an answer
	idleWait   = 30 * time.Second // a connection that nobody uses for so long makes room
)

// Check is one condition of being ready. It honours its context.
type Check struct {
	Name  string
	Check func(context.Context) error
}

// Options are what a Server shows. All but Page and Logger must be set.
type Options struct {
	Read  Read
	Alive func(context.Context) error // what only a restart mends
	Ready []Check
	// Page answers GET / and below /page/; nil for none.
	Page http.Handler
	// Logger gets what goes wrong with connections; nil discards.
	Logger *slog.Logger
}

// Server answers GET /metrics, /livez, /readyz and the page, and nothing else. It changes
// nothing, so it may be open to whoever may know how the agent is.
type Server struct{ http *http.Server }

// NewServer returns a server that Serve starts.
func NewServer(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	errorLog := slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(newRegistry(o.Read), promhttp.HandlerOpts{
		ErrorLog: errorLog, MaxRequestsInFlight: maxScrapes, Timeout: 2 * scrapeWait,
	}))
	mux.Handle("GET /livez", probe([]Check{{"alive", o.Alive}}))
	mux.Handle("GET /readyz", probe(o.Ready))
	if o.Page != nil {
		mux.Handle("GET /{$}", o.Page)
		mux.Handle("GET /page/", o.Page)
	}
	return &Server{&http.Server{
		Handler: mux, ErrorLog: errorLog, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: writeWait, IdleTimeout: idleWait,
	}}
}

// Serve answers on l until ctx ends. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() }) // a scrape that is cut off is one sample less
	defer stop()
	err := s.http.Serve(netutil.LimitListener(l, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics: %w", err)
}

// probe answers 200 when every check passes, else 503, with a line for each.
func probe(checks []Check) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeoutCause(r.Context(), probeWait, errors.New("no answer in 3 s"))
		defer cancel()
		code, lines := http.StatusOK, ""
		for _, c := range checks {
			if err := c.Check(ctx); err != nil {
				code = http.StatusServiceUnavailable
				lines += fmt.Sprintf("failed %s: %s\n", c.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
				continue
			}
			lines += "ok " + c.Name + "\n"
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		fmt.Fprint(w, lines)
	})
}
