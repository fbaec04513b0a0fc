// Package size reads and prints numbers of bytes on command lines.
package size

import (
	"fmt"
	"strconv"
	"strings"
)

var units = []struct {
	suffix string
	factor int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}, {"", 1}}

// Bytes is a flag.Value: "512MiB", "8GiB", "1000" or "1000B".
type Bytes int64

// Set parses a number with an optional unit.
func (b *Bytes) Set(s string) error {
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 0 || n > (1<<62)/u.factor {
			return fmt.Errorf("size %q: want a number and KiB, MiB, GiB or nothing", s)
		}
		*b = Bytes(n * u.factor)
		return nil
	}
	return nil // not reached: the last unit is empty
}

// String prints the largest unit that divides the number.
func (b Bytes) String() string {
	for i := 3; i >= 0; i-- {
		if b != 0 && int64(b)%units[i].factor == 0 {
			return fmt.Sprintf("%d%s", int64(b)/units[i].factor, units[i].suffix)
		}
	}
	return fmt.Sprintf("%dB", int64(b))
}
