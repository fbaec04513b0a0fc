package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"p2pagent/internal/stall"
	"p2pagent/pkg/agent"
	"p2pagent/pkg/cachefs"
	"p2pagent/pkg/hub"
	"p2pagent/pkg/hub/hubtest"
	"p2pagent/pkg/pieces"
	"p2pagent/pkg/seeder"
	"p2pagent/pkg/swarm"
	"p2pagent/pkg/xet"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{&cachefs.BusyError{Dir: "/c", PID: 7}, 1},
		{&agent.RunningError{Path: "/s"}, 1},
		{usagef("no"), 2},
		{faultsOf([]error{errors.New("a"), nil, errors.New("b")}), 2},
		{agent.Errorf(agent.Partial, "some"), 3},
		{hub.ErrRepoNotFound, 4},
		{hub.ErrRevisionNotFound, 4},
		{hub.ErrEntryNotFound, 4},
		{cachefs.ErrNotCached, 4},
		{swarm.ErrNoRecord, 4},
		{hub.ErrGated, 5},
		{hub.ErrUnauthorized, 5},
		{hub.ErrDisabled, 5},
		{&hub.TokenError{Source: "f", Err: os.ErrPermission}, 5},
		{&cachefs.NoSpaceError{Need: 2, Free: 1}, 6},
		{&os.PathError{Op: "write", Err: syscall.EDQUOT}, 6},
		{pieces.ErrDigest, 7},
		{pieces.ErrSignature, 7},
		{&hub.DisagreeError{}, 7},
		{pieces.ErrBadOutline, 7},
		{&timeoutError{time.Second}, 8},
		{stall.ErrStalled, 8},
		{seeder.ErrGaveUp, 8},
		{&hub.RateLimitError{}, 8},
		{hub.ErrUnreachable, 8},
		{&hub.StatusError{Status: 503}, 8},
		{context.DeadlineExceeded, 8},
		{agent.Errorf(agent.NoAgent, "none"), 9},
		{&signalError{syscall.SIGINT}, 130},
		{&signalError{syscall.SIGTERM}, 143},
		{agent.Errorf("a kind of tomorrow", "x"), 1},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("%v: %d, want %d", c.err, got, c.code)
		}
		if c.err == nil {
			continue
		}
		if got := exitCode(fmt.Errorf("fetch org/m: %w", c.err)); got != c.code {
			t.Errorf("wrapped %v: %d, want %d", c.err, got, c.code)
		}
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&agent.Error{Kind: agent.NoAgent, Err: syscall.EACCES}, "group"},
		{&agent.Error{Kind: agent.NoAgent, Err: syscall.ENOENT}, "p2pagent agent"},
		{&agent.Error{Kind: agent.Other, Hint: "its own"}, "its own"},
		{fmt.Errorf("open: %w", cachefs.ErrCrossDevice), "--state-dir"},
		{&cachefs.BusyError{}, "--standalone"},
		{fmt.Errorf("listen: %w", syscall.EADDRINUSE), "--gossip-port"},
		{&xet.ContentError{Final: true}, "--xet=auto"},
		{&xet.OnlyError{Err: xet.ErrContent}, "reaches the store"},
		{errors.New("anything"), ""},
	} {
		if got := hint(c.err); !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
			t.Errorf("%v: %q, want %q in it", c.err, got, c.want)
		}
	}
}

