package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// checkProxy finds proxy variables that would take clients past the gateway:
// they go to the proxy for 127.0.0.1 too, and try for 23 s before they give up.
func checkProxy(_ context.Context, e *Env) Result {
	if e.Gateway == "" {
		return skipped("no gateway")
	}
	name, proxy := clientProxy(e.Lookup)
	host := hostOf(e.Gateway)
	switch {
	case proxy == "":
		return ok("no proxy variable concerns %s", e.Gateway)
	case direct(e.Lookup, host):
		return ok("NO_PROXY keeps %s away from %s", host, name)
	}
	list := NoProxy(e.Lookup, host)
	do := fmt.Sprintf("set NO_PROXY='%s' and no_proxy to the same for clients; `p2pagent env` prints it", list)
	text := fmt.Sprintf("%s is %s and NO_PROXY does not name %s: clients ask the proxy for the gateway", name, proxyHost(proxy), host)
	if e.clientsUseGateway() {
		return fail(do, "%s", text)
	}
	return warn(do, "%s", text)
}

// clientProxy returns the variable that sends plain HTTP to a proxy.
func clientProxy(get Lookup) (name, value string) {
	for _, name := range []string{"HTTP_PROXY", "ALL_PROXY"} {
		if v := get.either(name); v != "" {
			return name, v
		}
	}
	return "", ""
}

// proxyHost is the part of a proxy's URL that is no secret.
func proxyHost(proxy string) string {
	if !strings.Contains(proxy, "://") {
		proxy = "http://" + proxy
	}
	u, err := url.Parse(proxy)
	if err != nil || u.Host == "" {
		return "set"
	}
	return u.Host
}

// clientsUseGateway tells whether clients with this environment ask an endpoint
// on this machine.
func (e *Env) clientsUseGateway() bool {
	endpoint, _ := e.Lookup("HF_ENDPOINT")
	return SameHost(endpoint, e.Gateway)
}

// SameHost tells whether a URL leads to host:port, loopback in any spelling.
func SameHost(endpoint, addr string) bool {
	host, port, err := net.SplitHostPort(hostPort(endpoint))
	there, listens, addrErr := net.SplitHostPort(addr)
	if err != nil || addrErr != nil || host == "" || port != listens {
		return false
	}
	return strings.EqualFold(host, there) || isLoopback(host) && isLoopback(there)
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.IsLoopback()
}

// variableRules find what works against this node: each says what it has seen,
// "" for nothing, and what to do.
var variableRules = []func(e *Env) (seen, do string){
	func(e *Env) (string, string) {
		if !e.on("HF_HUB_ENABLE_HF_TRANSFER") {
			return "", ""
		}
		return "HF_HUB_ENABLE_HF_TRANSFER is on: its downloads have no timeout", "unset HF_HUB_ENABLE_HF_TRANSFER"
	},
	func(e *Env) (string, string) {
		switch off := e.on("HF_HUB_DISABLE_XET"); {
		case !e.clientsUseGateway() || off != e.GatewayXet:
			return "", ""
		case off:
			return "HF_HUB_DISABLE_XET is set: clients leave what the gateway serves as Xet, and Python's does not take files over 50 GB otherwise", "unset HF_HUB_DISABLE_XET"
		}
		return "HF_HUB_DISABLE_XET is not set: Xet bytes do not come from the gateway", "set HF_HUB_DISABLE_XET=1"
	},
	func(e *Env) (string, string) {
		if !e.clientsUseGateway() || !e.on("HF_HUB_OFFLINE") && !e.on("TRANSFORMERS_OFFLINE") {
			return "", ""
		}
		return "HF_ENDPOINT is the gateway, and clients are told to be offline: they never ask it", "unset HF_ENDPOINT, or HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
	},
	func(e *Env) (string, string) { return e.impatient("HF_HUB_ETAG_TIMEOUT", "30") },
	func(e *Env) (string, string) { return e.impatient("HF_HUB_DOWNLOAD_TIMEOUT", "60") },
	func(e *Env) (string, string) {
		if e.ClientCache == "" || e.ClientCache == e.HubCache {
			return "", ""
		}
		return fmt.Sprintf("clients look into %s, the agent's cache is %s", e.ClientCache, e.HubCache), "set HF_HUB_CACHE for clients as `p2pagent env` prints it"
	},
}

// checkVariables names everything that is found.
func checkVariables(_ context.Context, e *Env) Result {
	var seen, do []string
	for _, find := range variableRules {
		if s, d := find(e); s != "" {
			seen, do = append(seen, s), append(do, d)
		}
	}
	if len(seen) == 0 {
		return ok("none works against this node")
	}
	return warn(strings.Join(do, "; "), "%s", strings.Join(seen, "; "))
}

// defaultTimeout is huggingface_hub's own, in seconds; "0" means it too.
const defaultTimeout = 10

// impatient finds a timeout that leaves the gateway less time than clients give
// the Hub.
func (e *Env) impatient(name, better string) (seen, do string) {
	v, _ := e.Lookup(name)
	n, err := strconv.ParseFloat(v, 64)
	if err != nil || n <= 0 || n >= defaultTimeout || !e.clientsUseGateway() {
		return "", ""
	}
	return name + "=" + v + " makes clients give up early", "set " + name + "=" + better
}

// on reads a switch as huggingface_hub does.
func (e *Env) on(name string) bool {
	v, _ := e.Lookup(name)
	switch strings.ToUpper(v) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}
