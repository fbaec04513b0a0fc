package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"sync"
)

// checkAgent finds no agent, and one of another build than this command.
func checkAgent(_ context.Context, e *Env) Result {
	switch {
	case e.Agent == nil && errors.Is(e.AgentErr, fs.ErrPermission):
		return warn("run this as the agent's user or as a member of its group", "%v", e.AgentErr)
	case e.Agent == nil:
		return warn("start one with `p2pagent agent`, or name its --socket", "%v", e.AgentErr)
	case e.Agent.Version != e.Version:
		return warn("restart the agent with this build, or use its own", "the agent is %s, this command %s", e.Agent.Version, e.Version)
	}
	return ok("%s runs", e.Agent.Version)
}

// checkKey reads the key file and compares it with what the agent uses. The
// reader's errors say what is wrong with length, form or permissions.
func checkKey(_ context.Context, e *Env) Result {
	switch {
	case e.KeyFile == "" && e.Agent != nil && e.Agent.SwarmKey != "open":
		return skipped("none is named here; the agent has %s", e.Agent.SwarmKey)
	case e.KeyFile == "" && (e.Insecure || e.Agent != nil):
		return warn("make a key with `p2pagent keygen FILE` and give every node a copy", "the swarm is open: whoever reaches the ports is a member")
	case e.KeyFile == "":
		return warn("name the key with --swarm-key-file or P2PAGENT_SWARM_KEY_FILE", "none is named here, and an agent does not start without")
	}
	fingerprint, err := e.Key(e.KeyFile)
	switch {
	case err != nil:
		return fail("copy the file that `p2pagent keygen` wrote on another node, owned by the agent's user, mode 0600", "%v", err)
	case e.Agent != nil && e.Agent.SwarmKey != fingerprint:
		return fail("give the agent the same file as all others and restart it", "%s is %s, the agent has %s", e.KeyFile, fingerprint, e.Agent.SwarmKey)
	}
	return ok("fingerprint %s", fingerprint)
}

// checkPorts tries the ports that an agent would need.
func checkPorts(_ context.Context, e *Env) Result {
	if e.agentIsHere() {
		return skipped("the agent has them; see members")
	}
	var taken, free []string
	for _, p := range []struct {
		name, network string
		port          int
	}{{"gossip-port", "tcp", e.GossipPort}, {"gossip-port", "udp", e.GossipPort}, {"swarm-port", "tcp", e.SwarmPort}} {
		if p.port == 0 {
			continue
		}
		text := fmt.Sprintf("%s %d/%s", p.name, p.port, p.network)
		if err := e.Bind(p.network, net.JoinHostPort(e.BindIP, strconv.Itoa(p.port))); err != nil {
			taken = append(taken, fmt.Sprintf("%s: %v", text, err))
		} else {
			free = append(free, text)
		}
	}
	switch {
	case len(taken) > 0:
		return fail("stop what has the port, or choose others with --gossip-port, --swarm-port and --bind", "%s", strings.Join(taken, "; "))
	case len(free) == 0:
		return skipped("any port will do")
	}
	return ok("free: %s", strings.Join(free, ", "))
}

// maxNeighbours is how many streams a member keeps; in a larger swarm some
// members are seen by gossip alone.
const maxNeighbours = 256

// checkMembers finds members that the agent hears of and can't reach.
func checkMembers(_ context.Context, e *Env) Result {
	if e.Agent == nil {
		return skipped("no agent to ask")
	}
	openPorts := fmt.Sprintf("open TCP %d and TCP and UDP %d between all members, in both directions", e.SwarmPort, e.GossipPort)
	var faults, gossip []string
	for _, m := range e.Agent.Members {
		if m.Fault != "" && !m.Neighbour {
			faults = append(faults, m.Name+": "+m.Fault)
		} else if !m.Neighbour {
			gossip = append(gossip, m.Name)
		}
	}
	switch n := len(e.Agent.Members); {
	case len(faults) > 0:
		return fail(openPorts, "can't reach %d of %d: %s", len(faults), n, few(faults))
	case n == 0 && e.Agent.JoinFault != "":
		return fail("check the addresses of --join, that the agents there run and have the same key, and "+openPorts, "joined nobody: %s", e.Agent.JoinFault)
	case len(e.Agent.Refused) > 0:
		return warn("give those nodes the same key and build, if they belong here", "refused: %s", few(e.Agent.Refused))
	case len(gossip) > 0 && n <= maxNeighbours:
		return warn(openPorts+", unless they have just come", "no stream yet with %d of %d, seen by gossip only: %s", len(gossip), n, few(gossip))
	case n == 0:
		return ok("none in sight, and none was to be joined")
	}
	return ok("%d in sight, streams with %d", len(e.Agent.Members), len(e.Agent.Members)-len(gossip))
}

// few keeps a long list readable.
func few(list []string) string {
	const most = 3
	if len(list) <= most {
		return strings.Join(list, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(list[:most], "; "), len(list)-most)
}

// maxAddrs bounds how many addresses behind the names of --join are tried.
const maxAddrs = 64

// checkJoin connects to the peers of --join.
func checkJoin(ctx context.Context, e *Env) Result {
	if len(e.Join) == 0 {
		return skipped("no --join")
	}
	addrs, faults := joinAddrs(ctx, e)
	errs := make([]error, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { errs[i] = e.Dial(ctx, addr) })
	}
	wg.Wait()
	reached := 0
	for _, err := range errs {
		if err == nil {
			reached++
			continue
		}
		faults = append(faults, err.Error())
	}
	const do = "start the agents there, correct --join, or open the gossip port, TCP and UDP, between members"
	switch {
	case reached == 0:
		return fail(do, "none answers: %s", few(faults))
	case len(faults) > 0:
		return warn(do, "%d of %d answer; %s", reached, len(addrs), few(faults))
	}
	return ok("%d of %d answer on TCP", reached, len(addrs))
}

// joinAddrs resolves the names at once; each may have many addresses.
func joinAddrs(ctx context.Context, e *Env) (addrs, faults []string) {
	found := make([][]string, len(e.Join))
	errs := make([]error, len(e.Join))
	var wg sync.WaitGroup
	for i, join := range e.Join {
		wg.Go(func() { found[i], errs[i] = e.resolve(ctx, join) })
	}
	wg.Wait()
	for i, err := range errs {
		addrs = append(addrs, found[i]...)
		if err != nil {
			faults = append(faults, err.Error())
		}
	}
	return addrs[:min(len(addrs), maxAddrs)], faults
}

func (e *Env) resolve(ctx context.Context, join string) ([]string, error) {
	host, port, err := net.SplitHostPort(join)
	if err != nil {
		return nil, err
	}
	ips, err := e.Resolve(ctx, host)
	for i, ip := range ips {
		ips[i] = net.JoinHostPort(ip, port)
	}
	return ips, err
}
