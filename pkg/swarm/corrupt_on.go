//go:build p2ptest

package swarm

import (
	"io"
	"math/rand/v2"
	"os"
	"strconv"
)

// corrupt flips a bit in the given percentage of the pieces that are served:
// P2PAGENT_TEST_CORRUPT=10 makes a member whose memory is broken.
func corrupt(r io.Reader) io.Reader {
	percent, _ := strconv.Atoi(os.Getenv("P2PAGENT_TEST_CORRUPT"))
	if rand.IntN(100) >= percent {
		return r
	}
	return &flipper{r: r}
}

type flipper struct {
	r    io.Reader
	done bool
}

func (f *flipper) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if n > 0 && !f.done {
		p[n/2] ^= 1
		f.done = true
	}
	return n, err
}
