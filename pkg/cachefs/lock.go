package cachefs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// prepare makes both folders and returns their real paths.
func prepare(hub, state string) (hubDir, stateDir string, err error) {
	if hub == "" || state == "" {
		return "", "", errors.New("options: Hub and State must be set")
	}
	if hubDir, err = realDir(hub, 0o777); err != nil {
		return "", "", err
	}
	if stateDir, err = realDir(state, 0o700); err != nil {
		return "", "", err
	}
	if rel, err := filepath.Rel(hubDir, stateDir); err == nil && filepath.IsLocal(rel) {
		return "", "", fmt.Errorf("state %s, cache %s: %w", stateDir, hubDir, ErrInside)
	}
	return hubDir, stateDir, nil
}

func realDir(dir string, perm fs.FileMode) (string, error) {
	if err := os.MkdirAll(dir, perm); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// lock takes the state's lock file and the cache folder itself. Locking the
// folder keeps out an agent with another state, and leaves no file that a Hub
// client could stumble over.
func (c *Cache) lock() error {
	f, err := os.OpenFile(filepath.Join(c.state.Name(), lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	c.locks = append(c.locks, f)
	d, err := os.Open(c.hubDir)
	if err != nil {
		return err
	}
	c.locks = append(c.locks, d)
	if err := c.lockBoth(f, d); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// lockBoth goes on without locks on network filesystems that have none: unique names
// and renames keep the cache correct, only the work may be done twice.
func (c *Cache) lockBoth(state, hub *os.File) error {
	var none error
	for dir, f := range map[string]*os.File{c.state.Name(): state, c.hubDir: hub} {
		if err := c.lockOne(f, dir); noLocks(err) {
			none = err
		} else if err != nil {
			return err
		}
	}
	if none != nil {
		c.log.Warn("this filesystem has no locks; make sure that one agent uses the cache", "err", none)
	}
	return nil
}

func (c *Cache) lockOne(f *os.File, dir string) error {
	err := c.sys.flock(int(f.Fd()))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return &BusyError{Dir: dir, PID: holder(f)}
	}
	return &fs.PathError{Op: "flock", Path: dir, Err: err}
}

// noLocks tells whether the filesystem can't lock at all.
func noLocks(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EBADF) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK)
}

func flock(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) }

// holder finds who holds a lock on the file: the kernel's list knows, and the
// state's lock file says so too.
func holder(f *os.File) int {
	if pid := kernelHolder(f); pid != 0 {
		return pid
	}
	line := make([]byte, 16)
	n, _ := f.ReadAt(line, 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	return pid
}

// kernelHolder reads lines like "1: FLOCK ADVISORY WRITE 4711 fe:00:131 0 EOF".
func kernelHolder(f *os.File) int {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	list, err := os.Open("/proc/locks")
	if err != nil {
		return 0
	}
	defer list.Close()
	st := info.Sys().(*syscall.Stat_t)
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for lines := bufio.NewScanner(list); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 6 && fields[1] == "FLOCK" && fields[5] == want {
			pid, _ := strconv.Atoi(fields[4])
			return max(pid, 0)
		}
	}
	return 0
}

// checkMounts makes sure that finished blobs can be renamed into the cache. A
// cache that nobody can write here needs no such thing.
func (c *Cache) checkMounts() error {
	err := unix.Access(c.hubDir, unix.W_OK)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		c.log.Warn("the cache can't be written; serving what it has", "dir", c.hubDir)
		return nil
	}
	same, err := c.state.SameMount(c.hub)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("state %s, cache %s: %w", c.state.Name(), c.hubDir, ErrCrossDevice)
	}
	return nil
}
