package cluster

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"p2pagent/pkg/swarm"
)

const pieces = "/test/pieces"

// serve answers each stream with size bytes.
func serve(n *Node, size int) {
	n.Host.SetStreamHandler(pieces, func(s network.Stream) {
		defer s.Close()
		chunk := make([]byte, 256<<10)
		for left := size; left > 0; left -= len(chunk) {
			if _, err := s.Write(chunk[:min(left, len(chunk))]); err != nil {
				return
			}
		}
	})
}

func TestHostsCarryPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, rate, chain = 8 << 20, 100_000_000, 6
		c := New(t, chain, Options{Key: swarm.NewKey(), Up: rate, Down: rate})
		for i, n := range c.Nodes {
			serve(n, size)
			for _, o := range c.Nodes {
				n.Gater.Admit(o.Peer)
			}
			if i == 0 {
				continue
			}
			from := c.Nodes[i-1]
			if err := swarm.Connect(t.Context(), n.Host, from.MemberOptions().Facts); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			s, err := n.Host.NewStream(t.Context(), from.Peer, pieces)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.Copy(io.Discard, s)
			if err != nil || got != size {
				t.Fatalf("%d bytes, %v", got, err)
			}
			ideal := time.Duration(size * int64(time.Second) / rate)
			if took := time.Since(start); took < ideal || took > ideal*115/100 {
				t.Errorf("8 MiB at 100 MB/s in %v, ideal %v", took, ideal)
			}
			if over := float64(c.Net.Carried(from.IP)) / size; over < 1 || over > 1.02 {
				t.Errorf("%.3f bytes on the wire for one", over)
			}
		}
	})
}

func TestSilentPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(t, 2, Options{})
		a, b := c.Nodes[0], c.Nodes[1]
		if err := swarm.Connect(t.Context(), a.Host, b.MemberOptions().Facts); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		c.Cut(a, b)
		start := time.Now()
		for a.Host.Network().Connectedness(b.Peer) == network.Connected {
			if time.Since(start) > 16*time.Second {
				t.Fatal("an idle connection to a silent peer stays up for over 16 s")
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("noticed after %v", time.Since(start))
		c.Heal(a, b)
		if err := swarm.Connect(t.Context(), a.Host, b.MemberOptions().Facts); err != nil {
			t.Errorf("after healing: %v", err)
		}
	})
}

func TestRestartedMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(t, 2, Options{})
		a, b := c.Nodes[0], c.Nodes[1]
		serve(b, 10)
		if err := swarm.Connect(t.Context(), a.Host, b.MemberOptions().Facts); err != nil {
			t.Fatal(err)
		}
		old := b.Host
		c.Kill(b)
		time.Sleep(time.Second)
		if a.Host.Network().Connectedness(b.Peer) == network.Connected {
			t.Error("still connected to a dead process")
		}
		old.Close()
		b.Gossip.Shutdown()
		if err := c.Start(b); err != nil {
			t.Fatal(err)
		}
		serve(b, 10)
		if err := swarm.Connect(t.Context(), a.Host, b.MemberOptions().Facts); err != nil {
			t.Fatalf("after the restart: %v", err)
		}
		s, err := a.Host.NewStream(t.Context(), b.Peer, pieces)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(s); len(got) != 10 || err != nil {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}
