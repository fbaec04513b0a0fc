package swarm

import (
	"context"
	"log"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

// logRouter takes memberlist's log lines. They go to debug, but for the few
// that somebody should see, and those at most once a minute; strangers that
// knock with another key are counted.
type logRouter struct {
	log    *slog.Logger
	refuse func(Refusal)

	mu   sync.Mutex // guards last
	last map[string]time.Time
}

// worthSeeing are the lines an operator can act on.
var worthSeeing = []string{
	"handler queue full", "Too many pending push/pull", "Error accepting TCP", "Error reading UDP", "Remote node state size",
}

// strange are the lines that mean "somebody without our key".
var strange = []string{
	"o installed keys could decrypt", "remote state is not encrypted", "remote state is encrypted and encryption is not configured", "unacceptable label",
}

// noLabel is no member with another key, since all members have a label: who
// connects and says nothing, such as the probe of a load balancer.
const noLabel = `unacceptable label ""`

const sayAgain = time.Minute

func newLogRouter(l *slog.Logger, refuse func(Refusal)) *logRouter {
	return &logRouter{log: l, refuse: refuse, last: map[string]time.Time{}}
}

func (r *logRouter) logger() *log.Logger { return log.New(r, "", 0) }

// Write takes one line of package log.
func (r *logRouter) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	level, topic := slog.LevelDebug, ""
	if i := indexAny(line, worthSeeing); i >= 0 {
		level, topic = slog.LevelWarn, worthSeeing[i]
	}
	if indexAny(line, strange) >= 0 && !strings.Contains(line, noLabel) {
		if from := fromOf(line); from != "" {
			r.refuse(Refusal{Addr: from, Reason: ErrOtherKey.Error()})
		}
	}
	if topic != "" && !r.due(topic) {
		level = slog.LevelDebug
	}
	r.log.Log(context.Background(), level, "gossip", "line", line)
	return len(p), nil
}

func (r *logRouter) due(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last[topic]) < sayAgain {
		return false
	}
	r.last[topic] = now
	return true
}

func indexAny(line string, texts []string) int {
	for i, t := range texts {
		if strings.Contains(line, t) {
			return i
		}
	}
	return -1
}

// fromOf finds memberlist's "from=ip:port" and returns the address without the
// port, which is another one each time.
func fromOf(line string) string {
	_, rest, ok := strings.Cut(line, "from=")
	if !ok {
		return ""
	}
	addr, _, _ := strings.Cut(rest, " ")
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	return host
}
