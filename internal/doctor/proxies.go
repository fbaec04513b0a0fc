package doctor

import (
	"net"
	"slices"
	"strings"
)

// Lookup returns an environment variable and whether it is set, as os.LookupEnv.
type Lookup func(name string) (string, bool)

// either returns a proxy variable as Hub clients read it (Python's urllib, and
// with it httpx and requests): the name in small letters wins, even when it is
// set to nothing.
func (get Lookup) either(name string) string {
	if v, ok := get(strings.ToLower(name)); ok {
		return v
	}
	v, _ := get(strings.ToUpper(name))
	return v
}

// loopback is what NO_PROXY has to name: the gateway's address, in the two
// spellings that people use.
var loopback = []string{"127.0.0.1", "localhost"}

// NoProxy returns what NO_PROXY and no_proxy should be, so that clients reach
// the host (the gateway's) directly: what both are now, loopback and the host. A
// lone "*" is left alone: with anything beside it, it loses its meaning to some.
func NoProxy(get Lookup, host string) string {
	upper, _ := get("NO_PROXY")
	lower, _ := get("no_proxy")
	var out []string
	for _, name := range slices.Concat(names(upper), names(lower), loopback, []string{host}) {
		if name == "*" {
			return "*"
		}
		if name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

func names(list string) []string {
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		out = append(out, strings.TrimSpace(name))
	}
	return out
}

// direct tells whether every client goes to the host without a proxy. Clients
// read NO_PROXY differently: httpx does not understand 127.0.0.0/8, requests does
// not understand 127.0.0.1:8090 (measured with 0.28.1 and 2.34.2). So only what
// all of them understand counts: the host itself, or "*" alone.
func direct(get Lookup, host string) bool {
	list := get.either("NO_PROXY")
	return strings.TrimSpace(list) == "*" || slices.Contains(names(list), host)
}

// hostOf returns the host of host:port.
func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}
