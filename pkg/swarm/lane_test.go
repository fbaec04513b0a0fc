package swarm

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/sec"
)

func placeOf(t *testing.T, h host.Host) netip.AddrPort {
	t.Helper()
	at, err := addrPortOf(h.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// opened returns both ends of a lane.
func opened(t *testing.T, from, to *Host) (near, far *tlsLane) {
	t.Helper()
	near, err := from.lanes.dial(testContext(t), to.ID(), []netip.AddrPort{placeOf(t, to)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Reset() })
	select {
	case far = <-to.lanes.arrived:
		t.Cleanup(func() { far.Reset() })
	case <-time.After(10 * time.Second):
		t.Fatal("the lane did not arrive")
	}
	return near, far
}

func TestALaneSharesThePortAndKnowsWhoIsThere(t *testing.T) {
	k := NewKey()
	a := testHost(t, 1, HostOptions{})
	b := testHost(t, 2, HostOptions{Gater: admitting(k, a.ID())})
	echo(b)
	near, far := opened(t, a, b)
	if near.peer != b.ID() || far.peer != a.ID() {
		t.Errorf("ends at %s and %s", near.peer, far.peer)
	}
	if v := near.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("TLS version %x", v)
	}
	if err := a.Connect(testContext(t), infoOf(b)); err != nil {
		t.Errorf("libp2p on the same port: %v", err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go far.Write(data)
	got := make([]byte, len(data))
	near.batch(true)
	if _, err := io.ReadFull(near, got[:len(got)-ioStep]); err != nil {
		t.Fatal(err)
	}
	near.batch(false)
	if _, err := io.ReadFull(near, got[len(got)-ioStep:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %v, equal %v", err, bytes.Equal(got, data))
	}
}

func TestALaneIsRefused(t *testing.T) {
	a, b := testHost(t, 1, HostOptions{}), testHost(t, 2, HostOptions{})
	g := NewGater(NewKey())
	g.patience = 0
	closed := testHost(t, 3, HostOptions{Gater: g})
	mismatch := sec.ErrPeerIDMismatch{}
	if _, err := a.lanes.dial(testContext(t), closed.ID(), []netip.AddrPort{placeOf(t, b)}); !errors.As(err, &mismatch) {
		t.Errorf("another member at the address: %v", err)
	}
	if _, err := a.lanes.dial(testContext(t), b.ID(), nil); err == nil {
		t.Error("dialled without an address")
	}
	l, err := a.lanes.dial(testContext(t), closed.ID(), []netip.AddrPort{placeOf(t, closed)})
	if err == nil { // with TLS 1.3 the refusal comes after the handshake
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = l.Read(make([]byte, 1))
	}
	if ne := net.Error(nil); err == nil || (errors.As(err, &ne) && ne.Timeout()) {
		t.Errorf("a stranger was not refused: %v", err)
	}
	if r := g.Refused(); r.Count != 1 || r.Last != a.ID() {
		t.Errorf("refused %+v", r)
	}
	if _, err := closed.lanes.dial(testContext(t), b.ID(), []netip.AddrPort{placeOf(t, b)}); err == nil {
		t.Error("dialled whom the gater does not know")
	}
}

func TestTLSOfAnotherProtocolIsNoLane(t *testing.T) {
	h := testHost(t, 1, HostOptions{})
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", placeOf(t, h).String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err == nil {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if ne := net.Error(nil); err == nil || (errors.As(err, &ne) && ne.Timeout()) {
		t.Errorf("not refused: %v", err)
	}
}

func TestAHostClosesWithLanesOpen(t *testing.T) {
	a, b := testHost(t, 1, HostOptions{}), testHost(t, 2, HostOptions{})
	opened(t, a, b)
	silent, err := net.Dial("tcp", placeOf(t, b).String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
