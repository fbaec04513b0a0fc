//go:build !p2ptest

package swarm

import "io"

// corrupt is where a binary built for tests flips bits; this one does not.
func corrupt(r io.Reader) io.Reader { return r }
