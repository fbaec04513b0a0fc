package swarm

import (
	"context"
	"log/slog"

	"github.com/libp2p/go-libp2p/gologshim"
)

// LibraryLog has libp2p write its log to h, one level lower than it thinks:
// a peer that hangs up is no error of this program. Call it before the first
// host is made; without it libp2p writes errors to standard error.
func LibraryLog(h slog.Handler) { gologshim.SetDefaultHandler(quieter{h}) }

// quieter lowers levels: errors become warnings, all else debug.
type quieter struct{ slog.Handler }

func lower(l slog.Level) slog.Level {
	if l >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled asks about the level that a record will have.
func (q quieter) Enabled(ctx context.Context, l slog.Level) bool {
	return q.Handler.Enabled(ctx, lower(l))
}

// Handle passes the record on.
func (q quieter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return nil
	}
	r.Level = lower(r.Level)
	return q.Handler.Handle(ctx, r)
}

// WithAttrs keeps lowering.
func (q quieter) WithAttrs(a []slog.Attr) slog.Handler { return quieter{q.Handler.WithAttrs(a)} }

// WithGroup keeps lowering.
func (q quieter) WithGroup(name string) slog.Handler { return quieter{q.Handler.WithGroup(name)} }
