// Package sockopt sets what the net package has no call for on a TCP socket.
// Elsewhere than on Linux, and on connections in memory, it does nothing.
package sockopt

import (
	"net"
	"time"
)

const (
	// UserTimeoutLimit is how long sent bytes may stay unacknowledged before the
	// kernel gives the connection up; without it that takes about 15 minutes.
	UserTimeoutLimit = 20 * time.Second

	// batch is how many bytes the kernel gathers before it wakes the reader.
	// Packets come one by one on a slow link, and waking costs more than copying.
	batch = 128 << 10
	// BatchFloor is how many bytes must still be to come for a reader to wait for
	// batch of them, with room for what buffers on the way hold already.
	BatchFloor = 256 << 10
)

// Batch makes a reader of c wait until 128 KiB have come (SO_RCVLOWAT), or lets it
// have every byte at once again. Whoever switches it on switches it off while
// BatchFloor bytes are still to come, or the last ones are never read.
func Batch(c net.Conn, on bool) {
	for {
		inner, ok := c.(interface{ NetConn() net.Conn }) // TLS, and others that wrap
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	if on {
		wakeAt(c, batch)
	} else {
		wakeAt(c, 1)
	}
}