// Every kind has a code, and the text of the root command speaks of each.
func TestExitCodesAreTold(t *testing.T) {
	for kind, code := range exitCodes {
		if !strings.Contains(strings.ReplaceAll(rootLong, "\n", " "), fmt.Sprintf(" %d ", code)) {
			t.Errorf("%s: code %d is not in the help", kind, code)
		}
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"org/name@main": "org/name@main", "höhe 高": "höhe 高", "a\nb": `a\x0ab`, "\x1b[2J": `\x1b[2J`, "\u009b31m": `\u009b31m`,
		"\xff": `\xff`, "a\u202eb": `a\u202eb`, "\u00a0": `\u00a0`, "\U000e0001": `\U000e0001`, "\ufffd": "\ufffd",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_960: "10 kB", 5_242_892: "5.2 MB", 999_600: "1.0 MB", 30e9: "30 GB", 1 << 62: "4612 PB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 files", 1: "1 file", 2: "2 files"} {
		if got := counted(n, "file"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", 99 * time.Second: "99 s", 125 * time.Second: "2 min 05 s", 2*time.Hour + 3*time.Minute: "2 h 03 min", 50 * time.Hour: "2 days"} {
		if got := spanText(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// stamped notes when each line was written.
type stamped struct{ lines []string }

func (w *stamped) Write(p []byte) (int, error) {
	w.lines = append(w.lines, fmt.Sprintf("%s %s", time.Now().Format("04:05"), bytes.TrimSpace(p)))
	return len(p), nil
}

// Whatever the agent does, or does not do: a line at least every 10 s that says
// where bytes came from, or for what it waits.
func TestLinesNeverStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stamped{}
		s := &session{p: &program{stderr: w}, format: formatHuman}
		g := s.newProgress("org/m@main")
		time.Sleep(25 * time.Second) // no word from the agent
		g.watch(agent.Job{Ref: "org/m@main", Status: agent.Adopting, Waiting: "what is on the disk to be hashed"})
		time.Sleep(25 * time.Second) // hashing
		for i := range 60 {
			g.watch(agent.Job{Ref: "org/m@main", Status: agent.Fetching, Total: 6000, Completed: int64(i) * 100, Upstream: int64(i) * 50, Peers: map[string]int64{"a": int64(i) * 50}, Rate: 100, ETA: 10})
			time.Sleep(time.Second)
		}
		g.watch(agent.Job{Ref: "org/m@main", Status: agent.Fetching, Total: 6000, Completed: 5900, Idle: 20, Waiting: "upstream", Unheld: 3,
			Gaps: []agent.Gap{{Path: "model.safetensors", First: 3, Last: 4}, {Path: "a/b.bin"}}})
		time.Sleep(30 * time.Second) // silence again
		g.end()
		last, err := time.Parse("04:05", w.lines[0][:5])
		if err != nil || len(w.lines) < 14 {
			t.Fatalf("%d lines, %v", len(w.lines), err)
		}
		for _, line := range w.lines[1:] {
			at, err := time.Parse("04:05", line[:5])
			if err != nil || at.Sub(last) > 10*time.Second {
				t.Errorf("%v after the line before: %q, %v", at.Sub(last), line, err)
			}
			last = at
			if strings.Contains(line, "fetching") != strings.Contains(line, "upstream ") {
				t.Errorf("no sources in %q", line)
			}
		}
		all := strings.Join(w.lines, "\n")
		for _, want := range []string{"starting (8 s)", "adopting: what is on the disk to be hashed", " % of 6.0 kB, 100 B/s, 10 s left, upstream 1.6 kB, peers 1.6 kB, already here 0 B",
			"last byte 20 s ago, waiting for upstream, 3 pieces nobody holds yet (model.safetensors 3-4, a/b.bin 0)"} {
			if !strings.Contains(all, want) {
				t.Errorf("no line says %q:\n%s", want, all)
			}
		}
	})
}

func TestBarWipesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w bytes.Buffer
		s := &session{p: &program{stderr: &w, terminal: true}, format: formatHuman}
		g := s.newProgress("org/m@main")
		g.watch(agent.Job{Ref: "org/\x1bm", Status: agent.Fetching, Total: 100, Completed: 40, Upstream: 10, Peers: map[string]int64{"a": 30}})
		time.Sleep(time.Second)
		g.end()
		if got := w.String(); !strings.Contains(got, `org/\x1bm`) || !strings.Contains(got, "40%") || !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("drawn %q", got)
		}
	})
}

