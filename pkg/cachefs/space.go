package cachefs

import (
	"os"

	"golang.org/x/sys/unix"
)

// free returns how many bytes an ordinary user can still write.
func (c *Cache) free() (int64, error) {
	d, err := c.state.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	return c.sys.free(d)
}

// disk returns how large the filesystem is.
func (c *Cache) disk() (int64, error) {
	d, err := c.state.Open(".")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return int64(st.Blocks) * int64(st.Bsize), nil
}

func freeBytes(f *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, os.NewSyscallError("fstatfs", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
