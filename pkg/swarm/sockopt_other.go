//go:build !linux

package swarm

import "net"

// wakeAt has no portable form: every packet wakes the reader.
func wakeAt(net.Conn, int) {}