// O08: --timeout is kept within a second.
//
// Whatever the work hangs in, the command ends with code 8 at the time-out and less than
// a second; stopped by a signal it ends within the ten seconds that it has to tidy up.
func TestO08TimeoutIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		stuck := func() error { <-release; return nil }
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, &timeoutError{time.Minute})
		defer cancel()
		start := time.Now()
		if err := bounded(ctx, stuck); exitCode(err) != 8 || time.Since(start) > time.Minute+time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		stopped, stop := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { stop(&signalError{syscall.SIGTERM}) })
		start = time.Now()
		if err := bounded(stopped, stuck); exitCode(err) != 143 || time.Since(start) > 11*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(release)
		if err := bounded(t.Context(), stuck); err != nil {
			t.Error(err)
		}
	})
}

// upstream-limit holds, and bytes come out as they are.
func TestLimitedHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := limitHub(source{}, newLimit(1<<20))
		start := time.Now()
		rc, err := h.Open(t.Context(), pieces.Repo{}, "", pieces.File{}, 0, 10<<20)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, rc)
		if took := time.Since(start); err != nil || n != 10<<20 || took < 9900*time.Millisecond || took > 10100*time.Millisecond {
			t.Errorf("%d bytes in %v, %v", n, took, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("enough"))
		rc, _ = h.Open(ctx, pieces.Repo{}, "", pieces.File{}, 0, 10<<20)
		if _, err := io.Copy(io.Discard, rc); err == nil || err.Error() != "enough" {
			t.Errorf("cancelled: %v", err)
		}
		if _, limited := limitHub(source{}, newLimit(0)).(*limitedHub); limited {
			t.Error("0 is a limit")
		}
	})
}

// A file that changed between the fetch and the copy never gets its name.
func TestLocalFolderCompares(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "a"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l := &localFolder{dir: to, root: root, commit: strings.Repeat("a", 40), now: time.Now}
	err = l.bring(t.Context(), from, agent.File{Path: "a", Size: 5, Digest: strings.Repeat("0", 64)})
	if exitCode(err) != 7 {
		t.Errorf("wrong digest: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(to, "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is there: %v", err)
	}
	if err := l.bring(t.Context(), from, agent.File{Path: "../a", Size: 5}); exitCode(err) != 7 {
		t.Errorf("hostile path: %v", err)
	}
}

type source struct{ agent.Hub }

func (source) Open(_ context.Context, _ pieces.Repo, _ pieces.Commit, _ pieces.File, off, n int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(hubtest.Generated(1, off+n), off, n)), nil
}

func TestNotebook(t *testing.T) {
	n := notebook{t.TempDir(), notesFile}
	if raw, err := n.Load(); err != nil || raw != nil {
		t.Errorf("empty: %q, %v", raw, err)
	}
	for _, text := range []string{"one", "two"} {
		if err := n.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if raw, err := n.Load(); err != nil || string(raw) != text {
			t.Errorf("%q, %v", raw, err)
		}
	}
	if info, err := os.Stat(filepath.Join(n.dir, n.file)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// systemd hears READY=1 only from an agent that serves, a status with food for
// the watchdog, and the stop.
func TestNotify(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "n"))
	var stderr bytes.Buffer
	p := &program{stderr: &stderr, stdout: io.Discard, env: func(k string) (string, bool) {
		v, ok := map[string]string{"HF_HOME": dir, "P2PAGENT_INSECURE": "true", "P2PAGENT_BIND": "127.0.0.1",
			"P2PAGENT_GOSSIP_PORT": "0", "P2PAGENT_SWARM_PORT": "0", "P2PAGENT_SOCKET": filepath.Join(dir, "s")}[k]
		return v, ok
	}}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	code := make(chan int, 1)
	go func() { code <- p.main(ctx, []string{"serve"}) }()
	want := []string{"READY=1", "STATUS=0 jobs, 0 other members, 0 banned\nWATCHDOG=1", "STOPPING=1"}
	for i, text := range want {
		b := make([]byte, 200)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != text {
			t.Fatalf("message %d: %q, %v; want %q", i, b[:n], err, text)
		}
		if i == 1 {
			cancel(&signalError{syscall.SIGTERM})
		}
	}
	if got := <-code; got != 143 {
		t.Errorf("exit code %d: %s", got, stderr.String())
	}
}
