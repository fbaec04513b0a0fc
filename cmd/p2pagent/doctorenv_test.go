package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestLockExcludes: on an ordinary disk a second lock is refused, and nothing is
// left behind.
func TestLockExcludes(t *testing.T) {
	dir := t.TempDir()
	if works, err := lockExcludes(dir); !works || err != nil {
		t.Errorf("%v, %v", works, err)
	}
	if left, err := os.ReadDir(dir); len(left) > 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err := lockExcludes(dir + "/none"); err == nil {
		t.Error("no error without the folder")
	}
}

func TestBindOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for addr, network := range map[string]string{l.Addr().String(): "tcp", u.LocalAddr().String(): "udp"} {
		if err := bindOnce(network, addr); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("%s %s is taken: %v", network, addr, err)
		}
		if err := bindOnce(network, "127.0.0.1:0"); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
}

// TestStatfsOfWhatIsNotThere: a cache that does not exist yet has the room of the
// folder that it will be made in.
func TestStatfsOfWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	got, err := statfs(dir + "/a/b/c")
	if err != nil || got.Dir != dir || got.Size == 0 || got.Free == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if same, err := sameMount(dir+"/a/b", dir+"/c"); !same || err != nil {
		t.Errorf("%v, %v", same, err)
	}
}

// TestLimitOfOthers: a process that is no p2pagent is not taken for the agent.
func TestLimitOfOthers(t *testing.T) {
	if n, err := limitOf(os.Getpid()); err == nil {
		t.Errorf("%d for %s", n, strconv.Itoa(os.Getpid()))
	}
}
