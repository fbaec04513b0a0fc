package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

var (
	ipA = netip.MustParseAddr("10.0.0.1")
	ipB = netip.MustParseAddr("10.0.0.2")
	ipC = netip.MustParseAddr("10.0.0.3")
	atB = netip.AddrPortFrom(ipB, 80)
)

// connect returns both ends of a connection from a machine to atB.
func connect(t testing.TB, n *Network, l net.Listener, from netip.Addr) (near, far net.Conn) {
	t.Helper()
	near, err := n.Dial(t.Context(), from, atB)
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func listen(t testing.TB, n *Network) net.Listener {
	t.Helper()
	l, err := n.Listen(atB)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestConnKeepsToNetConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		n := NewNetwork(0)
		l, err := n.Listen(atB)
		if err != nil {
			return nil, nil, nil, err
		}
		a, err = n.Dial(context.Background(), ipA, atB)
		if err != nil {
			return nil, nil, nil, err
		}
		b, err = l.Accept()
		return a, b, func() { a.Close(); b.Close(); l.Close() }, err
	})
}

func TestLatencyAndRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(10 * time.Millisecond)
		n.Shape(ipA, 10_000_000, 0)
		n.Shape(ipB, 0, 12_000_000)
		l := listen(t, n)
		start := time.Now()
		a, b := connect(t, n, l, ipA)
		c, d := connect(t, n, l, ipC)
		if got := time.Since(start); got != 40*time.Millisecond {
			t.Errorf("two handshakes in %v", got)
		}
		start = time.Now()
		const size = 5_000_000
		go a.Write(make([]byte, size))
		if _, err := io.CopyN(io.Discard, b, size); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(start), 510*time.Millisecond; got < want || got > want+5*time.Millisecond {
			t.Errorf("5 MB at 10 MB/s in %v", got)
		}
		start = time.Now()
		go a.Write(make([]byte, size))
		go c.Write(make([]byte, size))
		done := make(chan time.Duration, 2)
		for _, conn := range []net.Conn{b, d} {
			go func() {
				io.CopyN(io.Discard, conn, size)
				done <- time.Since(start)
			}()
		}
		<-done
		if got := <-done; got < 830*time.Millisecond || got > 900*time.Millisecond {
			t.Errorf("10 MB into a link of 12 MB/s in %v", got)
		}
		if got := n.Carried(ipA); got != 2*size {
			t.Errorf("carried %d", got)
		}
	})
}

func TestCutIsSilentAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(time.Millisecond)
		l := listen(t, n)
		a, b := connect(t, n, l, ipA)
		n.Cut(ipA, ipB)
		n.Cut(ipB, ipA)
		if _, err := a.Write([]byte("into the void")); err != nil {
			t.Errorf("a cut is noticed at once: %v", err)
		}
		buf := make([]byte, 100)
		b.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read over a cut: %v", err)
		}
		a.SetWriteDeadline(time.Now().Add(15 * time.Second))
		if m, err := a.Write(make([]byte, 2*n.window)); !errors.Is(err, os.ErrDeadlineExceeded) || m >= 2*n.window {
			t.Errorf("wrote %d into a cut, %v", m, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := n.Dial(ctx, ipA, atB); err == nil || time.Since(start) != 5*time.Second {
			t.Errorf("dial over a cut: %v after %v", err, time.Since(start))
		}
		got := make(chan string)
		b.SetReadDeadline(time.Time{})
		go func() {
			m, err := io.ReadFull(b, buf[:13])
			got <- string(buf[:m])
			if err != nil {
				t.Error(err)
			}
		}()
		n.Heal(ipA, ipB)
		if s := <-got; s != "into the void" {
			t.Errorf("after healing: %q", s)
		}
		n.Heal(ipB, ipA)
		if _, err := n.Dial(t.Context(), ipA, atB); err != nil {
			t.Errorf("dial after healing: %v", err)
		}
	})
}

func TestCloseKillAndRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(time.Millisecond)
		if _, err := n.Dial(t.Context(), ipA, atB); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial: %v", err)
		}
		l := listen(t, n)
		if _, err := n.Listen(atB); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("listen twice: %v", err)
		}
		a, b := connect(t, n, l, ipA)
		a.Write([]byte("last words"))
		a.Close()
		if s, err := io.ReadAll(b); string(s) != "last words" || err != nil {
			t.Errorf("after close: %q, %v", s, err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write to a closed end: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after own close: %v", err)
		}
		c, d := connect(t, n, l, ipA)
		failed := make(chan error)
		go func() { _, err := d.Read(make([]byte, 1)); failed <- err }()
		synctest.Wait()
		n.Kill(ipA)
		if err := <-failed; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reader of a killed machine: %v", err)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("a killed machine writes")
		}
		if _, err := n.Dial(t.Context(), ipA, atB); err == nil {
			t.Error("a killed machine dials")
		}
		n.Kill(ipB)
		if _, err := n.Listen(atB); err == nil {
			t.Error("a killed machine listens")
		}
		n.Revive(ipB)
		if again, err := n.Listen(atB); err != nil {
			t.Error(err)
		} else {
			again.Close()
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
	})
}

func TestPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork(3 * time.Millisecond)
		got := make(chan []byte, 4)
		n.Packets(atB, func(from netip.AddrPort, b []byte) {
			if from.Addr() != ipA {
				t.Errorf("from %s", from)
			}
			got <- b
		})
		start := time.Now()
		msg := []byte("hello")
		n.Packet(netip.AddrPortFrom(ipA, 1), atB, msg)
		msg[0] = 'J'
		if b := <-got; !bytes.Equal(b, []byte("hello")) || time.Since(start) != 3*time.Millisecond {
			t.Errorf("%q after %v", b, time.Since(start))
		}
		n.Cut(ipA, ipB)
		n.Packet(netip.AddrPortFrom(ipA, 1), atB, msg)
		n.Heal(ipA, ipB)
		n.Packet(netip.AddrPortFrom(ipA, 1), netip.AddrPortFrom(ipC, 1), msg)
		n.Packets(atB, nil)
		n.Packet(netip.AddrPortFrom(ipA, 1), atB, msg)
		time.Sleep(time.Second)
		if len(got) != 0 {
			t.Error("a lost packet arrived")
		}
	})
}
