package swarm_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"testing"
	"time"

	"p2pagent/internal/wire"
	"p2pagent/pkg/pieces"
)

// A record can't be dated into the future, where it would be fresh for ever: whoever
// tries is not listened to.
func TestARecordHasAnAge(t *testing.T) {
	inPair(t, nil, func(t *testing.T, a, b *member) {
		s, err := a.Host.NewStream(t.Context(), b.Peer, wire.SwarmProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset()
		s.SetDeadline(time.Now().Add(10 * time.Second))
		hello, err := wire.Append(nil, &wire.Hello{Version: wire.Version})
		if err != nil {
			t.Fatal(err)
		}
		s.Write(hello)
		got := make(chan string, 1)
		ask := func(value string) {
			v, err := b.node.Record(t.Context(), "resolve/x", time.Minute, func(context.Context) ([]byte, error) { return []byte(value), nil })
			if err != nil {
				t.Error(err)
			}
			got <- string(v)
		}
		r, asked := bufio.NewReader(s), false
		for !asked {
			switch m, err := wire.Read(r); m := m.(type) {
			case nil:
				t.Fatal(err)
			case *wire.Hello:
				go ask("first")
			case *wire.Ask:
				s.Write(dated(t, a, m.Key, 9_223_372_037)) // in nanoseconds more than fits, and so less than nothing
				asked = true
			}
		}
		if v := <-got; v != "first" {
			t.Errorf("the record is %q", v)
		}
		time.Sleep(time.Hour)
		go ask("second")
		if v := <-got; v != "second" {
			t.Errorf("after an hour the record is %q", v)
		}
	})
}

// dated is a record of an age that no member sends.
func dated(t *testing.T, from *member, key string, seconds int64) []byte {
	t.Helper()
	const kindRecord = 10
	signer := pieces.NewSigner(from.Identity)
	body, err := pieces.Marshal(&wire.Record{Key: key, Value: []byte("false"), Age: seconds, Maker: signer.Maker(), Sig: signer.Sign("record v1", []byte(key+"\x00false"))})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.AppendUvarint(nil, uint64(len(body)+1)), kindRecord), body...)
}
