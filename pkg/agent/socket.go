package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// RunningError tells that another agent answers on the socket.
type RunningError struct {
	Path string
	PID  int // 0 when it does not say
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another agent is running on %s", e.Path)
	}
	return fmt.Sprintf("another agent is running (pid %d) on %s", e.PID, e.Path)
}

// maxSocketPath is what fits into a unix socket address on Linux.
const maxSocketPath = 107

// Listen opens the control socket: mode 0660 from its first instant on, its
// folder made when missing. A socket that a dead agent left is replaced; when
// one answers, Listen fails with a *RunningError. Closing the listener removes
// the socket.
func Listen(path string) (net.Listener, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("path of %d bytes, at most %d fit", len(path), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// Bound under another name first: between bind and chmod a socket has the
	// mode that the umask gives it.
	temp := path + "." + strconv.Itoa(os.Getpid())
	if len(temp) > maxSocketPath {
		return nil, fmt.Errorf("path of %d bytes, at most %d fit", len(path), maxSocketPath-len(temp)+len(path))
	}
	os.Remove(temp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o660), os.Rename(temp, path)); err != nil {
		l.Close()
		os.Remove(temp)
		return nil, err
	}
	return &socket{UnixListener: l, path: path}, nil
}

// clearStale makes way, unless somebody answers or the name is no socket.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is a file of that name that is not a socket")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c := NewClient(path)
	if _, err := c.Status(ctx); !errors.Is(err, syscall.ECONNREFUSED) {
		return &RunningError{Path: path, PID: int(c.pid.Load())} // it accepts, or we may not ask: not ours to remove
	}
	return os.Remove(path)
}

// socket removes its name when it is closed.
type socket struct {
	*net.UnixListener
	path string
}

func (s *socket) Close() error {
	err := s.UnixListener.Close()
	if err == nil { // once: by the second time the name may be another agent's
		err = os.Remove(s.path)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return err
}

type callerKey struct{}

// withCaller notes the uid at the other end of a unix socket.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	uid := -1
	if cred := peerOf(c); cred != nil {
		uid = int(cred.Uid)
	}
	return context.WithValue(ctx, callerKey{}, uid)
}

// callerOf returns the caller's uid, or -1 when it can't be told.
func callerOf(ctx context.Context) int {
	if uid, ok := ctx.Value(callerKey{}).(int); ok {
		return uid
	}
	return -1
}

// peerOf returns who is at the other end of a unix socket, or nil. Of a socket that
// was dialled it is the process that listens, whether it answers or not.
func peerOf(c net.Conn) (cred *unix.Ucred) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return nil
	}
	return cred
}
